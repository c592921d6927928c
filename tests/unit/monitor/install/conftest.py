"""The machine on which tests install."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from install_machine import Debian

from monitor.apacheconfig import ask_apache
from monitor.install import facts

UNITS = Path(__file__).parents[4] / "monitor" / "units"


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    machine = Debian(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(ask_apache, "dump", machine.dump)
    monkeypatch.setattr(ask_apache, "includes", lambda command: re.findall("# In file: (.*)", machine.dump(command)))
    monkeypatch.setattr(facts.Facts, "share", str(UNITS))
    monkeypatch.setattr("monitor.install.facts.SHARE", UNITS)
    return machine
