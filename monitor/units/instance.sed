# Makes lbadaptor@.service, the unit of one application among several, from lbadaptor.service: `make units`.
s|^Description=AppServers of the WSGI application|& %i|
s|/etc/lbadaptor/lbadaptor\.toml|/etc/lbadaptor/%i.toml|
s|^\(RuntimeDirectory\)=lbadaptor$|\1=lbadaptor-%i|
s|^\(StateDirectory\)=lbadaptor$|\1=lbadaptor-%i|
