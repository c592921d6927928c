"""The section [appservers]."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from lbadaptor.contract.settings.sections.row import (
    BYTES,
    ENVIRONMENT,
    HOST,
    NEW_APPSERVERS,
    NEW_APPSERVERS_AND_FAST_LANE,
    PATH,
    RELEASE,
    RELEASE_AND_FAST_LANE,
    SECONDS,
    row,
)

Limit = Literal[
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
]  # fmt: skip
"""What Linux can limit: the constants of the module `resource`, without `RLIMIT_`."""


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
    access_log: Annotated[
        str,
        row(NEW_APPSERVERS,
            "A file to which AppServers write a line for each request, beside Apache's own log "
            "([its format](../howto/monitoring.md#the-appservers-own-access-log)). The AppServers' user has to be "
            "able to make it. A relative path begins at the folder of lbadaptor.toml. Empty: none."),
    ] = ""  # fmt: skip
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
