"""Others' servers, alone and behind Apache or HAProxy, set as their documentation advises."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from monitor.demo import httpd
from tests.ports import free_ports

from .chain import BACKENDS, Built
from .servers import APPLICATION, THREADS, Server, apache

BALANCER = ("proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests", "slotmem_shm", "headers")
KEEP_ALIVE = 75
"""Seconds: longer than any that comes before keeps an idle connection."""

# One process that serves the application.

Backend = Callable[[Path, int], Server]


def gunicorn(folder: Path, port: int) -> Server:
    options = f"-k gthread --workers 1 --threads {THREADS} --keep-alive {KEEP_ALIVE} --no-control-socket"
    command = [sys.executable, "-m", "gunicorn", *options.split(), "--log-level", "warning"]
    command += ["--worker-tmp-dir", "/dev/shm", "--bind", f"127.0.0.1:{port}", APPLICATION]
    return Server("backend", folder, port, command)


def waitress(folder: Path, port: int) -> Server:
    code = (
        "import logging, waitress; from application import application; "
        "logging.getLogger('waitress.queue').setLevel(logging.ERROR); "
        f"waitress.serve(application, listen='127.0.0.1:{port}', threads={THREADS})"
    )
    return Server("backend", folder, port, [sys.executable, "-c", code])


def granian(folder: Path, port: int) -> Server:
    """With one blocking thread: its documentation advises few where answers take about a millisecond."""
    return granian_threads(folder, port, 1)


def granian_threads(folder: Path, port: int, threads: int = THREADS) -> Server:
    options = f"--interface wsgi --workers 1 --blocking-threads {threads} --http 1 --no-ws --log-level warning"
    command = [sys.executable, "-m", "granian", *options.split(), "--port", str(port), APPLICATION]
    return Server("backend", folder, port, command)


def cheroot(folder: Path, port: int) -> Server:
    command = [sys.executable, "-m", "cheroot", "--bind", f"127.0.0.1:{port}", "--threads", str(THREADS), APPLICATION]
    return Server("backend", folder, port, command)


def uwsgi(folder: Path, port: int) -> Server:
    options = f"--plugin python3 --master --need-app --single-interpreter --die-on-term --threads {THREADS}"
    command = ["uwsgi", *options.split(), "--disable-logging", "--vacuum", "--strict"]
    command += ["--pythonpath", str(folder.parent / "application"), "--module", APPLICATION]
    return Server("backend", folder, port, [*command, "--socket", f"127.0.0.1:{port}"])


def alone(backend: Backend) -> Callable[[Path], Built]:
    def build(folder: Path) -> Built:
        server = backend(folder, free_ports())
        return Built([server], server.port)

    return build


# Chains of several processes.


def backends(folder: Path, backend: Backend) -> list[Server]:
    first = free_ports(BACKENDS)
    return [backend(folder, first + number) for number in range(BACKENDS)]


def balancer(backend: Backend, scheme: str = "http", *modules: str) -> Callable[[Path], Built]:
    """mod_proxy_balancer with a cookie for the route, as its documentation shows."""

    def build(folder: Path) -> Built:
        servers = backends(folder, backend)
        members = "\n".join(
            f"    BalancerMember {scheme}://127.0.0.1:{server.port} route={number} retry=0"
            for number, server in enumerate(servers)
        )
        configuration = (
            'Header add Set-Cookie "ROUTEID=.%{BALANCER_WORKER_ROUTE}e; path=/" env=BALANCER_ROUTE_CHANGED\n'
            f"<Proxy balancer://backends>\n{members}\n    ProxySet stickysession=ROUTEID\n</Proxy>\n"
            "ProxyPass / balancer://backends/"
        )
        front = apache(folder, free_ports(), httpd.find(), [*BALANCER, *modules], configuration)
        return Built([*servers, front], front.port)

    return build


def haproxy(backend: Backend) -> Callable[[Path], Built]:
    """A cookie that HAProxy inserts, as its documentation shows."""

    def build(folder: Path) -> Built:
        servers = backends(folder, backend)
        port = free_ports()
        lines = "".join(
            f"    server s{number} 127.0.0.1:{server.port} check cookie s{number}\n"
            for number, server in enumerate(servers)
        )
        configuration = folder / "haproxy.cfg"
        configuration.write_text(
            "global\n    maxconn 1000\n"
            "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
            f"listen site\n    bind 127.0.0.1:{port}\n    balance roundrobin\n"
            f"    cookie SERVERID insert indirect nocache\n{lines}"
        )
        front = Server("haproxy", folder, port, ["haproxy", "-db", "-f", configuration])
        return Built([*servers, front], port)

    return build


def passenger(folder: Path) -> Built:
    place = folder.parent / "application"
    (folder / "passenger").mkdir()
    configuration = (
        "PassengerRoot /usr/lib/ruby/vendor_ruby/phusion_passenger/locations.ini\n"
        f"PassengerInstanceRegistryDir {folder}/passenger\n"
        f"PassengerPython {sys.executable}\nPassengerLogFile {folder}/passenger-error.log\n"
        f"PassengerMaxPoolSize {BACKENDS}\nPassengerMinInstances {BACKENDS}\nPassengerStickySessions On\n"
        f"PassengerAppRoot {place}\nPassengerAppType wsgi\nPassengerStartupFile passenger_wsgi.py\n"
        f"PassengerEnabled On\n<Directory {place}/public>\n    Require all granted\n</Directory>"
    )
    front = apache(
        folder, free_ports(), httpd.find(), ["passenger"], configuration, part="httpd, Passenger, backends"
    )
    return Built([front], front.port)


def mod_wsgi(mode: str) -> Callable[[Path], Built]:
    """mod_wsgi itself, without stickiness."""

    def build(folder: Path) -> Built:
        place = folder.parent / "application"
        daemon = f"WSGIDaemonProcess bench processes={BACKENDS} threads={THREADS} python-path={place}"
        group = "bench" if mode == "daemon" else "%{GLOBAL}"
        configuration = (
            f"WSGIPythonHome {sys.base_prefix}\nWSGISocketPrefix {folder}/wsgi\nWSGIScriptReloading Off\n"
            f"{daemon if mode == 'daemon' else f'WSGIPythonPath {place}'}\n"
            f"WSGIScriptAlias / {place}/application.py process-group={group} application-group=%{{GLOBAL}}\n"
            f"<Directory {place}>\n    Require all granted\n</Directory>"
        )
        part = "httpd, backends" if mode == "daemon" else "httpd"
        front = apache(folder, free_ports(), httpd.find(), ["wsgi"], configuration, part=part)
        return Built([front], front.port)

    return build
