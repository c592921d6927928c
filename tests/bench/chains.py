"""The chains that are measured: what each is made of, whether it can be set up here, how it is set."""

from __future__ import annotations

from .build_others import (
    KEEP_ALIVE,
    alone,
    balancer,
    cheroot,
    granian,
    granian_threads,
    gunicorn,
    haproxy,
    mod_wsgi,
    passenger,
    uwsgi,
    waitress,
)
from .build_ours import bare_gateway, behind_haproxy, both_lanes, crowded, gateway, ours, python_lane
from .chain import BACKENDS, OURS, PAGES_AND_MIX, Chain, apache_module, module, program
from .servers import THREADS

SHORT = ("small", "large", "upload", "compute")
WAITING = ("wait", "mix")
OUR_PAGES = (*PAGES_AND_MIX, "first")
ARRIVING = "begin"
"""A page of ours that leaves many sessions behind: it is measured in chains that are ended then."""
DEFAULT, PYTHON_LANE = "ours-fast", "ours"
"""As people get it, in both lanes; and without what `lbctl apache-config` writes."""
FRONTED = "haproxy-ours-fast"
"""The default as one of several machines, with their HAProxy in front."""
APACHE = apache_module("")
ROUTE = "stickysession=ROUTEID, the cookie as in httpd's documentation, retry=0, all else as it comes"
GUNICORN = f"gthread, 1 worker, {THREADS} threads, keep-alive {KEEP_ALIVE} s as behind a proxy, heartbeat in /dev/shm"
WAITRESS = f"{THREADS} threads; its warnings of a long queue off, as its documentation tells to"
GRANIAN = "1 worker, 1 blocking thread (its documentation advises few for short requests), HTTP/1 only, no websockets"
GRANIAN_THREADS = f"1 worker, {THREADS} blocking threads, HTTP/1 only, no websockets"
UWSGI = f"master, 1 process, {THREADS} threads, single interpreter, request log off"
HAPROXY = "cookie insert indirect nocache, checks on, all else as it comes"

ALONE = [
    Chain("gateway", "lbadaptor's AppServer", OURS, gateway, backends=1),
    Chain(
        "gateway-bare", "lbadaptor's AppServer, without keys and LB- headers", OURS, alone(bare_gateway), backends=1
    ),
    Chain("granian", "granian", GRANIAN, alone(granian), [module("granian")], SHORT, backends=1),
    Chain(
        "granian-threads",
        f"granian, {THREADS} threads",
        GRANIAN_THREADS,
        alone(granian_threads),
        [module("granian")],
        WAITING,
        backends=1,
    ),
    Chain("waitress", "waitress", WAITRESS, alone(waitress), [module("waitress")], backends=1),
    Chain("cheroot", "cheroot", f"{THREADS} threads", alone(cheroot), [module("cheroot")], backends=1),
    Chain("gunicorn", "gunicorn gthread", GUNICORN, alone(gunicorn), [module("gunicorn")], backends=1),
]
"""One process, no Apache."""

CHAINS = [
    Chain(DEFAULT, "lbadaptor", OURS, ours(both_lanes), [APACHE], OUR_PAGES),
    Chain(PYTHON_LANE, "lbadaptor, Python lane alone", OURS, ours(python_lane), [APACHE], OUR_PAGES),
    Chain(
        FRONTED,
        "HAProxy + lbadaptor",
        f"as `lbctl haproxy-config` writes it; {OURS}",
        behind_haproxy(both_lanes),
        [APACHE, program("haproxy", "haproxy")],
        ("small",),
    ),
    Chain(
        "balancer-granian",
        "mod_proxy_balancer + granian",
        f"{ROUTE}; {GRANIAN}",
        balancer(granian),
        [APACHE, module("granian")],
        SHORT,
    ),
    Chain(
        "balancer-granian-threads",
        f"mod_proxy_balancer + granian, {THREADS} threads",
        f"{ROUTE}; {GRANIAN_THREADS}",
        balancer(granian_threads),
        [APACHE, module("granian")],
        WAITING,
    ),
    Chain(
        "balancer-waitress",
        "mod_proxy_balancer + waitress",
        f"{ROUTE}; {WAITRESS}",
        balancer(waitress),
        [APACHE, module("waitress")],
    ),
    Chain(
        "balancer-gunicorn",
        "mod_proxy_balancer + gunicorn",
        f"{ROUTE}; {GUNICORN}",
        balancer(gunicorn),
        [APACHE, module("gunicorn")],
    ),
    Chain(
        "balancer-gateway",
        "mod_proxy_balancer + lbadaptor's AppServer",
        f"{ROUTE}; {THREADS} threads; without keys and LB- headers",
        balancer(bare_gateway),
        [APACHE],
    ),
    Chain(
        "passenger",
        "Passenger, sticky sessions",
        f"PassengerStickySessions On, {BACKENDS} processes kept, each of which takes one request at a time",
        passenger,
        [APACHE, apache_module("passenger", "libapache2-mod-passenger")],
    ),
    Chain(
        "proxy-uwsgi",
        "mod_proxy_uwsgi + uWSGI",
        f"{ROUTE}; {UWSGI}",
        balancer(uwsgi, "uwsgi", "proxy_uwsgi"),
        [APACHE, apache_module("proxy_uwsgi", "apache2"), program("uwsgi", "uwsgi uwsgi-plugin-python3")],
    ),
    Chain(
        "mod_wsgi-daemon",
        "mod_wsgi daemon mode (not sticky)",
        f"{BACKENDS} processes, {THREADS} threads, script reloading off",
        mod_wsgi("daemon"),
        [APACHE],
        sticky=False,
    ),
    Chain(
        "haproxy-granian",
        "HAProxy + granian",
        f"{HAPROXY}; {GRANIAN}",
        haproxy(granian),
        [program("haproxy", "haproxy"), module("granian")],
        SHORT,
    ),
    Chain(
        "haproxy-granian-threads",
        f"HAProxy + granian, {THREADS} threads",
        f"{HAPROXY}; {GRANIAN_THREADS}",
        haproxy(granian_threads),
        [program("haproxy", "haproxy"), module("granian")],
        WAITING,
    ),
    Chain(
        "haproxy-gunicorn",
        "HAProxy + gunicorn",
        f"{HAPROXY}; {GUNICORN}",
        haproxy(gunicorn),
        [program("haproxy", "haproxy"), module("gunicorn")],
    ),
]
"""They carry a request to the one of 4 processes that holds the visitor's session."""
OWN = [chain for chain in CHAINS if chain.own]

SCALE = [
    *(
        Chain(f"entries-{count}", f"{count} entries in address.text", OURS, crowded(count), [APACHE])
        for count in (4, 100, 1000)
    ),
    *(
        Chain(
            f"fast-entries-{count}",
            f"{count} entries in address.text, fast lane",
            OURS,
            crowded(count, lanes=both_lanes),
            [APACHE],
        )
        for count in (4, 100, 1000)
    ),
    *(
        Chain(
            f"processes-{count}",
            f"{count} Apache processes",
            OURS,
            crowded(BACKENDS, count),
            [APACHE],
            warm_up=8 * count,
        )
        for count in (16, 64)
    ),
    Chain(
        "mod_wsgi-embedded",
        "mod_wsgi embedded, without an adaptor",
        "script reloading off",
        mod_wsgi("embedded"),
        [APACHE],
        sticky=False,
    ),
]
"""Ours as it grows, and mod_wsgi without an adaptor."""
