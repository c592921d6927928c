"""What a real monitor tells the adaptors of its settings, and when."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_fixture import SLOTS, Site

from lbadaptor.adaptor.accepted_settings import AcceptedSettings
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings.snapshot import Snapshot, read
from lbadaptor.contract.ticket import make_keys
from monitor.contract.client import NoAnswer
from tests.ports import held_ports


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with held_ports(SLOTS) as base_port:
        site = Site(tmp_path, base_port)
        site.settings("appservers", servers=1)
        yield site
        site.clear()


def accepted(site: Site) -> Snapshot:
    """What an Apache process that starts now goes by."""
    return AcceptedSettings(site.config).first()


def names(site: Site) -> tuple[str, ...]:
    return read(site.run_folder / "settings.json").ticket_cookies


def first_visits(site: Site) -> list[str]:
    """The ticket cookie with which first visits take the fast lane."""
    lines = (site.run_folder / "available.text").read_text().splitlines()
    return [line.split()[0] for line in lines if line.startswith("__")]


def test_a_typo_after_the_start_does_not_harm_what_starts_later(site: Site) -> None:
    site.settings("adaptor", wait=1.5)
    site.up()
    good = site.config.read_text()
    site.config.write_text(good.replace("wait = 1.5", "wait = soon"))
    assert accepted(site).settings.adaptor.wait == 1.5
    with pytest.raises(NoAnswer, match="not TOML"):
        site.wait_order("restart")
    assert accepted(site).settings.adaptor.wait == 1.5
    site.config.unlink()
    with pytest.raises(SettingsError):  # the run folder is not one of the default ones
        accepted(site)
    site.config.write_text(good.replace("wait = 1.5", "wait = 2.5"))
    assert accepted(site).settings.adaptor.wait == 1.5, "the monitor has not accepted that yet"
    serial = site.table.serial
    site.wait_order("restart")
    assert accepted(site).settings.adaptor.wait == 2.5
    site.wait(lambda: site.table.serial > serial, "address.text tells that something has changed")
    site.end()
    assert not (site.run_folder / "settings.json").exists()


def test_the_names_of_all_living_tickets_are_published_newest_first(site: Site) -> None:
    site.settings("application", ticket_cookie="__OLD__")
    site.up()
    assert names(site) == ("__OLD__",)
    site.wait(lambda: first_visits(site) == ["__OLD__"], "they take the fast lane")
    sid = site.get(0, "/login").cookies["sid"]
    site.settings("application", ticket_cookie="__NEW__")
    assert names(site) == ("__OLD__",)
    site.wait_order("restart")
    assert names(site) == ("__NEW__", "__OLD__"), "before any AppServer hands it out"
    site.wait_states(s0="DYING", s1="OK")
    assert site.get(1, "/login").cookies.keys() == {"sid", "__NEW__"}
    assert site.get(0, "/login", sid=sid).cookies.keys() == {"sid", "__OLD__"}
    assert names(site) == ("__NEW__", "__OLD__")
    site.wait(lambda: first_visits(site) == [], "Apache can look for the absence of one cookie only")
    site.monitor.kill()  # type: ignore[union-attr]
    site.monitor.wait()  # type: ignore[union-attr]
    site.settings("application", ticket_cookie="__NEWEST__")
    site.start()
    site.wait(lambda: names(site) == ("__NEWEST__", "__NEW__", "__OLD__"), "the next monitor knows them all")
    site.wait_control()
    site.wait_states(s0="DYING", s1="OK")


def test_the_last_holder_of_a_name_takes_it_along(site: Site) -> None:
    site.settings("application", ticket_cookie="__OLD__")
    site.up()
    site.settings("application", ticket_cookie="__NEW__")
    site.wait_order("restart")
    site.wait_states(s1="OK")
    site.wait(lambda: names(site) == ("__NEW__",), "the old name is forgotten")
    site.wait(lambda: first_visits(site) == ["__NEW__"], "first visits take the fast lane again")


def test_no_release_if_the_adaptors_cannot_get_the_settings(site: Site) -> None:
    site.up()
    before = site.ok
    (site.run_folder / ".settings.json.new").mkdir()
    site.settings("application", ticket_cookie="__NEW__")
    with pytest.raises(NoAnswer, match=r"settings\.json cannot be written: Is a directory"):
        site.wait_order("restart")
    assert names(site) == ("__PRT__",)
    (site.run_folder / ".settings.json.new").rmdir()
    site.wait_order("restart")
    site.wait(lambda: site.ok and site.ok != before, "it is released")


MINE = grp.getgrgid(os.getegid()).gr_name
NOT_READABLE = [(MINE, 0o600), *([("daemon", 0o640)] if os.geteuid() == 0 else [])]
"""Groups of Apache's, and modes of a key file of mine, by which it is not theirs to read. Root may name any group."""


@pytest.mark.parametrize(("group", "mode"), NOT_READABLE)
def test_a_key_file_that_apaches_group_cannot_read_is_said_at_the_start(site: Site, group: str, mode: int) -> None:
    make_keys(site.folder / "keys")
    (site.folder / "keys").chmod(mode)
    site.settings("files", apache_group=group)
    site.up()
    assert f"Apache, which runs in the group {group}, cannot read it: it is of" in site.said
    assert f"chgrp {group} " in site.said
