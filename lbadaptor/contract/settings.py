"""lbadaptor.toml: every setting of adaptor, AppServers and monitor, one row each.

A row is a field: its name, type, bounds, unit, default and explanation. docs/reference/settings.md is written from
these rows (`python -m lbadaptor.contract.settings`).
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from lbadaptor.contract.errors import SettingsError
from lbadaptor.log import texts

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

DEFAULT_FILE = Path("/etc/lbadaptor/lbadaptor.toml")

SECONDS = "seconds"
BYTES = "bytes"

_IMPORT = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z"
COUNTED = ("cherrypy", "django", "flask", "webware")
"""Frameworks whose own stores can be asked for the count of living sessions."""
COOKIE = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z"
"""A cookie's name (RFC 6265 §4.1.1): a token."""
_HOST = r"^[^\s\[\]]+\Z"  # it stands in a column of address.text, which puts brackets round an IPv6 address
_VARIABLE = r"^[A-Z0-9_]*\*?\Z"  # small letters are lost in the name of a header
_ENVIRONMENT = r"^[A-Za-z_][A-Za-z0-9_]*\Z"
_WITHOUT_NUL = r"^[^\0]*\Z"
_PATH = r"^/[!-~]*\Z"  # as it stands in a request line: printable ASCII without blanks
Limit = Literal[
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
]  # fmt: skip
"""What Linux can limit: the constants of the module `resource`, without `RLIMIT_`."""
_LONGEST_SOCKET_PATH = 107
"""Bytes."""
_LONGEST = 366 * 86400.0
"""Seconds: what waits for longer was meant to wait for ever, which no timer can."""


def row(explanation: str, unit: str = "", **bounds: Any) -> Meta:
    """What a setting means, its unit, and its bounds."""
    return Meta(description=explanation, extra={"unit": unit}, **bounds)


class Application(Struct, forbid_unknown_fields=True, frozen=True):
    """[application]: the user's WSGI application and its sessions."""

    app: Annotated[str, row("The WSGI application, `module:callable`.", pattern=_IMPORT)]
    session_cookie: Annotated[
        str,
        row("The name of the application's own session cookie. A session begins when the application sets it. "
            "Required, but with `affinity`.", pattern=rf"{COOKIE}|^\Z"),
    ] = ""  # fmt: skip
    affinity: Annotated[
        bool,
        row("For an application that has no sessions in its process, but a cache: a visitor gets a ticket with their "
            "first answer and stays with that AppServer. Goes without `session_cookie`, and needs `drain_limit`."),
    ] = False  # fmt: skip
    session_idle: Annotated[
        float,
        row("A session ends when nobody used it for this long. The application's own limit, or longer. With "
            "`affinity`: a visitor is waited for so long after their last request.", SECONDS, ge=0.001),
    ] = 1800.0  # fmt: skip
    session_count: Annotated[
        str,
        row("Who counts the sessions that live in a process: the own store of a framework, one of "
            f"{', '.join(f'`{name}`' for name in COUNTED)} ([frameworks](../howto/sessions.md)); or "
            "`module:function`, which returns the number and alone decides when a session cache is empty. Empty: the "
            "cookies alone.",
            pattern=rf"{_IMPORT}|^[A-Za-z]*\Z"),
    ] = ""  # fmt: skip
    ticket_cookie: Annotated[
        str,
        row("The name of the ticket. Two applications on one host name need two. A new name takes effect with the "
            "next release; tickets of the old name are honoured as long as their AppServers live.",
            pattern=COOKIE),
    ] = "__PRT__"  # fmt: skip


class Files(Struct, forbid_unknown_fields=True, frozen=True):
    """[files]: where things are. A relative path begins at the folder of lbadaptor.toml."""

    run_folder: Annotated[
        str,
        row("Folder of address.text, the control socket and the monitor's lock; in memory (tmpfs), best."),
    ] = "/run/lbadaptor"
    key_file: Annotated[
        str,
        row("The master secret of tickets and keys. Made on first use, mode 0640."),
    ] = "/var/lib/lbadaptor/keys"
    apache_group: Annotated[
        str,
        row("The group that Apache runs in: address.text and a new key file are given to it, so that the adaptor can "
            "read them. Empty: their group is the monitor's."),
    ] = ""  # fmt: skip


class AppServers(Struct, forbid_unknown_fields=True, frozen=True):
    """[appservers]: the processes that serve the application."""

    servers: Annotated[int, row("How many AppServers take new visitors.", ge=1, le=1000)] = 4
    slots: Annotated[
        int,
        row("How many AppServers there may be at once, DYING ones included. 0: four for each one in `servers` and "
            "`standby`.", ge=0, le=8000),
    ] = 0  # fmt: skip
    host: Annotated[
        str,
        row("The address that they listen on. Apache and the monitor come by a Unix socket in the run folder as long "
            "as there is one.", pattern=_HOST),
    ] = "127.0.0.1"  # fmt: skip
    base_port: Annotated[int, row("The AppServer in slot n listens on this port + n.", ge=1, le=65535)] = 9000
    threads: Annotated[int, row("How many requests one AppServer works on at once.", ge=1, le=1000)] = 8
    queue: Annotated[
        int,
        row("How many requests may wait for one of its threads, those of ticket-holders first. Beyond that it "
            "refuses as BUSY, and the adaptor asks another, or waits for the holder.", ge=0, le=100_000),
    ] = 256  # fmt: skip
    standby: Annotated[
        int,
        row("How many AppServers are kept beyond `servers` as a hot standby: ready, and used only when no other "
            "takes a new visitor.", ge=0, le=1000),
    ] = 0  # fmt: skip
    weights: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=10_000)], ...],
        row("The share of new visitors of the AppServer in slot 0, 1, 2 …; slots that are not named have 100. 0: new "
            "visitors only when no other takes them."),
    ] = ()  # fmt: skip
    slow_start: Annotated[
        float,
        row("For this long after its start, the share of new visitors of an AppServer rises from a tenth of its "
            "weight to the whole. 0: the whole at once.", SECONDS, ge=0),
    ] = 0.0  # fmt: skip
    warm_up: Annotated[
        tuple[Annotated[str, Meta(pattern=_PATH)], ...],
        row("Pages of the application that every new AppServer asks itself for, one after another, and that must "
            "answer with a status below 400 before it takes visitors. Paths as the application sees them, such as "
            "`/products?page=1`."),
    ] = ()  # fmt: skip
    max_requests: Annotated[
        int,
        row("An AppServer that has served so many requests is replaced, then drained. 0: never.", ge=0),
    ] = 0
    max_age: Annotated[
        float, row("An AppServer that is this old is replaced, then drained. 0: never.", SECONDS, ge=0)
    ] = 0.0
    max_memory: Annotated[
        int,
        row("An AppServer whose resident memory is beyond this is replaced, then drained. 0: never, nor where it "
            "is less than what the application needs from the start.", BYTES, ge=0),
    ] = 0  # fmt: skip
    hard_memory: Annotated[
        int,
        row("An AppServer whose resident memory is found beyond this is ended at once, its sessions too; what is in "
            "flight gets two seconds. 0: never.", BYTES, ge=0),
    ] = 0  # fmt: skip
    spread: Annotated[
        int,
        row("Each AppServer has a `max_requests` and a `max_age` of its own, up to so much lower, so that they do "
            "not all leave at once.", "percent", ge=0, le=90),
    ] = 10  # fmt: skip
    preload: Annotated[
        bool,
        row("Import the application once, in a template process from which the AppServers are forked, so that they "
            "share its memory. A release makes a new template. What to mind: [Preload](../design/preload.md)."),
    ] = False  # fmt: skip
    environment: Annotated[
        dict[Annotated[str, Meta(pattern=_ENVIRONMENT)], Annotated[str, Meta(pattern=_WITHOUT_NUL)]],
        row("Environment variables of the AppServers, beside those of the monitor. In a value `{slot}` is the "
            "AppServer's slot, and `{folder}` its `own_folder`."),
    ] = {}  # fmt: skip
    working_folder: Annotated[
        str,
        row("The folder that they work in, and where the application is looked for first; `{slot}` and `{folder}` as "
            "in `environment`. A relative path begins at the folder of lbadaptor.toml. Empty: the monitor's.",
            pattern=_WITHOUT_NUL),
    ] = ""  # fmt: skip
    own_folder: Annotated[
        str,
        row("In this folder every AppServer gets one of its own, empty, for sessions on disk or other files that die "
            "with it: made for it, its user's alone (mode 0700), and removed when it has ended. It finds the path in "
            "the environment variable LBADAPTOR_FOLDER. A relative path begins at the folder of lbadaptor.toml. "
            "Empty: none.",
            pattern=_WITHOUT_NUL),
    ] = ""  # fmt: skip
    user: Annotated[
        str,
        row("The user that they run as, with HOME, USER and LOGNAME; for any but the monitor's own, the monitor must "
            "run as root. The user must not be able to read the key file. Empty: the monitor's."),
    ] = ""  # fmt: skip
    group: Annotated[
        str,
        row("The group that they run in, beside the other groups of `user`. Empty: the first group of `user`."),
    ] = ""  # fmt: skip
    umask: Annotated[
        int,
        row("Which permissions the files that they make lack, such as `0o027`. -1: as the monitor's.", ge=-1,
            le=0o777),
    ] = -1  # fmt: skip
    nice: Annotated[
        int,
        row("Added to the monitor's own nice value; less than 0 needs root.", ge=-40, le=39),
    ] = 0  # fmt: skip
    limits: Annotated[
        dict[Limit, Annotated[int, Meta(ge=-1)]],
        row("Resource limits of each, soft and hard, by their names in setrlimit(2) and in its units, such as "
            "`{ nofile = 4096, core = 0 }`. -1: no limit. Beyond the monitor's own hard limit needs root."),
    ] = {}  # fmt: skip

    @property
    def by_slot(self) -> tuple[str, ...]:
        """The settings in which `{slot}` and `{folder}` mean something."""
        return (self.working_folder, *self.environment.values())


class AdaptorSettings(Struct, forbid_unknown_fields=True, frozen=True):
    """[adaptor]: what happens inside Apache."""

    policy: Annotated[
        Literal["less-loaded", "random"],
        row("Who gets a visitor without a session: the less loaded of two random AppServers, or a random one."),
    ] = "less-loaded"
    connect_timeout: Annotated[float, row("How long a connection to an AppServer may take.", SECONDS, ge=0.001)] = 2.0
    answer_timeout: Annotated[
        float,
        row("How long an AppServer may be silent before and within its answer; then 504. Longer than it takes to "
            "find and end a hung AppServer.", SECONDS, ge=0.001),
    ] = 60.0  # fmt: skip
    wait: Annotated[
        float,
        row("How long a request waits for an AppServer when none is available or its holder is busy; then 503.",
            SECONDS, ge=0),
    ] = 5.0  # fmt: skip
    waiters: Annotated[
        int, row("How many requests of one Apache process may wait so; the next gets its 503 at once.", ge=0)
    ] = 16
    body_memory: Annotated[int, row("A request's body is kept in memory up to this size.", BYTES, ge=0)] = 65536
    body_spool: Annotated[
        int,
        row("Beyond `body_memory` in an unlinked temporary file up to this size; what is larger is streamed.",
            BYTES, ge=0),
    ] = 64 * 1024 * 1024  # fmt: skip
    spool_folder: Annotated[str, row("Folder of these temporary files. Empty: the system's.")] = ""
    answer_memory: Annotated[
        int,
        row("An answer is taken over in full up to this size before the visitor gets a byte; what is larger is "
            "streamed.", BYTES, ge=0),
    ] = 262144  # fmt: skip
    idle_connections: Annotated[
        int, row("Idle connections that one Apache process keeps to one AppServer.", ge=0, le=1000)
    ] = 32
    pass_variables: Annotated[
        tuple[Annotated[str, Meta(pattern=_VARIABLE)], ...],
        row("Further variables of Apache's for the application, in capitals, besides HTTPS; `SSL_*` names all that "
            "begin so. ([What is not passed](environ.md))"),
    ] = ("SSL_*",)  # fmt: skip
    repeat_idempotency_key: Annotated[
        bool,
        row("Whether a POST or PATCH with an `Idempotency-Key` header may be repeated, as a PUT may, when its "
            "AppServer was lost. Only for an application that remembers the keys outside its process."),
    ] = False  # fmt: skip
    sorry_page: Annotated[
        str,
        row("An HTML file (UTF-8) that visitors get with a 503. A relative path begins at the folder of "
            "lbadaptor.toml. Empty: a built-in page."),
    ] = ""  # fmt: skip


class Monitor(Struct, forbid_unknown_fields=True, frozen=True):
    """[monitor]: how AppServers are started, probed, replaced and ended."""

    probe_interval: Annotated[float, row("Pause between two probes of an AppServer.", SECONDS, ge=0.001)] = 1.0
    probe_timeout: Annotated[float, row("A probe without an answer for so long has failed.", SECONDS, ge=0.001)] = 2.0
    fall: Annotated[int, row("So many failed probes in a row make an AppServer FAILING.", ge=1)] = 3
    failing_limit: Annotated[
        float, row("A FAILING AppServer that does not recover within this time is ended.", SECONDS, ge=0.001)
    ] = 5.0
    computing_limit: Annotated[
        float,
        row("A FAILING AppServer whose processor time still advances is given this long: it may only be computing.",
            SECONDS, ge=0.001),
    ] = 30.0  # fmt: skip
    start_timeout: Annotated[
        float, row("An AppServer that is not ready after this time is ended and started anew.", SECONDS, ge=0.001)
    ] = 60.0
    starts_at_once: Annotated[
        int,
        row("How many AppServers may be starting at a time. 0: two for each processor core, eight at least.", ge=0),
    ] = 0  # fmt: skip
    stop_grace: Annotated[
        float,
        row("How long an AppServer that was ordered to stop may finish what is in flight; then SIGKILL.", SECONDS,
            ge=0.001),
    ] = 30.0  # fmt: skip
    backoff_limit: Annotated[
        float,
        row("The longest wait before an AppServer that keeps dying early is started anew.", SECONDS, ge=0.001),
    ] = 30.0
    replace_at_once: Annotated[
        int, row("How many AppServers are being replaced at a time (limit, order, release).", ge=1)
    ] = 1
    max_dying: Annotated[
        int,
        row("While so many AppServers are DYING, none that is past its limit is drained. 0: as many as `servers`. A "
            "release goes beyond, up to `slots`.", ge=0),
    ] = 0  # fmt: skip
    drain_limit: Annotated[
        float,
        row("A DYING AppServer that still has sessions after this time is ended, and that is announced in the log. "
            "0: it is waited for.", SECONDS, ge=0),
    ] = 0.0  # fmt: skip
    heartbeat: Annotated[
        float, row("address.text is rewritten at least this often, changed or not.", SECONDS, ge=0.001, le=15)
    ] = 10.0


class Settings(Struct, forbid_unknown_fields=True, frozen=True):
    """One lbadaptor.toml."""

    application: Application
    files: Files = Files()
    appservers: AppServers = AppServers()
    adaptor: AdaptorSettings = AdaptorSettings()
    monitor: Monitor = Monitor()
    folder: str = ""
    """not a setting: the folder of the file, where relative paths begin"""

    @property
    def slots(self) -> int:
        return self.appservers.slots or 4 * (self.appservers.servers + self.appservers.standby)

    @property
    def max_dying(self) -> int:
        return self.monitor.max_dying or self.appservers.servers

    @property
    def run_folder(self) -> Path:
        return Path(self.folder, self.files.run_folder)

    @property
    def key_file(self) -> Path:
        return Path(self.folder, self.files.key_file)

    @property
    def address_file(self) -> Path:
        return self.run_folder / "address.text"

    @property
    def snapshot_file(self) -> Path:
        return self.run_folder / "settings.json"

    @property
    def caller_keys_file(self) -> Path:
        return self.run_folder / "callerkeys.text"

    @property
    def sorry_page(self) -> Path | None:
        return Path(self.folder, self.adaptor.sorry_page) if self.adaptor.sorry_page else None

    @property
    def control_socket(self) -> Path:
        return self.run_folder / "control.sock"

    @property
    def socket_folder(self) -> Path:
        return self.run_folder.absolute() / "sockets"

    def unix_socket(self, slot: int) -> str:
        """Where the AppServer in a slot listens besides its port; empty: the path would be too long (unix(7))."""
        path = str(self.socket_folder / str(slot))
        return path if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH else ""

    @property
    def time_to_end_hung(self) -> float:
        """Seconds in which a hung AppServer is found and ended at the latest."""
        monitor = self.monitor
        return monitor.fall * (monitor.probe_interval + monitor.probe_timeout) + monitor.failing_limit


SECTIONS: dict[str, type[Struct]] = {
    "application": Application,
    "files": Files,
    "appservers": AppServers,
    "adaptor": AdaptorSettings,
    "monitor": Monitor,
}


def load(path: Path) -> Settings:
    """Read lbadaptor.toml. Raises SettingsError, which names file, line and key."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: {texts.what(error)}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start})") from None
    try:
        return parse(text, str(path.absolute().parent))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def parse(text: str, folder: str = "") -> Settings:
    """Check the text of a lbadaptor.toml. Raises SettingsError."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from None
    _refuse_unknown(tree, text)
    try:
        settings = msgspec.convert({**tree, "folder": folder}, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), text)) from None
    _refuse_contradictions(settings)
    _refuse_both_or_neither(settings, text)
    return settings


def _refuse_unknown(tree: dict[str, Any], text: str) -> None:
    for section, rows in tree.items():
        if section not in SECTIONS:
            known: list[str] = list(SECTIONS)
            what = f"unknown section [{section}]" if isinstance(rows, dict) else f"unknown setting {section!r}"
            if not isinstance(rows, dict):
                known = [f"[{name}] {key}" for name in SECTIONS for key in _names(name) if key == section] or known
            raise SettingsError(f"{_line(text, section)}{what}{_nearest(section, known)}")
        if isinstance(rows, dict):
            for key in rows:
                if key not in _names(section):
                    others = [f"[{name}] {key}" for name in SECTIONS if key in _names(name)]
                    hint = f"; it belongs to {others[0]}" if others else _nearest(key, _names(section))
                    raise SettingsError(f"{_line(text, key, section)}unknown setting [{section}] {key}{hint}")


def _refuse_contradictions(settings: Settings) -> None:
    servers, adaptor = settings.appservers, settings.adaptor
    count = settings.application.session_count
    if count and ":" not in count and count not in COUNTED:
        raise SettingsError(
            f'[application] session_count = "{count}" is no framework{_nearest(count, list(COUNTED))}'
        )
    with_standby = f" and standby = {servers.standby}" if servers.standby else ""
    if settings.slots <= servers.servers + servers.standby:
        raise SettingsError(
            f"[appservers] slots = {servers.slots} leaves no slot for a replacement: more than servers = "
            f"{servers.servers}{with_standby} are needed"
        )
    if servers.base_port + settings.slots - 1 > 65535:
        raise SettingsError(
            f"[appservers] base_port = {servers.base_port} and {settings.slots} slots go beyond port 65535"
        )
    if len(servers.weights) > settings.slots:
        raise SettingsError(f"[appservers] weights names {len(servers.weights)} slots; there are {settings.slots}")
    if 0 < servers.hard_memory <= servers.max_memory:
        raise SettingsError(
            f"[appservers] hard_memory = {servers.hard_memory} is not more than max_memory = {servers.max_memory}: "
            "nothing would be replaced before it is ended"
        )
    if not servers.own_folder and any("{folder}" in text for text in servers.by_slot):
        raise SettingsError("[appservers] {folder} is used, but own_folder is not set")
    if adaptor.body_spool and adaptor.body_spool < adaptor.body_memory:
        raise SettingsError(
            f"[adaptor] body_spool = {adaptor.body_spool} is less than body_memory = {adaptor.body_memory}"
        )
    if adaptor.answer_timeout <= settings.time_to_end_hung:
        raise SettingsError(
            f"[adaptor] answer_timeout = {adaptor.answer_timeout:g} s is not longer than it takes to find and end "
            f"a hung AppServer: {settings.time_to_end_hung:g} s, from [monitor] fall × (probe_interval + "
            "probe_timeout) + failing_limit"
        )
    for section in SECTIONS:
        for key in _names(section):
            value = getattr(getattr(settings, section), key)
            if isinstance(value, float) and value > _LONGEST:
                raise SettingsError(f"[{section}] {key} = {value:g} s is longer than a year")
    if settings.application.ticket_cookie == settings.application.session_cookie:
        raise SettingsError("[application] ticket_cookie and session_cookie have the same name")


def _refuse_both_or_neither(settings: Settings, text: str) -> None:
    """Stickiness by session, or by affinity."""
    application = settings.application
    if not application.affinity:
        if not application.session_cookie:
            raise SettingsError(
                f"{_line(text, 'application')}the setting [application] session_cookie is missing; an application "
                "without sessions has affinity = true instead"
            )
        return
    place = _line(text, "affinity", "application")
    for key in ("session_cookie", "session_count"):
        if getattr(application, key):
            raise SettingsError(
                f"{place}[application] affinity = true is for an application without sessions of its own, and goes "
                f"without {key}"
            )
    if not settings.monitor.drain_limit:
        raise SettingsError(
            f"{place}[application] affinity = true needs a [monitor] drain_limit: a visitor who comes again and "
            "again would keep a DYING AppServer for ever, and nothing tells when they need it no more"
        )


def _names(section: str) -> list[str]:
    return list(SECTIONS[section].__struct_fields__)


def _nearest(name: str, known: list[str]) -> str:
    near = known if len(known) == 1 else difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _line(text: str, key: str, section: str = "") -> str:
    """`line N: ` of a key or section, as far as a look at the text can tell."""
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]\s]+)\s*\]", line):
            inside = header[1]
            if inside in (key, f"{section}.{key}") and bool(section) == ("." in inside):
                return f"line {number}: "
        elif inside == section and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
            return f"line {number}: "
    return ""


def _explain(message: str, text: str) -> str:
    """msgspec's message with our words for the place."""
    what, at, place = message.replace("`key` in ", "").partition(" - at `$.")
    if not at:
        what = re.sub(r"missing required field `(\w+)`", r"the section [\1] is missing", what)
        return what.removeprefix("Object ")
    section, _, key = place.rstrip("`").partition(".")
    key = re.sub(r"\[.*", "", key)
    if missing := re.search(r"missing required field `(\w+)`", what):
        return f"{_line(text, section)}the setting [{section}] {missing[1]} is missing"
    return f"{_line(text, key, section)}[{section}] {key}: {_in_words(what, section, key)}"


_WANTED = {
    _IMPORT: 'expected `module:callable`, such as "shop:application"; for /srv/shop.py it is the module shop, and '
    "[appservers] working_folder names the folder",
    rf"{_IMPORT}|^[A-Za-z]*\Z": 'expected `module:function`, such as "shop:count", or the name of a framework: '
    + ", ".join(COUNTED),
    COOKIE: "expected the name of a cookie: letters, digits and !#$%&'*+.^_`|~-, without blanks",
    _HOST: 'expected an address or a name, such as "127.0.0.1" or "::1", without blanks and brackets',
    _VARIABLE: 'expected the name of a variable, in capitals, such as "SSL_CLIENT_VERIFY" or "SSL_*"',
    _ENVIRONMENT: "expected the name of a variable: letters, digits and _, no digit first",
    _WITHOUT_NUL: "expected text without a NUL character",
    _PATH: 'expected a path that begins with /, such as "/products?page=1", of ASCII without blanks',
}
"""What to say instead of a pattern."""
_WANTED[rf"{COOKIE}|^\Z"] = _WANTED[COOKIE]


def _in_words(what: str, section: str, key: str) -> str:
    """A complaint of msgspec's about a value, without its regular expressions."""
    if "matching regex" in what:
        return next((said for pattern, said in _WANTED.items() if what.endswith(f"regex {pattern!r}")), what)
    if unknown := re.match(r"Invalid enum value (.*)", what):
        hint = get_type_hints(SECTIONS[section], include_extras=True)[key]
        kind = get_args(hint)[0]
        known = get_args(kind) if get_origin(kind) is Literal else get_args(get_args(kind)[0])
        return f"invalid enum value {unknown[1]}; known are {', '.join(map(str, known))}"
    return f"{what[0].lower()}{what[1:]}"


def reference() -> str:
    """The text of docs/reference/settings.md."""
    lines = [
        "# Settings",
        "",
        "`lbadaptor.toml` is read by the monitor when it starts and at each release (`lbctl restart`), and by "
        "`lbctl`. Unknown and contradictory settings are refused.",
        "What the monitor has accepted counts for all at that moment, in Apache too, and without a reload; what is "
        "in the file meanwhile, right or wrong, counts for nobody ([how](../design/settings.md)). A "
        "change in [files] needs a restart of the monitor. `lbmonitor --check` tells what is wrong.",
        "This page is written from the settings themselves by `make docs`.",
    ]
    for section, struct in SECTIONS.items():
        about = (struct.__doc__ or "").partition(": ")[2]
        lines += ["", f"## [{section}]", "", about[0].upper() + about[1:], ""]
        lines += ["| setting | type | default | unit | meaning |", "|---|---|---|---|---|"]
        hints = get_type_hints(struct, include_extras=True)
        defaults = {field.name: field for field in msgspec.structs.fields(struct)}
        for name, hint in hints.items():
            kind, meta = get_args(hint)
            default = defaults[name].default
            if defaults[name].default_factory is dict:
                default = {}
            shown = "required" if default is msgspec.NODEFAULT else f"`{msgspec.json.encode(default).decode()}`"
            unit = meta.extra["unit"]
            lines.append(f"| `{name}` | {_kind(kind)}{_bounds(meta)} | {shown} | {unit} | {meta.description} |")
    return "\n".join(lines) + "\n"


_ITEMS = {str: "text", int: "whole numbers"}
_VALUES = {str: "text", int: "whole number"}


def _kind(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        item, *metas = get_args(get_args(kind)[0]) or get_args(kind)[:1]
        return f"list of {_ITEMS[item]}{''.join(map(_bounds, metas))}"
    if get_origin(kind) is dict:
        names, values = get_args(kind)
        value, *metas = get_args(values)
        named = ", ".join(f"`{name}`" for name in get_args(names)) if get_origin(names) is Literal else "name"
        return f"table of {named} = {_VALUES[value]}{''.join(map(_bounds, metas))}"
    return {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}[kind]


def _bounds(meta: Meta) -> str:
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"))
    return "".join(f", {sign} {getattr(meta, name):g}" for name, sign in signs if getattr(meta, name) is not None)


if __name__ == "__main__":
    sys.stdout.write(reference())
