"""Ours: the AppServer alone, both lanes before AppServers that the monitor runs, and large tables."""

from __future__ import annotations

import grp
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lbadaptor.adaptor import forward as adaptor_request
from lbadaptor.adaptor.spool import Body
from lbadaptor.contract.address import Address, Entry, Identity, State, parse
from lbadaptor.contract.settings import load
from lbadaptor.contract.ticket import Verdict, make_keys
from monitor.apacheconfig import fastlane, front
from monitor.apacheconfig.apache_check import NEEDED
from monitor.apacheconfig.lanes import SNIPPETS, PythonLane, both, python_alone
from monitor.arbiter.files.address_text import CallerKeys, Publisher
from monitor.arbiter.files.available_text import Available
from monitor.arbiter.processes.process_environment import make_room_for_socket
from monitor.demo import httpd
from monitor.demo.haproxy import PEER
from monitor.haproxyconfig.compose import Options, compose
from monitor.haproxyconfig.machines import Machine, Peer
from tests.ports import free_ports

from .chain import BACKENDS, Built
from .load import Page, Request
from .servers import APPLICATION, THREADS, AppServer, Server, apache, readable_adaptor

ADAPTOR = ("alias", "env", "setenvif", "wsgi")


def bare_gateway(folder: Path, port: int) -> Server:
    command = [sys.executable, "-m", "lbadaptor.appserver", "--address", f"127.0.0.1:{port}"]
    return Server(
        "backend", folder, port, [*command, "--threads", str(THREADS), "--session-cookie", "sid", APPLICATION]
    )


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


Lanes = Callable[[Path, Path], tuple[Sequence[str], str]]
"""A folder and lbadaptor.toml → what httpd has to load, and its configuration."""


def python_lane(folder: Path, config: Path) -> tuple[Sequence[str], str]:
    return ADAPTOR, _mod_wsgi(folder) + python_alone(_adaptor(folder, config), "as asked for", __name__)


def both_lanes(folder: Path, config: Path) -> tuple[Sequence[str], str]:
    """As people get it by default: with what `lbctl apache-config` writes."""
    settings = load(config)
    python = _adaptor(folder, config)
    fast_lane = fastlane.snippet(settings, settings.slots, "", str(python.share), "bench")
    modules = dict.fromkeys((*ADAPTOR, *NEEDED, *(front.NEEDED if settings.machine.front else ())))
    return tuple(modules), _mod_wsgi(folder) + both(python, fast_lane, __name__)


def _adaptor(folder: Path, config: Path) -> PythonLane:
    return PythonLane.of(load(config), SNIPPETS["embedded"], readable_adaptor(folder), config, "")


def _mod_wsgi(folder: Path) -> str:
    return f"WSGIPythonHome {sys.base_prefix}\nWSGISocketPrefix {folder}/wsgi\n"


def ours(lanes: Lanes) -> Callable[[Path], Built]:
    """The adaptor in Apache, and AppServers that the monitor runs."""

    def build(folder: Path) -> Built:
        monitor, config = monitored(folder, BACKENDS)
        modules, configuration = lanes(folder, config)
        front = apache(folder, free_ports(), httpd.find(), modules, configuration)
        return Built([monitor, front], front.port)

    return build


def behind_haproxy(lanes: Lanes) -> Callable[[Path], Built]:
    """The same as one of several machines, and the HAProxy in front of them."""

    def build(folder: Path) -> Built:
        port = free_ports(3)
        agent = Address("127.0.0.1", port + 2)
        machine = f'[machine]\nnumber = 1\nagent = "{agent}"\nfront = ["127.0.0.1"]\n'
        monitor, config = monitored(folder, BACKENDS, machine)
        group = httpd.apache_group()
        make_keys(folder / "keys", grp.getgrnam(group).gr_gid if group else None)
        modules, configuration = lanes(folder, config)
        one = apache(folder, free_ports(), httpd.find(), modules, configuration)
        machines = [Machine("web1", Address("127.0.0.1", one.port), 100, agent)]
        peers = [Peer(PEER, Address("127.0.0.1", port + 1))]
        file = folder / "haproxy.cfg"
        file.write_text(compose(Options("site", machines, peers, [f"127.0.0.1:{port}"]), load(config), __name__))
        haproxy = Server("haproxy", folder, port, ["haproxy", "-db", "-L", PEER, "-f", file])
        return Built([monitor, one, haproxy], port, in_front=2)

    return build


def monitored(folder: Path, servers: int, more: str = "", **monitor: float) -> tuple[Server, Path]:
    """A monitor for so many AppServers. `more`: sections of its lbadaptor.toml."""
    first = free_ports(servers + 4)
    config = write_config(
        folder, f"[appservers]\nservers = {servers}\nslots = {servers + 4}\nbase_port = {first}\n{more}"
    )
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
        shares = {server.entry.identity.slot: 1.0 for server in servers}
        available = Available(folder / "available.text", group, keys.caller_key, lambda now: shares)
        available.keep(settings.application.ticket_cookie, table, 0.0, float("inf"))
        publisher = Publisher(folder / "address.text", group)
        publisher.publish(table)
        modules, configuration = lanes(folder, config)
        front = apache(folder, free_ports(), httpd.find(), modules, configuration, processes)
        return Built([*servers, front], front.port, refresh=lambda: publisher.publish(table))

    return build
