"""What Apache believes of the HAProxies in front of it: the visitor's address and scheme. Pure.

lbadaptor-front.conf does it; here are the addresses that it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lbadaptor.contract.address import canonical
from lbadaptor.contract.settings import Settings
from monitor.apacheconfig import directives
from monitor.apacheconfig.quoting import is_plain, quoted

SNIPPET = "lbadaptor-front.conf"
NEEDED = ("remoteip", "headers", "setenvif")
"""The modules that it needs."""


def lines(front: Sequence[str], share: Path) -> Iterator[str]:
    """Directives that come before the adaptor's; none without a front. `share`: the folder of the snippets."""
    if not front:
        return
    path = str(share / SNIPPET)
    yield ""
    yield "# From these HAProxies Apache takes the visitor's address and scheme, and from nobody else."
    yield f'Define LBADAPTOR_FRONT "{" ".join(map(canonical, front))}"'
    yield f"Include {path if is_plain(path) else quoted(path)}"


def missing_modules(settings: Settings, dump: str) -> list[str]:
    """Those that are needed and that Apache has not loaded, by its configuration."""
    loaded = directives.modules(dump)
    return [name for name in NEEDED if name not in loaded] if settings.machine.front else []
