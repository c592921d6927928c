"""What AppServers and templates are told of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lbadaptor.contract.address import Identity
from lbadaptor.contract.settings import AdaptorSettings, Application, AppServers, Files, Sessions, Settings
from lbadaptor.contract.ticket import make_keys
from monitor.arbiter.processes.assignment import assignment, preload


def told(tmp_path: Path, servers: int = 2, **sessions: Any) -> Any:
    settings = Settings(
        Application("a:b", "sid"),
        Files(run_folder="run"),
        AppServers(servers=servers),
        sessions=Sessions(**sessions),
        folder=str(tmp_path),
    )
    return assignment(settings, Identity(1, 17), make_keys(tmp_path / "keys"), 100.0)


def test_an_appserver_is_told_what_its_sessions_outlive_and_where(tmp_path: Path) -> None:
    found = told(tmp_path, survive="anything", folder="kept", save="shop:save", load="shop:load")
    assert (found.survive, found.session_folder) == ("anything", f"{tmp_path}/kept")
    assert (found.session_save, found.session_load) == ("shop:save", "shop:load")
    assert found.run_folder == f"{tmp_path}/run"


def test_an_appserver_is_told_how_much_of_an_answer_may_wait(tmp_path: Path) -> None:
    settings = Settings(
        Application("a:b", "sid"),
        Files(run_folder="run"),
        adaptor=AdaptorSettings(answer_memory=7),
        folder=str(tmp_path),
    )
    assert assignment(settings, Identity(1, 17), make_keys(tmp_path / "keys"), 100.0).answer_memory == 7


def test_an_appserver_is_told_where_its_access_log_is(tmp_path: Path) -> None:
    assert told(tmp_path).access_log == ""
    for given, path in (("logs/access.log", f"{tmp_path}/logs/access.log"), ("/var/log/x", "/var/log/x")):
        settings = Settings(
            Application("a:b", "sid"), Files(run_folder="run"), AppServers(access_log=given), folder=str(tmp_path)
        )
        assert assignment(settings, Identity(1, 17), make_keys(tmp_path / "keys"), 100.0).access_log == path


def test_by_default_they_outlive_nothing(tmp_path: Path) -> None:
    assert told(tmp_path).survive == "nothing"


def test_the_run_folder_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to("elsewhere")
    assert told(tmp_path).run_folder == f"{tmp_path}/elsewhere"


@pytest.mark.parametrize(("servers", "share"), [(1, 250), (25, 10), (250, 1), (1000, 1)])
def test_each_slot_has_an_equal_share_of_the_disk(tmp_path: Path, servers: int, share: int) -> None:
    found = told(tmp_path, servers, max_bytes=4000 * 4096, max_files=1000)
    assert (found.session_max_bytes, found.session_max_files) == (4000 * 4096 // (4 * servers), share)


def test_a_template_imports_the_functions_for_sessions_too(tmp_path: Path) -> None:
    settings = Settings(Application("a:b", "sid"), sessions=Sessions("leaving", save="c:save", load="d:load"))
    found = preload(settings, 100.0)
    assert (found.app, found.session_save, found.session_load) == ("a:b", "c:save", "d:load")
    assert found.ready_by == 100.0 + settings.monitor.start_timeout
