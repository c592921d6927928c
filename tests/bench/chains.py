"""The chains that are measured: what each is made of, whether it can be set up here, how it is set.

A chain is started in a folder of its own, and leaves nothing behind.
"""

from __future__ import annotations

import grp
import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lbadaptor.adaptor import forward as adaptor_request
from lbadaptor.adaptor.spool import Body
from lbadaptor.contract.address import Address, Entry, Identity, State, parse
from lbadaptor.contract.settings import load
from lbadaptor.contract.ticket import Verdict, make_keys
from monitor.apacheconfig import fastlane
from monitor.arbiter.files.address_text import CallerKeys, Publisher
from monitor.arbiter.processes.process_environment import make_room_for_socket
from monitor.demo import httpd
from tests.apache.cluster import free_ports

from . import cost
from .load import LoadFailed, Page, Request, Visitor, log_in, plain
from .servers import (
    APPLICATION,
    THREADS,
    AppServer,
    Server,
    apache,
    folder_of_application,
    readable_adaptor,
)

BACKENDS = 4
SHORT = ("small", "large", "upload", "compute")
WAITING = ("small", "wait", "mix")
PAGES_AND_MIX = ("small", "large", "upload", "compute", "wait", "mix")
BALANCER = ("proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests", "slotmem_shm", "headers")
ADAPTOR = ("alias", "env", "setenvif", "wsgi")
KEEP_ALIVE = 75
"""Seconds: longer than any that comes before keeps an idle connection."""


@dataclass
class Built:
    """A chain's servers in the order of their start, and where visitors come in."""

    servers: list[Server]
    port: int
    request: Request = plain
    refresh: Callable[[], None] = lambda: None
    """to be called every 2 s"""


@dataclass
class Chain:
    """One chain. `start`, `stop`; between them it has a port, visitors, and processes."""

    name: str
    what: str
    settings: str
    """its settings, for people"""
    build: Callable[[Path], Built]
    needs: Sequence[Callable[[], str]] = ()
    """each tells why it cannot be set up here; empty: nothing stands against it"""
    pages: Sequence[str] = PAGES_AND_MIX
    """those that it is measured with"""
    backends: int = BACKENDS
    sticky: bool = True
    warm_up: int = 64
    """connections that have been to all its processes"""
    visitors: list[Visitor] = field(default_factory=list)
    built: Built | None = None

    def absent(self) -> str:
        """Why it cannot be set up here; empty: it can."""
        return "; ".join(filter(None, (need() for need in self.needs)))

    def start(self, folder: Path) -> None:
        """Blocks until it serves, and visitors have a session at each backend. Raises LoadFailed."""
        place = folder / self.name
        place.mkdir()
        place.chmod(0o711)
        folder_of_application(place)
        home = place / "run"
        home.mkdir()
        home.chmod(0o711)
        self.built = self.build(home)
        *behind, front = self.built.servers
        for server in behind:
            server.start()
        for server in behind:
            server.await_up()
        front.start()  # the fast lane's maps have to be there
        front.await_up()
        self.built.refresh()
        try:
            self.visitors = log_in(self.built.port, self.built.request, self.backends)
        except LoadFailed as error:
            raise LoadFailed(f"{self.name}: {error}\n{self.said()[:3000]}") from None

    @property
    def own(self) -> bool:
        """Whether it is ours: then a failure is no absence."""
        return self.settings == OURS

    def order_to_stop(self) -> None:
        for server in self.built.servers if self.built is not None else ():
            server.order_to_stop()

    def stop(self) -> None:
        """Blocks until nothing of it is left."""
        self.order_to_stop()
        if self.built is not None:
            for server in reversed(self.built.servers):
                server.stop()
            self.built = None

    def said(self) -> str:
        """What its foremost server logged."""
        return self.built.servers[-1].said() if self.built is not None else ""

    def processes(self) -> dict[str, set[int]]:
        """Its living processes, by part."""
        assert self.built is not None
        servers = {server.mark: server for server in self.built.servers}
        parts: dict[str, set[int]] = {}
        for mark, pids in cost.processes({mark: server.pid for mark, server in servers.items()}).items():
            parts.setdefault(servers[mark].part, set()).update(pids)
        return parts


# What a chain may need.


def module(name: str) -> Callable[[], str]:
    """A Python package."""
    return lambda: "" if importlib.util.find_spec(name) else f"{name} is missing: pip install {name}"


def program(name: str, package: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"{name} is missing: apt-get install {package}"


def apache_module(name: str, package: str = "") -> Callable[[], str]:
    def look() -> str:
        found = httpd.installed()
        if not found:
            return "Apache httpd with mod_wsgi is missing: apt-get install libapache2-mod-wsgi-py3"
        there = not name or (found[0].modules / f"mod_{name}.so").exists()
        return "" if there else f"mod_{name} is missing: apt-get install {package}"

    return look


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


def bare_gateway(folder: Path, port: int) -> Server:
    command = [sys.executable, "-m", "lbadaptor.appserver", "--address", f"127.0.0.1:{port}"]
    return Server(
        "backend", folder, port, [*command, "--threads", str(THREADS), "--session-cookie", "sid", APPLICATION]
    )


def uwsgi(folder: Path, port: int) -> Server:
    options = f"--plugin python3 --master --need-app --single-interpreter --die-on-term --threads {THREADS}"
    command = ["uwsgi", *options.split(), "--disable-logging", "--vacuum", "--strict"]
    command += ["--pythonpath", str(folder.parent / "application"), "--module", APPLICATION]
    return Server("backend", folder, port, [*command, "--socket", f"127.0.0.1:{port}"])


def gateway(folder: Path) -> Built:
    """Our gateway alone, with all that the contracts ask for: it is spoken to as by an adaptor."""
    server = AppServer(folder, free_ports(), make_keys(folder / "keys"), 0)
    return Built([server], server.port, as_adaptor(server))


def as_adaptor(server: AppServer) -> Request:
    """Requests as the adaptor sends them to a holder."""

    def head(page: Page, cookies: str) -> bytes:
        return head_for(server, page, cookies, Verdict.HELD if cookies else Verdict.NONE)

    return head


def head_for(server: AppServer, page: Page, cookies: str, verdict: Verdict) -> bytes:
    """The head of a request as the adaptor sends it to an AppServer, whatever the ticket is worth there."""
    environ = {
        "REQUEST_METHOD": page.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": page.path,
        "QUERY_STRING": "",
        "REQUEST_URI": page.path,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50123",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "127.0.0.1",
    }
    if cookies:
        environ["HTTP_COOKIE"] = cookies
    if page.upload:
        environ["CONTENT_LENGTH"] = str(page.upload)
    common = adaptor_request.Heads(()).common(environ, Body(b"", page.upload))
    return common + adaptor_request.head_end(server.caller_key, server.identity.generation, verdict)


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


Lanes = Callable[[Path, Path], tuple[Sequence[str], str]]
"""A folder and lbadaptor.toml → what httpd has to load, and its configuration."""


def python_lane(folder: Path, config: Path) -> tuple[Sequence[str], str]:
    share = readable_adaptor(folder)
    return ADAPTOR, (
        f"WSGIPythonHome {sys.base_prefix}\nWSGISocketPrefix {folder}/wsgi\n"
        f"Define LBADAPTOR_SHARE {share}\nDefine LBADAPTOR_CONFIG {config}\nInclude {share}/lbadaptor.conf"
    )


def both_lanes(folder: Path, config: Path) -> tuple[Sequence[str], str]:
    """As `lbctl apache-config` writes it."""
    modules, configuration = python_lane(folder, config)
    settings = load(config)
    share = folder / "adaptor" / "share" / "lbadaptor"
    fast_lane = fastlane.snippet(settings, settings.slots, "", str(share), "bench")
    return [*modules, "rewrite", "proxy", "proxy_http", "headers"], f"{configuration}\n{fast_lane}"


def ours(lanes: Lanes) -> Callable[[Path], Built]:
    """The adaptor in Apache, and AppServers that the monitor runs."""

    def build(folder: Path) -> Built:
        monitor, config = monitored(folder, BACKENDS)
        modules, configuration = lanes(folder, config)
        front = apache(folder, free_ports(), httpd.find(), modules, configuration)
        return Built([monitor, front], front.port)

    return build


def monitored(folder: Path, servers: int, **monitor: float) -> tuple[Server, Path]:
    """A monitor for so many AppServers."""
    first = free_ports(servers + 4)
    config = write_config(folder, f"[appservers]\nservers = {servers}\nslots = {servers + 4}\nbase_port = {first}\n")
    with config.open("a") as file:
        file.write("[monitor]\n" + "".join(f"{name} = {value}\n" for name, value in monitor.items()))
    command = [sys.executable, "-I", "-m", "monitor", "--config", str(config)]

    def ready() -> bool:
        table = folder / "address.text"
        return table.exists() and len(parse(table.read_text()).ok) == servers

    return Server("appservers", folder, first, command, ready=ready), config


def write_config(folder: Path, more: str = "") -> Path:
    config = folder / "lbadaptor.toml"
    config.write_text(
        f'[application]\napp = "{APPLICATION}"\nsession_cookie = "sid"\n'
        f'[files]\nrun_folder = "{folder}"\nkey_file = "{folder}/keys"\n'
        f'apache_group = "{httpd.apache_group()}"\n{more}'
    )
    config.chmod(0o644)
    return config


def crowded(entries: int, processes: int = 4, lanes: Lanes = python_lane) -> Callable[[Path], Built]:
    """Ours with so many entries in address.text: those beyond the 4 that serve are nobody's.

    No monitor runs, which would miss them; the file is written anew every 2 s, as by one that counts sessions.
    """

    def build(folder: Path) -> Built:
        first = free_ports(BACKENDS)
        config = write_config(folder, f"[appservers]\nslots = {2 * BACKENDS}\nbase_port = {first}\n")
        group = grp.getgrnam(httpd.apache_group()).gr_gid if httpd.apache_group() else None
        keys = make_keys(folder / "keys", group)
        settings = load(config)
        for slot in range(BACKENDS):
            make_room_for_socket(settings, slot, None, group)
        servers = [
            AppServer(folder, first + slot, keys, slot, settings.unix_socket(slot)) for slot in range(BACKENDS)
        ]
        nobodys = []
        for slot in range(BACKENDS, entries):
            identity = Identity(slot, time.time_ns() // 1_000_000 + slot)
            entry = Entry(keys.ticket(identity), Address("127.0.0.1", slot), State.DYING, identity)
            nobodys.append(entry)
        table = (*(server.entry for server in servers), *nobodys)
        caller_keys = CallerKeys(folder / "callerkeys.text", group, keys.caller_key)
        caller_keys.keep(table)
        publisher = Publisher(folder / "address.text", group)
        publisher.publish(table)
        modules, configuration = lanes(folder, config)
        front = apache(folder, free_ports(), httpd.find(), modules, configuration, processes)
        return Built([*servers, front], front.port, refresh=lambda: publisher.publish(table))

    return build


APACHE = apache_module("")
OURS = "the settings that lbadaptor comes with"
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
    Chain("ours", "lbadaptor, Python lane", OURS, ours(python_lane), [APACHE]),
    Chain("ours-fast", "lbadaptor, fast lane", OURS, ours(both_lanes), [APACHE]),
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
