"""The sections for HAProxy 2.6 and later: peers, backend and, if asked for, a frontend. Pure.

What each line is for stands above it: the file is read at three in the morning. Why it is so and not otherwise:
docs/design/haproxy.md.
"""

from __future__ import annotations

import math
import re
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lbadaptor.contract.headers import HOLDERS_PATH
from lbadaptor.contract.settings import Settings
from monitor.haproxyconfig.machines import Machine, Peer, Refused

TICKET = "^[0-9]{1,6}[.][0-9]{1,16}[.][0-9A-Za-z_-]{43}$"
"""What a ticket looks like (lbadaptor.contract.ticket)."""
KEY_LENGTH = 96
"""Characters of a ticket in the stick table; a ticket has 67 at most."""
MAX_TIME = 24 * 24 * 60 * 60
"""Seconds. HAProxy counts milliseconds in 31 bits."""
EXPIRE_MARGIN = 300
"""Seconds that a ticket is remembered for beyond the last session that its AppServer may have."""
MIN_TICKETS = 10_000
BYTES_PER_TICKET = 400
"""Of HAProxy's memory, at most."""
SUCCESSORS = 100
"""AppServers that a slot may have, one after the other, while the first one's ticket is remembered."""
INTERVAL, FALL, RISE = 2, 4, 2
"""Of health checks: seconds; failures until a machine is down; successes until it is up."""
RETRIES = 7
"""Of a connection, one second apart where a machine refuses it; the last one is to another machine."""
CONNECT = 2
"""Seconds."""
_SECTION = re.compile(r"[0-9A-Za-z_.-]{1,40}", re.ASCII).fullmatch
_HOST = re.compile(r"[0-9A-Za-z_.:\[\]-]{1,255}", re.ASCII).fullmatch
_COOKIE = re.compile(r"[0-9A-Za-z_.-]+", re.ASCII).fullmatch
"""What needs no quotes, which HAProxy reads differently in different places."""
_MOUNT = re.compile(r"(?:/[0-9A-Za-z._~!&()*+,;=:@-]+)*", re.ASCII).fullmatch
_WIDTH = 116
_FIRST_PEER_PORT, _PEER_PORTS = 10_000, 1_000


@dataclass(frozen=True)
class Options:
    """Those of `lbctl haproxy-config`, read."""

    name: str
    """of the backend; the other sections' begin with it"""
    machines: Sequence[Machine]
    peers: Sequence[Peer] = ()
    bind: Sequence[str] = ()
    """of the frontend: what stands after `bind`; empty: there is no frontend"""
    host: str = "localhost"
    """by which Apache finds the virtual host of the health page"""
    mount: str = ""
    """a path without a slash at its end; empty: the whole site"""


def compose(options: Options, settings: Settings, command: str) -> str:
    """The sections; `command` is what writes them. Raises Refused for words that HAProxy could not read."""
    _refuse_words(options, settings)
    sections = [_head(options, command), _peers(options)]
    if options.bind:
        sections.append(_frontend(options, settings))
    sections.append(_backend(options, settings))
    return "\n".join("".join(f"{line}\n" for line in section) for section in sections)


def warnings(settings: Settings) -> list[str]:
    """What this machine lacks to be one behind HAProxy."""
    machine = settings.machine
    no_page = "HAProxy would take this machine for down, because nobody answers its check"
    found = []
    if machine.number < 0:
        found.append(f"[machine] number is not set: {no_page}")
    if not machine.front:
        found.append(f"[machine] front is not set: {no_page}")
    if not machine.agent:
        found.append("[machine] agent is not set: HAProxy does not learn when this machine is leaving, or busy")
    return found


def _refuse_words(options: Options, settings: Settings) -> None:
    if not _SECTION(options.name):
        raise Refused(f"--name {options.name}: a name of letters, digits and ._- is wanted")
    if not _HOST(options.host):
        raise Refused(f"--host {options.host}: a host name is wanted, such as www.example.com")
    if not _MOUNT(options.mount):
        raise Refused(f"--mount {options.mount}: a path is wanted, such as /shop")
    if not _COOKIE(cookie := settings.application.ticket_cookie):
        raise Refused(f"[application] ticket_cookie = {cookie}: HAProxy needs a name of letters, digits and ._-")
    for text in options.bind:
        if not text.strip() or not text.isprintable():
            raise Refused(f"--bind {text!r}: what stands after `bind` in HAProxy's configuration is wanted")


def _head(options: Options, command: str) -> Iterator[str]:
    yield f"# lbadaptor's machines for {options.mount or 'the whole site'}, for HAProxy 2.6 or later; written by"
    yield from (f"# {line}" for line in command.splitlines())
    yield "#"
    yield "# Try it, and reload. A restart of a single HAProxy forgets who sticks to which machine. So does a reload"
    yield "# in the first 5 s after a start."
    yield "#   haproxy -c -f /etc/haproxy/haproxy.cfg -f THIS_FILE && systemctl reload haproxy"
    yield "# Debian starts HAProxy with this file, too, if /etc/default/haproxy says"
    yield '#   EXTRAOPTS="-S /run/haproxy-master.sock -f THIS_FILE"'
    if not options.bind:
        yield f"# There is no frontend here. In yours, say `default_backend {options.name}`."


def _peers(options: Options) -> Iterator[str]:
    yield f"peers {options.name}_peers"
    if options.peers:
        yield from _note(
            "These lines are the same on each HAProxy. It finds itself by the name of its host (or that of `haproxy "
            "-L`). At a reload, the old process hands its table to the new one there. The other HAProxy gets each "
            "entry at once. Let nobody else come to these ports: they could write into the table."
        )
        for peer in options.peers:
            yield f"    peer {peer.name} {peer.address}"
    else:
        port = _FIRST_PEER_PORT + zlib.crc32(options.name.encode()) % _PEER_PORTS
        yield from _note("At a reload, the old process hands its table to the new one here. The port has to be free.")
        yield f'    peer "$HAPROXY_LOCALPEER" 127.0.0.1:{port}'


def _frontend(options: Options, settings: Settings) -> Iterator[str]:
    yield f"frontend {options.name}_front"
    yield "    mode http"
    yield from (f"    bind {text}" for text in options.bind)
    yield from _note(
        "A visitor's silence. Not shorter than `timeout server`: it would end requests that are at work."
    )
    yield f"    timeout client {_server_timeout(settings)}s"
    yield from _note("The head of a request has to be here by then.")
    yield "    timeout http-request 10s"
    yield f"    default_backend {options.name}"


def _backend(options: Options, settings: Settings) -> Iterator[str]:
    yield f"backend {options.name}"
    yield "    mode http"
    yield from _note(
        "New visitors, by weight, which the agents change. (leastconn would send them all to a machine that fails "
        "fast.)"
    )
    yield "    balance roundrobin"
    yield from _stickiness(options, settings)
    yield from _forwarded()
    yield from _connections(settings)
    yield from _checks(options)
    yield ""
    yield from _note("`id` is made of the name: tickets of a machine that was taken away do not lead to another one.")
    for machine in options.machines:
        line = f"    server {machine.name} {machine.address} id {_id(machine.name)} weight {machine.weight}"
        if agent := machine.agent:
            line += f" agent-check agent-addr {agent.host} agent-port {agent.port} agent-inter {INTERVAL}s"
        else:
            line += " slowstart 60s"  # an agent tells by itself how many visitors a new machine can take
        yield line


def _stickiness(options: Options, settings: Settings) -> Iterator[str]:
    cookie = settings.application.ticket_cookie
    wanted = math.ceil(settings.application.session_idle) + EXPIRE_MARGIN
    size = max(MIN_TICKETS, len(options.machines) * settings.slots * SUCCESSORS)
    yield ""
    yield from _note(
        "Which machine has a ticket's AppServer. A ticket is of an AppServer, not of a visitor, and any of its "
        f"visitors keeps it in the table, for session_idle and {EXPIRE_MARGIN // 60} minutes more. A full table "
        f"takes about {math.ceil(size * BYTES_PER_TICKET / 1_000_000)} MB; then the oldest entries go."
    )
    if wanted > MAX_TIME:
        yield from _note("(session_idle is longer than HAProxy can count.)")
    yield (
        f"    stick-table type string len {KEY_LENGTH} size {size} expire {min(wanted, MAX_TIME)}s"
        f" srvkey name peers {options.name}_peers"
    )
    yield from _note(
        "A visitor with a ticket goes to its machine, also while that is leaving; while it is down, to another one."
    )
    yield f"    stick match req.cook({cookie}) if {{ req.cook({cookie}) -m reg {TICKET} }}"
    yield from _note("A ticket is learnt from the answer that sets it, and not from one that deletes it (logout).")
    yield f"    stick store-response res.cook({cookie}) if {{ res.cook({cookie}) -m reg {TICKET} }}"


def _forwarded() -> Iterator[str]:
    yield ""
    yield from _note("The visitor's address and scheme, as HAProxy sees them. What visitors claim is removed.")
    yield "    http-request del-header X-Forwarded-For"
    yield "    option forwardfor"
    yield "    http-request set-header X-Forwarded-Proto https if { ssl_fc }"
    yield "    http-request set-header X-Forwarded-Proto http unless { ssl_fc }"


def _connections(settings: Settings) -> Iterator[str]:
    adaptor = settings.adaptor
    yield ""
    yield from _note(
        "Each request has a connection to Apache of its own. Apache closes connections that are kept (after "
        "KeepAliveTimeout, at a reload). A request that is sent at that moment gets no answer, and nobody knows "
        "whether it has begun."
    )
    yield "    option http-server-close"
    yield from _note("A piece of an answer goes on at once. Otherwise events would be 0.2 s late.")
    yield "    option http-no-delay"
    yield from _note("Only what was not sent yet is tried again. What may have begun is for the visitor to repeat.")
    yield "    retry-on conn-failure"
    yield from _note(
        f"While Apache restarts on a machine, its visitors wait for it, {RETRIES - 1} or {RETRIES} s, or until it is "
        "marked down. Then they go to another one (redispatch). Visitors without a ticket go to another one at once."
    )
    yield f"    retries {RETRIES}"
    yield "    option redispatch"
    yield f"    timeout connect {CONNECT}s"
    yield from _note(
        f"A machine's silence. Its adaptor may need answer_timeout ({adaptor.answer_timeout:g} s) twice, for two "
        f"AppServers, and wait ({adaptor.wait:g} s)."
    )
    yield f"    timeout server {_server_timeout(settings)}s"
    yield from _note("It counts only where you add maxconn to a server.")
    yield f"    timeout queue {_seconds(adaptor.wait + 10)}s"
    yield from _note(
        "Requests at work go on when their machine is marked down: it may only be slow. When it is gone, TCP finds "
        "that out after 10 s of silence and four probes, 5 s apart."
    )
    yield "    option srvtcpka"
    yield "    srvtcpka-idle 10s"
    yield "    srvtcpka-intvl 5s"
    yield "    srvtcpka-cnt 4"


def _checks(options: Options) -> Iterator[str]:
    yield ""
    yield from _note(
        "A machine is up as long as it has any AppServer. Whether new visitors may come, its agent says."
    )
    yield "    option httpchk"
    yield f"    http-check send meth GET uri {options.mount}{HOLDERS_PATH} ver HTTP/1.1 hdr Host {options.host}"
    yield "    http-check expect status 200"
    yield from _note("A busy Apache may take as long as this to answer.")
    yield "    timeout check 5s"
    yield from _note("Each change of a check goes to the log, with the reason.")
    yield "    option log-health-checks"
    yield from _note(
        f"Down after {FALL} failures: {(FALL - 1) * INTERVAL} to {FALL * INTERVAL} s where connections fail."
    )
    yield f"    default-server check inter {INTERVAL}s fall {FALL} rise {RISE}"


def _note(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="    # ", subsequent_indent="    # ", break_on_hyphens=False)


def _server_timeout(settings: Settings) -> int:
    return _seconds(2 * settings.adaptor.answer_timeout + settings.adaptor.wait + 10)


def _seconds(duration: float) -> int:
    return min(math.ceil(duration), MAX_TIME)


def _id(name: str) -> int:
    """Positive, of 31 bits."""
    return zlib.crc32(name.encode()) % (2**31 - 1) + 1
