"""The section [monitor]."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from lbadaptor.contract.settings.sections.row import NEW_APPSERVERS, RELEASE, SECONDS, row


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
