"""The folder of session files through a real monitor: what it refuses at its start and at a release."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest
from monitor_fixture import Site

from monitor.contract.client import NoAnswer, ask


def a_link(kept: Path) -> None:
    kept.with_name("other").mkdir(0o700)
    kept.symlink_to("other")


def open_to_others(kept: Path) -> None:
    kept.mkdir()
    kept.chmod(0o755)


def held(kept: Path) -> bool:
    with open(kept / "installation") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize(("make", "why"), [(a_link, "is a link"), (open_to_others, "(mode 0755)")])
def test_no_monitor_starts_with_one_that_is_not_safe(site: Site, make: Callable[[Path], None], why: str) -> None:
    make(site.folder / "kept")
    site.settings("sessions", survive="leaving", folder="kept")
    said = site.refused()
    assert "[sessions] folder: " in said
    assert why in said
    assert not site.text


def test_a_release_is_refused_until_it_is_safe_and_the_settings_of_before_hold(site: Site) -> None:
    site.settings("appservers", servers=1)
    site.up()
    before = site.ok
    kept = site.folder / "kept"
    open_to_others(kept)
    site.settings("sessions", survive="leaving", folder="kept")
    with pytest.raises(NoAnswer, match=r"\[sessions\] folder: .*\(mode 0755\)"):
        site.wait_order("restart")
    assert ask(site.control)["survive"] == "nothing"
    assert site.ok == before
    kept.rmdir()
    assert "all at a time" in site.wait_order("restart")
    assert ask(site.control)["survive"] == "leaving"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert (kept / "installation").read_text() == f"{site.run_folder}\n"
    assert held(kept)
    site.wait(lambda: site.ok and site.ok != before, "it is released")
    site.settings("sessions", folder="elsewhere")
    with pytest.raises(NoAnswer, match=r"a change of \[sessions\] folder needs a restart of the monitor"):
        site.wait_order("restart")
    site.settings("sessions", survive="nothing", folder="kept")
    assert f"still move theirs to {kept} as they leave, where they stay and are lost" in site.wait_order("restart")


def test_another_installation_is_kept_out_as_long_as_the_first_one_runs(site: Site) -> None:
    site.settings("sessions", survive="leaving", folder="kept")
    site.up()
    (site.folder / "second").mkdir()
    second = Site(site.folder / "second", site.base_port)
    second.settings("sessions", survive="leaving", folder=str(site.folder / "kept"))
    assert f"is in use by the monitor or AppServers of the run folder {site.run_folder};" in second.refused()
    site.wait_order("reexec")
    site.wait(
        lambda: "the monitor is upgraded in place" in site.said and held(site.folder / "kept"), "it is held again"
    )
    site.wait_control()
    site.end()
    assert not held(site.folder / "kept")
