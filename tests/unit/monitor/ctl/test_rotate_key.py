"""A change of the key: what needs the old one, and how the file is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.contract.address import Address, Entry, Identity, State, Table, write
from lbadaptor.contract.ticket import Keys, read_keys
from monitor.contract import client
from monitor.contract.key_lines import KeyLines
from monitor.ctl import main
from monitor.ctl.commands import key_file
from monitor.ctl.commands.rotate_key import needed_by

OLD, NEW = "o" * 64, "n" * 64


def servers(*states: str, waiting: int | None = None, survive: str = "nothing") -> dict[str, Any]:
    kept = None if waiting is None else {"waiting": waiting}
    named = [{"slot": slot, "state": state, "kept": kept} for slot, state in enumerate(states)]
    return {"appservers": named, "survive": survive}


def address_file(folder: Path, *signers: str) -> Path:
    """An AppServer for each key that signs its ticket."""
    entries = []
    for slot, key in enumerate(signers):
        identity = Identity(slot, 1763805600000 + slot)
        ticket = Keys([key]).ticket(identity)
        entries.append(Entry(ticket, Address("h", 9000 + slot), State.OK, identity, 100, 0))
    path = folder / "address.text"
    path.write_text(write(Table(1, tuple(entries)), "monitor", "now"))
    return path


@pytest.mark.parametrize(
    ("signers", "status", "why"),
    [
        ([NEW, NEW], servers("OK", "OK"), ""),
        ([NEW], servers("OK", waiting=0, survive="anything"), ""),
        (
            [NEW],
            servers("OK", survive="anything"),
            "how many saved sessions wait for their visitors is not known yet",
        ),
        ([NEW, OLD], servers("OK", "DYING"), "the AppServers in slot 1 have a ticket of it"),
        ([NEW], servers("OK", "STARTING"), "slot 1 is STARTING"),
        ([NEW], servers("OK", waiting=3), "3 saved sessions may wait for visitors with a ticket of it"),
    ],
)
def test_what_needs_the_old_key(tmp_path: Path, signers: list[str], status: dict[str, Any], why: str) -> None:
    found = needed_by(address_file(tmp_path, *signers), Keys([NEW]), status)
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_without_address_text_nothing_is_known(tmp_path: Path) -> None:
    assert "cannot be read" in needed_by(tmp_path / "none", Keys([NEW]), servers())


def test_the_file_is_replaced_as_it_is(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "keys"
    real.write_text(OLD + "\n")
    real.chmod(0o640)
    link.symlink_to("real")
    key_file.replace(link, KeyLines((OLD, NEW)))
    assert real.read_text() == f"{OLD}\n{NEW}\n"
    assert (stat.S_IMODE(real.stat().st_mode), link.is_symlink()) == (0o640, True)
    assert sorted(os.listdir(tmp_path)) == ["keys", "real"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "keys").write_text(f"# ours\n{OLD}\n")
    path = tmp_path / "lbadaptor.toml"
    path.write_text(
        '[application]\napp = "a:b"\nsession_cookie = "sid"\n[files]\nrun_folder = "."\nkey_file = "keys"\n'
    )
    return path


def test_a_monitor_that_refuses_leaves_a_file_that_serves(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(path: Path, order: str = "", *_: Any) -> dict[str, Any]:
        if order:
            raise client.NoAnswer("the new program does not load")
        return servers("OK")

    monkeypatch.setattr(client, "ask", ask)
    assert main.main(["rotate-key", "--config", str(config)]) == 1
    told = capsys.readouterr()
    assert "the new program does not load. The new key is in the file, and not in use yet" in told.err
    keys = read_keys(config.parent / "keys")
    assert keys.signed(Keys([OLD]).ticket(Identity(0, 1)))
    assert not Keys([OLD]).signed(keys.ticket(Identity(0, 1)))


def test_a_monitor_that_does_not_come_back_is_told(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(key_file, "UPGRADED_WITHIN", 0.0)
    monkeypatch.setattr(client, "ask", lambda path, order="", *_: {"text": "x"} if order else servers("OK"))
    assert main.main(["rotate-key", "--config", str(config)]) == 1
    assert "the monitor was not upgraded within 0 s" in capsys.readouterr().err


def test_without_a_monitor_nothing_is_changed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (config.parent / "keys").read_text()
    for words in ([], ["--finish"], ["--believe"], ["--sign"]):
        assert main.main(["rotate-key", "--config", str(config), *words]) == 1
        assert "there is no control socket" in capsys.readouterr().err
    assert (config.parent / "keys").read_text() == before


# Several machines.


@pytest.fixture
def one_of_several(config: Path) -> Path:
    config.write_text(config.read_text() + "[machine]\nnumber = 3\n")
    return config


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the monitor was ordered; it obeys."""
    given: list[str] = []

    def ask(path: Path, order: str = "", *_: Any) -> dict[str, Any]:
        given.extend([order] * bool(order))
        return {"text": f"{order}: done"} if order else {**servers("OK"), "began": len(given)}

    monkeypatch.setattr(client, "ask", ask)
    return given


def test_on_one_of_several_machines_a_new_key_does_not_sign_at_once(
    one_of_several: Path, orders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (one_of_several.parent / "keys").read_text()
    assert main.main(["rotate-key", "--config", str(one_of_several)]) == 1
    said = capsys.readouterr().err
    for step in ("--believe", "lbctl key export", "--sign", "--finish"):
        assert step in said
    assert (one_of_several.parent / "keys").read_text() == before
    assert orders == []


def test_the_three_steps(one_of_several: Path, orders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = one_of_several.parent
    old = read_keys(folder / "keys")

    def step(name: str) -> str:
        assert main.main(["rotate-key", name, "--config", str(one_of_several)]) == 0
        return capsys.readouterr().out

    said = step("--believe")
    assert "lbctl key export | ssh MACHINE lbctl key import" in said
    assert "lbctl rotate-key --sign" in said
    keys, ticket = read_keys(folder / "keys"), old.ticket(Identity(0, 1))
    assert keys.ticket(Identity(0, 1)) == ticket, "the old one signs"
    assert orders == ["reexec"]
    said = step("--sign")
    assert "lbctl rotate-key --finish" in said
    keys = read_keys(folder / "keys")
    assert keys.signed(ticket)
    assert not old.signed(keys.ticket(Identity(0, 1))), "the new one signs"
    assert orders == ["reexec", "reexec", "restart"]
    new = [line for line in (folder / "keys").read_text().splitlines() if not line.startswith("#")][-1]
    address_file(folder, new)
    step("--finish")
    assert (folder / "keys").read_text() == f"# ours\n{new}\n"


@pytest.mark.parametrize(
    ("lines", "step", "why"),
    [
        ([OLD], "--sign", "no key is believed"),
        (["# believed: x", NEW, OLD], "--believe", "a key is believed already"),
        (["# believed: x", NEW, OLD], "--finish", "`lbctl rotate-key --sign` comes first"),
    ],
)
def test_a_step_out_of_turn_changes_nothing(
    one_of_several: Path, orders: list[str], capsys: pytest.CaptureFixture[str], lines: list[str], step: str, why: str
) -> None:
    path = one_of_several.parent / "keys"
    path.write_text("".join(f"{line}\n" for line in lines))
    before = path.read_text()
    assert main.main(["rotate-key", step, "--config", str(one_of_several)]) == 1
    assert why in capsys.readouterr().err
    assert (path.read_text(), orders) == (before, [])


def test_one_step_at_a_time(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["rotate-key", "--believe", "--sign", "--config", str(config)])
    assert "one at a time" in capsys.readouterr().err


def test_a_change_that_is_under_way_is_told_with_its_next_step(
    config: Path, orders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "keys").write_text(f"# believed: x\n{NEW}\n{OLD}\n")
    assert main.main(["rotate-key", "--config", str(config)]) == 1
    assert (
        "has 2 keys: an earlier change is under way; end it with `lbctl rotate-key --sign`" in capsys.readouterr().err
    )
