"""What `lbmonitor --check` says of the neighbours of a lbadaptor.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbadaptor.contract.settings import load
from monitor.check.neighbours import findings

UNKNOWN = "cannot be known before its monitor runs"


def written(folder: Path, name: str, **changes: str) -> Path:
    rows = {
        "ticket_cookie": f"__{name}__",
        "run_folder": f"run-{name}",
        "key_file": f"keys-{name}",
        "base_port": "9000" if name == "shop" else "9500",
        **changes,
    }
    path = folder / f"{name}.toml"
    path.write_text(
        f'[application]\napp = "{name}:app"\nsession_cookie = "sid"\nticket_cookie = "{rows["ticket_cookie"]}"\n'
        f'[files]\nrun_folder = "{rows["run_folder"]}"\nkey_file = "{rows["key_file"]}"\n'
        f"[appservers]\nservers = 2\nslots = 8\nbase_port = {rows['base_port']}\n"
    )
    return path


def found(config: Path) -> list[str]:
    return [finding for finding in findings(load(config), config) if UNKNOWN not in finding]


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


def test_what_only_a_running_monitor_can_tell_is_said(tmp_path: Path) -> None:
    shop = written(tmp_path, "shop")
    assert [finding for finding in findings(load(shop), shop) if UNKNOWN in finding]
    shop.write_text('[application]\napp = "a:b"\naffinity = true\n[monitor]\ndrain_limit = 60\n')
    assert findings(load(shop), shop) == []
