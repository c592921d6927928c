"""Settings that conflict with those of another application, or with those of before."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake import dump, host

from lbadaptor.contract.settings import load
from monitor.arbiter.files import session_folder
from monitor.check.facts import Facts
from monitor.check.finding import CannotCheck, Severity
from monitor.check.neighbours import neighbours
from monitor.check.running import survive

NO_APACHE = CannotCheck("no Apache")


def written(place: Path, name: str, **changes: str) -> Path:
    rows = {
        "ticket_cookie": f"__{name}__",
        "run_folder": f"run-{name}",
        "key_file": f"keys-{name}",
        "survive": "nothing",
        "folder": "kept",
        "base_port": "9000" if name == "shop" else "9500",
        "number": "-1",
        **changes,
    }
    path = place / f"{name}.toml"
    path.write_text(
        f'[application]\napp = "{name}:app"\nsession_cookie = "sid"\nticket_cookie = "{rows["ticket_cookie"]}"\n'
        f'[files]\nrun_folder = "{rows["run_folder"]}"\nkey_file = "{rows["key_file"]}"\n'
        f"[appservers]\nservers = 2\nslots = 8\nbase_port = {rows['base_port']}\n"
        f'[sessions]\nsurvive = "{rows["survive"]}"\nfolder = "{rows["folder"]}"\n'
        f"[machine]\nnumber = {rows['number']}\n"
    )
    return path


def found(config: Path, apache: str = "") -> list[str]:
    return [str(finding) for finding in neighbours(Facts(load(config), config, dump=apache or NO_APACHE))]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"ticket_cookie": "__shop__"}, 'the same ticket_cookie = "__shop__"'),
        ({"base_port": "9007"}, "9000 to 9007 here, 9007 to 9014 there"),
        ({"base_port": "9008"}, ""),
        ({"base_port": "8993"}, "some of the same ports"),
        ({"base_port": "8992"}, ""),
        ({"run_folder": "run-shop/../run-shop"}, "the same run_folder"),
        ({"key_file": "./keys-shop"}, "the same key_file"),
    ],
)
def test_conflicts_with_a_neighbour(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    shop, blog = written(tmp_path, "shop"), written(tmp_path, "blog", **changes)
    said_of_blog = found(shop)
    assert len(said_of_blog) == bool(said)
    if said:
        assert said in said_of_blog[0]
        assert str(blog) in said_of_blog[0]


@pytest.mark.parametrize(("one", "another", "well"), [("1", "2", True), ("1", "1", False), ("1", "-1", False)])
def test_two_machines_of_one_application_share_tickets(tmp_path: Path, one: str, another: str, well: bool) -> None:
    """The demo of several machines has them all on one."""
    shop = written(tmp_path, "shop", number=one)
    written(tmp_path, "again", number=another, ticket_cookie="__shop__", key_file="keys-shop")
    assert len(found(shop)) == (0 if well else 2)


def changes(config: Path, runs: dict[str, str] | None) -> list[str]:
    """What is said of `survive`, beside a monitor with this status."""
    status = CannotCheck("none runs") if runs is None else runs
    return [str(finding) for finding in survive(Facts(load(config), config, status=status))]


def test_itself_and_what_is_none_of_ours_are_passed_over(tmp_path: Path) -> None:
    shop = written(tmp_path, "shop")
    (tmp_path / "same.toml").symlink_to(shop)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.toml").mkdir()
    assert found(shop) == []


def test_a_broken_neighbour_is_said(tmp_path: Path) -> None:
    shop = written(tmp_path, "shop")
    (tmp_path / "blog.toml").write_text("[application]\napp = \n")
    (finding,) = found(shop)
    assert "could not be compared with its neighbour" in finding
    assert "blog.toml" in finding


@pytest.mark.parametrize(
    ("names", "severities"),
    [
        (("shop.example", "blog.example"), []),
        (("shop.example", "shop.example"), [Severity.ERROR]),
        (("shop.example",), [Severity.WARNING]),  # where the other one is, nobody knows
    ],
)
def test_one_ticket_cookie_matters_on_one_host(
    tmp_path: Path, names: tuple[str, ...], severities: list[Severity]
) -> None:
    shop, blog = written(tmp_path, "shop"), written(tmp_path, "blog", ticket_cookie="__shop__")
    lines = [
        line for name, config in zip(names, (shop, blog), strict=False) for line in host(config=config, name=name)
    ]
    told = list(neighbours(Facts(load(shop), shop, dump=dump(*lines))))
    assert [one.severity for one in told] == severities


def test_a_neighbour_that_apache_names_may_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    shop, blog = written(tmp_path, "shop"), written(tmp_path / "etc", "blog", key_file="../keys-shop")
    assert found(shop) == []
    (told,) = found(shop, dump(*host(config=shop), *host(config=blog, name="blog.example")))
    assert told.startswith(f"{blog} has the same key_file")


@pytest.mark.parametrize(
    ("mine", "other", "folder", "same"),
    [
        ("leaving", "anything", "./kept", True),
        ("leaving", "anything", "other", False),
        ("leaving", "nothing", "kept", False),
        ("nothing", "leaving", "kept", False),
    ],
)
def test_a_folder_of_sessions_is_for_one_application(
    tmp_path: Path, mine: str, other: str, folder: str, same: bool
) -> None:
    shop = written(tmp_path, "shop", survive=mine)
    written(tmp_path, "blog", survive=other, folder=folder)
    assert any("the same [sessions] folder" in finding for finding in found(shop)) is same


@pytest.mark.parametrize(
    ("runs", "then", "said"),
    [
        (None, "nothing", ""),
        ({"survive": "nothing"}, "nothing", ""),
        ({"survive": "leaving"}, "anything", ""),
        (None, "leaving", "reload Apache before"),
        ({}, "leaving", "reload Apache before"),  # a monitor of a release that did not know it
        ({"survive": "nothing"}, "anything", "adaptors of before do not know MOVED"),
        ({"survive": "leaving"}, "nothing", "still move theirs to"),
    ],
)
def test_what_a_change_of_survive_means_is_said(
    tmp_path: Path, runs: dict[str, str] | None, then: str, said: str
) -> None:
    notes = changes(written(tmp_path, "shop", survive=then), runs)
    assert len(notes) == bool(said)
    assert said in "".join(notes)


def test_sessions_that_nobody_takes_up_any_more_are_said(tmp_path: Path) -> None:
    shop = written(tmp_path, "shop", survive="leaving")
    session_folder.check(load(shop), None)
    (tmp_path / "kept" / "free").mkdir()
    (note,) = changes(written(tmp_path, "shop", survive="nothing"), None)
    assert note.startswith(f"{tmp_path}/kept is left from when sessions survived")
