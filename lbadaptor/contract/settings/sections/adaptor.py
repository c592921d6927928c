"""The section [adaptor]."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from lbadaptor.contract.settings.sections.row import (
    APACHE,
    BYTES,
    RELEASE,
    RELEASE_AND_FAST_LANE,
    SECONDS,
    VARIABLE,
    row,
)


class AdaptorSettings(Struct, forbid_unknown_fields=True, frozen=True):
    """[adaptor]: what happens inside Apache."""

    policy: Annotated[
        Literal["less-loaded", "random"],
        row(
            RELEASE,
            "Which AppServer gets a visitor without a session: the less loaded of two random ones, or a random one. "
            "In the fast lane: a random one by weight and load, or by weight alone.",
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
            "How long a request waits when no AppServer is available, when the ticket's holder is busy, or when its "
            "session is on its way from one AppServer to another; then the visitor gets 503.", SECONDS, ge=0),
    ] = 5.0  # fmt: skip
    waiters: Annotated[
        int,
        row(RELEASE,
            "How many requests of one Apache process may wait like this, and as many for a session on its way; "
            "further ones get 503 at once.", ge=0),
    ] = 16  # fmt: skip
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
    log_variables: Annotated[
        bool,
        row(APACHE,
            "Whether Apache's access log can tell slot, lane, verdict, tries and the AppServer's time of a request "
            "([how](../howto/monitoring.md#which-slot-and-lane-served-this-line-of-the-access-log))."),
    ] = True  # fmt: skip
    trust_request_id: Annotated[
        bool,
        row(APACHE,
            "Whether a request's id is the visitor's `X-Request-Id`, where that has 1 to 128 letters, digits and "
            "`._~+/=@:-`. Only where all visitors come by a proxy of yours, which sets that header. Otherwise it is "
            "mod_unique_id's, if Apache has loaded that."),
    ] = False  # fmt: skip
    sorry_page: Annotated[
        str,
        row(RELEASE, "An HTML file (UTF-8) that visitors get with a 503. A relative path begins at the folder of "
            "lbadaptor.toml. Empty: a built-in page."),
    ] = ""  # fmt: skip
