"""The rows of lbadaptor.toml: every setting of adaptor, AppServers and monitor, one row each.

A row is a field: its name, type, bounds, unit, default, explanation, and what makes a change take effect. The page
docs/reference/settings.md is written from these rows (`reference`).
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

DEFAULT_FILE = Path("/etc/lbadaptor/lbadaptor.toml")

SECONDS = "seconds"
BYTES = "bytes"

IMPORT = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z"
IMPORT_OR_FRAMEWORK = rf"{IMPORT}|^[A-Za-z]*\Z"
COUNTED = ("cherrypy", "django", "flask", "webware")
"""Frameworks whose own stores can be asked for the count of living sessions."""
COOKIE = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z"
"""A cookie's name (RFC 6265 §4.1.1): a token."""
COOKIE_OR_NONE = rf"{COOKIE}|^\Z"
HOST = r"^[^\s\[\]]+\Z"  # it stands in a column of address.text, which puts brackets round an IPv6 address
VARIABLE = r"^[A-Z0-9_]*\*?\Z"  # small letters are lost in the name of a header
ENVIRONMENT = r"^[A-Za-z_][A-Za-z0-9_]*\Z"
PATH = r"^/[!-~]*\Z"  # as it stands in a request line: printable ASCII without blanks
Limit = Literal[
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
]  # fmt: skip
"""What Linux can limit: the constants of the module `resource`, without `RLIMIT_`."""
_LONGEST_SOCKET_PATH = 107
"""Bytes."""


class Step(Enum):
    """What an administrator does after a change of lbadaptor.toml, so that it takes effect."""

    RELEASE = "release"
    """`lbctl restart`: the monitor and the adaptors go by it at once, and every AppServer is replaced"""
    NEW_APPSERVERS = "release, with each new AppServer"
    """the same; an AppServer that was started before keeps what it was started with"""
    RESTART = "restart of the monitor"
    RELOAD = "reload of Apache"
    FAST_LANE = "new fast lane file"
    """`lbctl apache-config`, and a reload of Apache; only where the fast lane is used"""


RELEASE = (Step.RELEASE,)
RELEASE_AND_FAST_LANE = (Step.RELEASE, Step.FAST_LANE)
NEW_APPSERVERS = (Step.NEW_APPSERVERS,)
NEW_APPSERVERS_AND_FAST_LANE = (Step.NEW_APPSERVERS, Step.FAST_LANE)
RESTART = (Step.RESTART,)
RESTART_AND_APACHE = (Step.RESTART, Step.RELOAD, Step.FAST_LANE)


def row(takes_effect: tuple[Step, ...], explanation: str, unit: str = "", **bounds: Any) -> Meta:
    """What makes a change of a setting take effect, what the setting means, its unit, and its bounds."""
    return Meta(description=explanation, extra={"unit": unit, "takes effect": takes_effect}, **bounds)


class Application(Struct, forbid_unknown_fields=True, frozen=True):
    """[application]: the WSGI application and its sessions."""

    app: Annotated[str, row(NEW_APPSERVERS, "The WSGI application, `module:callable`.", pattern=IMPORT)]
    session_cookie: Annotated[
        str,
        row(NEW_APPSERVERS,
            "The name of the application's own session cookie. A session begins when the application sets it. "
            "Required, except with `affinity`.", pattern=COOKIE_OR_NONE),
    ] = ""  # fmt: skip
    affinity: Annotated[
        bool,
        row(NEW_APPSERVERS,
            "For an application that has no sessions in its process, but a cache: a visitor gets a ticket with their "
            "first answer and stays with that AppServer. It needs `drain_limit`, and cannot be combined with "
            "`session_cookie`."),
    ] = False  # fmt: skip
    session_idle: Annotated[
        float,
        row(NEW_APPSERVERS,
            "A session ends when nobody used it for this long. Set the application's own limit, or longer. With "
            "`affinity`: a DYING AppServer ends when no visitor came for this long.", SECONDS, ge=0.001),
    ] = 1800.0  # fmt: skip
    session_count: Annotated[
        str,
        row(NEW_APPSERVERS,
            "What counts the sessions that live in a process ([how](../howto/sessions.md)): the store of a "
            f"framework, one of {', '.join(f'`{name}`' for name in COUNTED)}; or a function, `module:function`, "
            "which returns the number and alone decides when a session cache is empty. Empty: only the cookies are "
            "counted.",
            pattern=IMPORT_OR_FRAMEWORK),
    ] = ""  # fmt: skip
    ticket_cookie: Annotated[
        str,
        row(RELEASE_AND_FAST_LANE,
            "The name of the ticket's cookie. Two applications on one host name need two names. A new name takes "
            "effect with the next release; tickets under the old name stay valid as long as their AppServers live.",
            pattern=COOKIE),
    ] = "__PRT__"  # fmt: skip


class Files(Struct, forbid_unknown_fields=True, frozen=True):
    """[files]: where things are. A relative path begins at the folder of lbadaptor.toml."""

    run_folder: Annotated[
        str,
        row(
            RESTART_AND_APACHE,
            "The folder of address.text, the control socket and the monitor's lock; best in memory (tmpfs).",
        ),
    ] = "/run/lbadaptor"
    key_file: Annotated[
        str,
        row(
            RESTART,
            "The file of the master secret, from which tickets and keys are made. The monitor makes it on "
            "first use, with mode 0640.",
        ),
    ] = "/var/lib/lbadaptor/keys"
    apache_group: Annotated[
        str,
        row(RESTART,
            "The group that Apache runs in. address.text and a new key file get this group, so that the adaptor can "
            "read them. Empty: they get the monitor's group."),
    ] = ""  # fmt: skip


class AppServers(Struct, forbid_unknown_fields=True, frozen=True):
    """[appservers]: the processes that serve the application."""

    servers: Annotated[int, row(RELEASE_AND_FAST_LANE, "How many AppServers take new visitors.", ge=1, le=1000)] = 4
    slots: Annotated[
        int,
        row(RELEASE_AND_FAST_LANE,
            "How many AppServers there may be at once, DYING ones included. 0: four for each one in `servers` and "
            "`standby`.", ge=0, le=8000),
    ] = 0  # fmt: skip
    host: Annotated[
        str,
        row(NEW_APPSERVERS_AND_FAST_LANE,
            "The address that AppServers listen on. Apache and the monitor do not use it as long as an AppServer has "
            "a Unix socket in the run folder.", pattern=HOST),
    ] = "127.0.0.1"  # fmt: skip
    base_port: Annotated[
        int, row(NEW_APPSERVERS_AND_FAST_LANE, "The AppServer in slot n listens on this port + n.", ge=1, le=65535)
    ] = 9000
    threads: Annotated[
        int, row(NEW_APPSERVERS, "How many requests one AppServer works on at once.", ge=1, le=1000)
    ] = 8
    queue: Annotated[
        int,
        row(NEW_APPSERVERS,
            "How many requests may wait for a thread of one AppServer, those of ticket holders first. The AppServer "
            "refuses further ones as BUSY. The adaptor then asks another AppServer, or waits for the ticket's "
            "holder.", ge=0, le=100_000),
    ] = 256  # fmt: skip
    standby: Annotated[
        int,
        row(RELEASE_AND_FAST_LANE,
            "How many AppServers are kept beyond `servers` as a hot standby. They are ready, and get new visitors "
            "only when no other AppServer takes them.", ge=0, le=1000),
    ] = 0  # fmt: skip
    weights: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=10_000)], ...],
        row(RELEASE,
            "The shares of new visitors that the AppServers in slots 0, 1, 2 … get. Further slots have 100. 0: it "
            "gets new visitors only when no other AppServer takes them."),
    ] = ()  # fmt: skip
    slow_start: Annotated[
        float,
        row(RELEASE,
            "For this long after its start, an AppServer's weight rises from a tenth to the whole. 0: it is the "
            "whole at once.", SECONDS, ge=0),
    ] = 0.0  # fmt: skip
    warm_up: Annotated[
        tuple[Annotated[str, Meta(pattern=PATH)], ...],
        row(NEW_APPSERVERS,
            "Pages of the application that every new AppServer asks itself for, one after another, and that must "
            "answer with a status below 400 before it takes visitors. Paths as the application sees them, such as "
            "`/products?page=1`."),
    ] = ()  # fmt: skip
    max_requests: Annotated[
        int,
        row(
            NEW_APPSERVERS, "An AppServer that has served so many requests is replaced, then drained. 0: never.", ge=0
        ),
    ] = 0
    max_age: Annotated[
        float,
        row(NEW_APPSERVERS, "An AppServer that is this old is replaced, then drained. 0: never.", SECONDS, ge=0),
    ] = 0.0
    max_memory: Annotated[
        int,
        row(NEW_APPSERVERS,
            "An AppServer whose resident memory is beyond this is replaced, then drained. 0: never. A limit that is "
            "less than what the application needs from the start is not applied.", BYTES, ge=0),
    ] = 0  # fmt: skip
    hard_memory: Annotated[
        int,
        row(RELEASE,
            "An AppServer whose resident memory is beyond this is ended at once, with its sessions; requests in "
            "flight get two seconds. 0: never. A limit that is less than what the application needs from the start "
            "is not applied.", BYTES, ge=0),
    ] = 0  # fmt: skip
    spread: Annotated[
        int,
        row(NEW_APPSERVERS,
            "The `max_requests` and `max_age` of each AppServer are lowered by up to this much, each by another "
            "amount, so that not all are replaced at once.", "percent", ge=0, le=90),
    ] = 10  # fmt: skip
    preload: Annotated[
        bool,
        row(RELEASE,
            "Import the application once, in a template process from which the AppServers are forked, so that they "
            "share its memory. A release makes a new template. Read [what to mind](../design/preload.md) first."),
    ] = False  # fmt: skip
    environment: Annotated[
        dict[Annotated[str, Meta(pattern=ENVIRONMENT)], str],
        row(NEW_APPSERVERS,
            "Environment variables of the AppServers, besides those of the monitor. In a value, `{slot}` stands for "
            "the AppServer's slot, and `{folder}` for its folder in `own_folder`."),
    ] = {}  # fmt: skip
    working_folder: Annotated[
        str,
        row(NEW_APPSERVERS,
            "The current folder of AppServers, in which the application is looked for first; `{slot}` and `{folder}` "
            "as in `environment`. A relative path begins at the folder of lbadaptor.toml. Empty: the monitor's."),
    ] = ""  # fmt: skip
    own_folder: Annotated[
        str,
        row(NEW_APPSERVERS,
            "In this folder, every AppServer gets a new, empty folder of its own, for sessions on disk and other "
            "files that are not needed after its end. Only its user can enter it (mode 0700), and it is removed when "
            "the AppServer has ended. The environment variable LBADAPTOR_FOLDER has its path. A relative path begins "
            "at the folder of lbadaptor.toml. Empty: none."),
    ] = ""  # fmt: skip
    user: Annotated[
        str,
        row(NEW_APPSERVERS,
            "The user that AppServers run as, with that user's HOME, USER and LOGNAME. For any user but its own, the "
            "monitor must run as root. The user must not be able to read the key file "
            "([how](../howto/another-user.md)). Empty: the monitor's own."),
    ] = ""  # fmt: skip
    group: Annotated[
        str,
        row(NEW_APPSERVERS,
            "The main group that AppServers run in, besides the other groups of `user`. Empty: the main group of "
            "`user`."),
    ] = ""  # fmt: skip
    umask: Annotated[
        int,
        row(NEW_APPSERVERS,
            "The umask of AppServers: the permissions that their new files lack, such as `0o027`. -1: the monitor's.",
            ge=-1, le=0o777),
    ] = -1  # fmt: skip
    nice: Annotated[
        int,
        row(NEW_APPSERVERS,
            "The AppServers' nice value is the monitor's own plus this. Less than 0 needs root.", ge=-40, le=39),
    ] = 0  # fmt: skip
    limits: Annotated[
        dict[Limit, Annotated[int, Meta(ge=-1)]],
        row(NEW_APPSERVERS,
            "Resource limits of each AppServer, soft and hard, by their names in setrlimit(2) and in its units, such "
            "as `{ nofile = 4096, core = 0 }`. -1: no limit. A limit beyond the monitor's own hard limit needs root."
            ),
    ] = {}  # fmt: skip

    @property
    def by_slot(self) -> tuple[str, ...]:
        """The settings in which `{slot}` and `{folder}` mean something."""
        return (self.working_folder, *self.environment.values())


class AdaptorSettings(Struct, forbid_unknown_fields=True, frozen=True):
    """[adaptor]: what happens inside Apache."""

    policy: Annotated[
        Literal["less-loaded", "random"],
        row(
            RELEASE,
            "Which AppServer gets a visitor without a session: the less loaded of two random ones, or a random one.",
        ),
    ] = "less-loaded"
    connect_timeout: Annotated[
        float, row(RELEASE_AND_FAST_LANE, "How long a connection to an AppServer may take.", SECONDS, ge=0.001)
    ] = 2.0
    answer_timeout: Annotated[
        float,
        row(RELEASE_AND_FAST_LANE,
            "How long an AppServer may be silent before and within its answer; then the visitor gets 504. Must be "
            "longer than it takes to find and end a hung AppServer.", SECONDS, ge=0.001),
    ] = 60.0  # fmt: skip
    wait: Annotated[
        float,
        row(RELEASE,
            "How long a request waits when no AppServer is available, or when the ticket's holder is busy; then the "
            "visitor gets 503.", SECONDS, ge=0),
    ] = 5.0  # fmt: skip
    waiters: Annotated[
        int,
        row(
            RELEASE, "How many requests of one Apache process may wait like this; further ones get 503 at once.", ge=0
        ),
    ] = 16
    body_memory: Annotated[int, row(RELEASE, "A request's body is kept in memory up to this size.", BYTES, ge=0)] = (
        65536
    )
    body_spool: Annotated[
        int,
        row(RELEASE,
            "A larger body is kept in an unlinked temporary file up to this size; a body beyond it is streamed.",
            BYTES, ge=0),
    ] = 64 * 1024 * 1024  # fmt: skip
    spool_folder: Annotated[str, row(RELEASE, "Folder of these temporary files. Empty: the system's.")] = ""
    answer_memory: Annotated[
        int,
        row(RELEASE,
            "An answer of up to this size is taken over in full before the visitor gets a byte; a larger one is "
            "streamed.", BYTES, ge=0),
    ] = 262144  # fmt: skip
    idle_connections: Annotated[
        int, row(RELEASE, "How many idle connections one Apache process keeps to one AppServer.", ge=0, le=1000)
    ] = 32
    pass_variables: Annotated[
        tuple[Annotated[str, Meta(pattern=VARIABLE)], ...],
        row(RELEASE_AND_FAST_LANE,
            "Variables of Apache's that the application gets besides HTTPS, in capitals; `SSL_*` stands for all that "
            "begin with `SSL_`. ([What is not passed](environ.md))"),
    ] = ("SSL_*",)  # fmt: skip
    repeat_idempotency_key: Annotated[
        bool,
        row(RELEASE,
            "A POST or PATCH with an `Idempotency-Key` header may be repeated, as a PUT may, when its AppServer was "
            "lost. Only for an application that remembers these keys outside its process."),
    ] = False  # fmt: skip
    sorry_page: Annotated[
        str,
        row(RELEASE, "An HTML file (UTF-8) that visitors get with a 503. A relative path begins at the folder of "
            "lbadaptor.toml. Empty: a built-in page."),
    ] = ""  # fmt: skip


class Monitor(Struct, forbid_unknown_fields=True, frozen=True):
    """[monitor]: how AppServers are started, probed, replaced and ended."""

    probe_interval: Annotated[
        float, row(RELEASE, "The pause between two probes of an AppServer.", SECONDS, ge=0.001)
    ] = 1.0
    probe_timeout: Annotated[
        float, row(RELEASE, "A probe fails when it has no answer after this time.", SECONDS, ge=0.001)
    ] = 2.0
    fall: Annotated[int, row(RELEASE, "An AppServer is FAILING after so many failed probes in a row.", ge=1)] = 3
    failing_limit: Annotated[
        float, row(RELEASE, "A FAILING AppServer that does not recover within this time is ended.", SECONDS, ge=0.001)
    ] = 5.0
    computing_limit: Annotated[
        float,
        row(RELEASE,
            "A FAILING AppServer whose processor time still advances is ended after this time, not after "
            "`failing_limit`: it may only be computing.", SECONDS, ge=0.001),
    ] = 30.0  # fmt: skip
    start_timeout: Annotated[
        float,
        row(RELEASE, "An AppServer that is not ready after this time is ended and started anew.", SECONDS, ge=0.001),
    ] = 60.0
    starts_at_once: Annotated[
        int,
        row(RELEASE,
            "How many AppServers may be starting at a time. 0: two for each processor core, but at least eight.",
            ge=0),
    ] = 0  # fmt: skip
    stop_grace: Annotated[
        float,
        row(NEW_APPSERVERS,
            "An AppServer that was ordered to stop has this long to finish the requests in flight; then it is "
            "killed.", SECONDS, ge=0.001),
    ] = 30.0  # fmt: skip
    backoff_limit: Annotated[
        float,
        row(
            RELEASE,
            "The longest wait before an AppServer that keeps dying early is started again.",
            SECONDS,
            ge=0.001,
        ),
    ] = 30.0
    replace_at_once: Annotated[
        int,
        row(RELEASE, "How many AppServers are replaced at a time, because of a limit, an order or a release.", ge=1),
    ] = 1
    max_dying: Annotated[
        int,
        row(RELEASE,
            "While so many AppServers are DYING, no other one is drained because it is past a limit. 0: as many as "
            "`servers`. A release goes beyond this, up to `slots`.", ge=0),
    ] = 0  # fmt: skip
    drain_limit: Annotated[
        float,
        row(RELEASE,
            "A DYING AppServer that still has sessions after this time is ended with them, and the log says so. 0: "
            "its sessions are waited for.", SECONDS, ge=0),
    ] = 0.0  # fmt: skip
    heartbeat: Annotated[
        float,
        row(RELEASE, "address.text is rewritten at least this often, changed or not.", SECONDS, ge=0.001, le=15),
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
