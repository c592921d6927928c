"""What is set at run time, and its file."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.contract.settings import Application, AppServers, Settings
from monitor.arbiter.files.runtime_json import NAME, RunTimeFile
from monitor.arbiter.orders import SetAtRunTime
from monitor.policy.run_time import RunTime


def settings(**values: Any) -> Settings:
    return Settings(Application("app:app", "sid"), appservers=AppServers(**{"servers": 2, "slots": 8, **values}))


def made(folder: Path, configured: Settings | None = None) -> SetAtRunTime:
    return SetAtRunTime(configured or settings(), RunTimeFile(folder / NAME))


def test_the_next_monitor_goes_by_it(tmp_path: Path) -> None:
    first = made(tmp_path)
    assert first.change(RunTime(6, {2: 50})).appservers.servers == 6
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    after = made(tmp_path)
    assert (after.now, after.settings.appservers.servers) == (RunTime(6, {2: 50}), 6)
    assert after.shown["run_time"] == {"servers": 6, "weights": {"2": 50}}
    assert after.shown["configured"] == {"servers": 2, "weights": []}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"servers": "x"}', '{"weights": {"x": 1}}'])
def test_a_file_that_is_not_to_be_read_is_forgotten(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).write_text(text)
    assert made(tmp_path).now == RunTime()
    assert "what was set at run time is forgotten" in capfd.readouterr().err


def test_what_does_not_go_with_new_settings_is_forgotten(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A monitor begins with its lbadaptor.toml rather than not at all."""
    made(tmp_path).change(RunTime(6, leaving=True))
    after = made(tmp_path, settings(slots=4))
    assert (after.now, after.settings.appservers.servers) == (RunTime(leaving=True), 2)
    assert "servers = 6: slots = 4 leaves no slot" in capfd.readouterr().err


def test_that_the_machine_is_leaving_is_known_to_the_next_monitor(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path).change(RunTime(leaving=True))
    assert made(tmp_path).now.leaving
    assert "set at run time, and not by lbadaptor.toml: this machine is leaving" in capfd.readouterr().err


def test_what_another_release_has_set_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"servers": 3, "news": {"a": [1]}}')
    assert made(tmp_path).now == RunTime(3)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    one = made(tmp_path / "none")
    with pytest.raises(ValueError, match="nothing was changed"):
        one.change(RunTime(6))
    assert (one.now, one.settings.appservers.servers) == (RunTime(), 2)


def test_the_file_is_written_again_where_it_was_deleted(tmp_path: Path) -> None:
    one = made(tmp_path)
    one.keep()
    assert not (tmp_path / NAME).exists(), "nothing is set"
    one.change(RunTime(6))
    (tmp_path / NAME).unlink()
    one.keep()
    assert made(tmp_path).now == RunTime(6)
