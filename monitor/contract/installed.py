"""Where what was installed along with the packages is found."""

from __future__ import annotations

import sysconfig
from pathlib import Path

SHARE = Path(sysconfig.get_path("data"), "share", "lbadaptor")
"""The folder of the snippets and scripts for Apache."""
