"""The section [application]."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from lbadaptor.contract.settings.sections.row import (
    COOKIE,
    COOKIE_OR_NONE,
    IMPORT,
    IMPORT_OR_FRAMEWORK,
    NEW_APPSERVERS,
    RELEASE_AND_FAST_LANE,
    SECONDS,
    row,
)

COUNTED = ("cherrypy", "django", "flask", "webware")
"""Frameworks whose own stores can be asked for the count of living sessions."""


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
