"""A file of Apache's configuration that is replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitor.apacheconfig.write import replace


def test_it_stays_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "site.conf"
    file.write_text("before")
    file.chmod(0o640)
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))
    replace(file, "after")
    replace(tmp_path / "new.conf", "new")
    assert owners == [(os.getuid(), file.stat().st_gid), (-1, -1)]
    assert file.read_text() == "after"
    assert file.stat().st_mode & 0o777 == 0o640
