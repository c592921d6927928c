"""What is wrong in a unit, its drop-ins, or tmpfiles.d."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake import CONFIG, dump, facts, host, said, settings

from lbadaptor.contract.settings import Settings
from monitor.check import service, units
from monitor.check.access import Who
from monitor.check.finding import CannotCheck
from monitor.check.units import Row, Unit, seconds

UNITS = Path(__file__).parents[4] / "monitor" / "units"


def unit(tmp_path: Path, drop_in: str = "", name: str = "shop") -> Unit:
    """The unit as shipped, with a drop-in."""
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    for file in ("lbadaptor.service", "lbadaptor@.service"):
        (folder / file).write_text((UNITS / file).read_text())
    if drop_in:
        place = tmp_path / "etc/systemd/system" / f"lbadaptor@{name}.service.d"
        place.mkdir(parents=True)
        (place / "override.conf").write_text(f"[Service]\n{drop_in}\n")
    found = units.of(CONFIG, tmp_path)
    assert found is not None
    return found


def test_the_unit_is_found_by_the_settings_file_that_it_names(tmp_path: Path) -> None:
    found = unit(tmp_path)
    assert found.name == "lbadaptor@shop.service"
    assert found.last("RuntimeDirectory") == Row(
        "lbadaptor-shop", str(tmp_path / "usr/lib/systemd/system/lbadaptor@.service")
    )
    single = units.of(Path("/etc/lbadaptor/lbadaptor.toml"), tmp_path)
    assert single is not None
    assert single.name == "lbadaptor.service"
    assert units.of(Path("/srv/other.toml"), tmp_path) is None


def test_drop_ins_add_to_it_and_take_back(tmp_path: Path) -> None:
    found = unit(tmp_path, "User=shop\nExecStart=\nExecStart=/usr/bin/lbmonitor --config=/etc/lbadaptor/shop.toml")
    assert found.last("User") == Row(
        "shop", str(tmp_path / "etc/systemd/system/lbadaptor@shop.service.d/override.conf")
    )
    assert [row.value for row in found.all("ExecStart")] == ["/usr/bin/lbmonitor --config=/etc/lbadaptor/shop.toml"]


def test_a_file_in_etc_hides_the_one_in_usr(tmp_path: Path) -> None:
    unit(tmp_path)
    etc = tmp_path / "etc/systemd/system"
    etc.mkdir(parents=True)
    (etc / "lbadaptor@.service").write_text("[Service]\nExecStart=/x --config /etc/lbadaptor/%i.toml\n")
    found = units.of(CONFIG, tmp_path)
    assert found is not None
    assert found.last("User") is None


def test_a_drop_in_of_etc_hides_the_one_of_its_name_in_usr(tmp_path: Path) -> None:
    unit(tmp_path, "User=shop")
    place = tmp_path / "usr/lib/systemd/system/lbadaptor@shop.service.d"
    place.mkdir()
    (place / "override.conf").write_text("[Service]\nUser=root\n")
    (place / "10-more.conf").write_text("[Service]\nNice=5\n")
    found = units.of(CONFIG, tmp_path)
    assert found is not None
    assert [row.value for row in found.rows["User"]] == ["lbadaptor", "shop"]
    assert found.last("Nice") is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30", 30),
        ("1min 30s", 90),
        ("500ms", 0.5),
        ("2h", 7200),
        ("infinity", float("inf")),
        ("soon", None),
        ("", None),
    ],
)
def test_time_spans(text: str, value: float | None) -> None:
    assert seconds(text) == value


def test_the_unit_as_shipped_is_well(tmp_path: Path) -> None:
    one = facts(unit=unit(tmp_path))
    for check in (service.user, service.groups, service.timeouts, service.folders, service.sandbox):
        assert said(check(one)) == []


@pytest.mark.parametrize(
    ("drop_in", "given", "what"),
    [
        ("User=root", settings(), "override.conf: User=root: monitor and application run as root"),
        ("User=", settings(), "run as root"),
        ("User=root", settings(appservers={"user": "shop"}), ""),  # as the how-to has it
        ("User=shop", settings(), ""),
    ],
)
def test_root(tmp_path: Path, drop_in: str, given: Settings, what: str) -> None:
    found = said(service.user(facts(given, unit=unit(tmp_path, drop_in))))
    assert len(found) == bool(what)
    assert what in "".join(found)


@pytest.mark.parametrize(
    ("drop_in", "monitor", "what"),
    [
        ("", {"stop_grace": 600.0, "start_timeout": 600.0}, ""),  # the monitor asks for more time
        ("TimeoutStopSec=10", {}, "TimeoutStopSec=10 is less than [monitor] stop_grace asks for (32 s)"),
        ("TimeoutStopSec=35", {}, ""),
        ("TimeoutStopSec=5", {"stop_grace": 1.0}, ""),
        ("TimeoutStopSec=1min", {"stop_grace": 600.0}, ""),
        ("TimeoutStopSec=50", {"stop_grace": 600.0}, "TimeoutStopSec=50"),
        ("TimeoutStartSec=5", {}, "TimeoutStartSec=5 is less than [monitor] start_timeout asks for (60 s)"),
        ("TimeoutStopSec=infinity", {}, ""),
        ("NotifyAccess=none", {}, "systemd does not hear the monitor"),
        ("Type=simple\nTimeoutStopSec=60", {"stop_grace": 100.0}, "less than [monitor] stop_grace asks for (102 s)"),
    ],
)
def test_time_outs(tmp_path: Path, drop_in: str, monitor: dict[str, Any], what: str) -> None:
    found = said(service.timeouts(facts(settings(monitor=monitor), unit=unit(tmp_path, drop_in))))
    assert what in "".join(found)
    assert bool(found) == bool(what)


def test_a_monitor_that_may_not_give_files_to_apaches_group(tmp_path: Path) -> None:
    given = settings(files={"apache_group": "root"})  # a group that every machine has
    alone = Who("lbadaptor", 990, frozenset((990,)))
    (found,) = said(service.groups(facts(given, unit=unit(tmp_path), monitor_user=alone)))
    assert "is not in the group root" in found
    assert "`SupplementaryGroups=root`" in found
    member = Who("lbadaptor", 990, frozenset((990, 0)))
    assert said(service.groups(facts(given, unit=unit(tmp_path / "2"), monitor_user=member))) == []


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    one = facts(unit=unit(tmp_path, "ExecStart=\nExecStart=/no/lbmonitor --config /etc/lbadaptor/shop.toml"))
    (found,) = said(service.program(one))
    assert "override.conf: there is no program /no/lbmonitor" in found


def test_a_unit_that_makes_another_run_folder(tmp_path: Path) -> None:
    given = settings(files={"run_folder": "/run/no-such-lbadaptor"})
    (found,) = said(service.folders(facts(given, unit=unit(tmp_path))))
    assert "run_folder is in /run/no-such-lbadaptor, and lbadaptor@shop.service makes /run/lbadaptor-shop" in found


@pytest.mark.parametrize(
    ("apache", "run_folder", "drop_in", "what"),
    [
        ({"PrivateTmp": "true"}, "/tmp/shop/run", "", "apache2.service: PrivateTmp=true hides /tmp/shop/run"),
        ({"PrivateTmp": "false"}, "/tmp/shop/run", "", ""),
        ({"PrivateTmp": "true"}, "/run/shop", "", ""),
        ({}, "/home/me/run", "ProtectHome=yes", "override.conf: ProtectHome=yes hides /home/me/run"),
        ({}, "/home/me/run", "", ""),  # read-only, as it is shipped
    ],
)
def test_what_a_unit_hides(tmp_path: Path, apache: dict[str, str], run_folder: str, drop_in: str, what: str) -> None:
    given = settings(files={"run_folder": run_folder, "key_file": "/var/lib/shop/keys"})
    theirs = Unit("apache2.service", {key: [Row(value, "apache2.service")] for key, value in apache.items()})
    one = facts(given, unit=unit(tmp_path, drop_in), apache_unit=theirs, dump=dump(*host()))
    found = said(service.sandbox(one))
    assert len(found) == bool(what)
    assert what in "".join(found)


def test_a_unit_that_is_not_enabled(tmp_path: Path) -> None:
    one = unit(tmp_path)
    (found,) = said(service.enabled(facts(unit=one, enabled=False)))
    assert found.startswith("lbadaptor@shop.service is not enabled")
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    assert not units.is_enabled("lbadaptor@shop.service", tmp_path)
    wants.mkdir(parents=True)
    (wants / "lbadaptor@shop.service").symlink_to("/etc/systemd/system/lbadaptor@.service")
    assert units.is_enabled("lbadaptor@shop.service", tmp_path)
    assert said(service.enabled(facts(unit=one, enabled=True))) == []


def test_without_a_file_for_tmpfiles_apache_may_start_too_early(tmp_path: Path) -> None:
    rows = {
        f"/run/lbadaptor-shop{name}": "x" for name in ("", "/address.text", "/callerkeys.text", "/available.text")
    }
    text = dump(*host())
    assert said(service.tmpfiles(facts(tmpfiles=rows, dump=text))) == []
    del rows["/run/lbadaptor-shop/callerkeys.text"]
    (found,) = said(service.tmpfiles(facts(tmpfiles=rows, dump=text)))
    assert found.startswith("nothing in tmpfiles.d makes /run/lbadaptor-shop/callerkeys.text")
    assert "/etc/tmpfiles.d/shop.conf" in found
    elsewhere = settings(files={"run_folder": "/srv/run"})
    assert said(service.tmpfiles(facts(elsewhere, tmpfiles={}, dump=text))) == []


def test_the_file_for_tmpfiles_as_shipped_has_all(tmp_path: Path) -> None:
    folder = tmp_path / "etc/tmpfiles.d"
    folder.mkdir(parents=True)
    (folder / "lbadaptor.conf").write_text((UNITS / "tmpfiles.d" / "lbadaptor.conf").read_text())
    given = settings(files={"run_folder": "/run/lbadaptor"})
    one = facts(given, tmpfiles=units.tmpfiles(tmp_path), dump=dump(*host()))
    assert said(service.tmpfiles(one)) == []


def test_without_a_unit_there_is_nothing_to_check() -> None:
    for check in (service.user, service.enabled, service.groups, service.timeouts, service.program, service.folders):
        with pytest.raises(CannotCheck, match="no systemd unit runs"):
            list(check(facts()))
