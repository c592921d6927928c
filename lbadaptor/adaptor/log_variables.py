"""What Apache's access log can tell of a request: slot, lane, verdict, tries, and the AppServer's time.

The snippet `lbadaptor-log.conf` takes these headers from the answer, so that no visitor sees them, and makes notes of
them (`%{lb_slot}n`). It sets ASKED, too: without it nothing is sent, and nothing is paid. The fast lane makes the
same notes without the adaptor (`lbadaptor-fastlane.conf`).
"""

from __future__ import annotations

import time

from lbadaptor.adaptor.forward import Environ
from lbadaptor.adaptor.walk import Walk
from lbadaptor.contract import headers
from lbadaptor.http1.response import Header

ASKED = "LBADAPTOR_LOG"
FROM_FAST_LANE = "REDIRECT_LBADAPTOR_GENERATION"
"""A variable that only the fast lane sets, after a redirect. No visitor can set one."""
_ITS_SLOT, _ITS_VERDICT = "REDIRECT_LBADAPTOR_SLOT", "REDIRECT_LBADAPTOR_SESSION"

PYTHON, BOTH = "python", "fast+python"
"""The lane of an answer: the fast lane alone is `fast`."""


def of(environ: Environ, walk: Walk | None) -> list[Header]:
    """The headers of an answer in the Python lane. `walk`: None where no AppServer was looked for.

    An AppServer that the fast lane has asked in vain is one of the tries.
    """
    if ASKED not in environ:
        return []
    lane, tries, slot, verdict = PYTHON, 0, "", ""
    if FROM_FAST_LANE in environ:
        lane, tries = BOTH, 1
        slot, verdict = environ.get(_ITS_SLOT, ""), environ.get(_ITS_VERDICT, "")
    sent = [(headers.LANE, lane)]
    if walk is not None:
        tries += walk.tries
        verdict = walk.verdict.value
        if walk.last is not None:
            slot = str(walk.last.identity.slot)
            sent.append((headers.TIME, str(int((time.monotonic() - walk.last_sent) * 1e6))))
    sent += ((headers.TRIES, str(tries)), (headers.SLOT, slot), (headers.VERDICT, verdict))
    return sent
