from __future__ import annotations

import grp
import os
import pwd
import threading
from pathlib import Path

import pytest

from lbadaptor.contract.address import Address, Entry, Identity, State, Table
from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.generation import with_number
from lbadaptor.contract.ticket import (
    MAX_LENGTH,
    MAX_VERIFIED,
    Keys,
    Verdict,
    identity_of,
    judge,
    make_keys,
    read_keys,
    unreadable_for,
)

OLD, NEW = "o" * 40, "n" * 40
IDENTITY = Identity(3, 1763805600123)


def entry_of(ticket: str, identity: Identity = IDENTITY) -> Entry:
    return Entry(ticket, Address("127.0.0.1", 9000 + identity.slot), State.OK, identity)


def test_a_ticket_is_slot_generation_signature() -> None:
    slot, generation, signature = Keys([NEW]).ticket(IDENTITY).split(".")
    assert (slot, generation) == ("3", "1763805600123")
    assert len(signature) == 43


def test_what_was_signed_by_an_earlier_version_is_signed() -> None:
    """A new version must not change the signature: visitors and running AppServers would lose each other."""
    keys, ticket = Keys(["m" * 32]), "3.1763805600123.pFYAuX89lNiWQmjfWh4cRBcltGcv6rcOrwbPlyu0nos"
    assert keys.ticket(Identity(3, 1763805600123)) == ticket
    assert keys.caller_key(ticket) == "dbf49b3561676ee23a9aca694d3768c5e88f14395894f1bd76db812ae1a2d757"


def test_the_newest_key_signs_and_all_verify() -> None:
    keys = Keys([OLD, NEW])
    assert keys.ticket(IDENTITY) == Keys([NEW]).ticket(IDENTITY) != Keys([OLD]).ticket(IDENTITY)
    assert keys.signed(Keys([OLD]).ticket(IDENTITY))
    assert keys.signed(Keys([NEW]).ticket(IDENTITY))
    assert not keys.signed(Keys(["x" * 40]).ticket(IDENTITY))


def test_a_ticket_changed_in_any_place_is_not_signed() -> None:
    keys = Keys([NEW])
    ticket = keys.ticket(IDENTITY)
    for place in range(len(ticket) - 1):  # of the last character, two bits are padding
        other = "1" if ticket[place] != "1" else "2"
        assert not keys.signed(ticket[:place] + other + ticket[place + 1 :])


@pytest.mark.parametrize(
    "ticket", ["", ".", "..", "3.4", "a.b.c", "x" * 100_000, "٣.4." + "s" * 43, "3.4." + "s" * 43 + "\n", "\0"]
)
def test_what_has_not_the_shape_is_not_signed(ticket: str) -> None:
    assert not Keys([NEW]).signed(ticket)


def test_what_is_too_long_or_of_another_shape_costs_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsign(*_: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr("itsdangerous.Signer.unsign", unsign)
    keys = Keys([NEW])
    assert not keys.signed("1" * (MAX_LENGTH + 1))
    assert not keys.signed("1.2.short")


def test_keys_differ_by_purpose_and_by_generation() -> None:
    keys = Keys([NEW])
    first, second = keys.ticket(IDENTITY), keys.ticket(Identity(3, IDENTITY.generation + 1))
    made = [keys.caller_key(first), keys.probe_key(first), keys.caller_key(second), keys.probe_key(second)]
    assert len(set(made)) == 4
    assert all(len(key) == 64 for key in made)


def test_an_appserver_keeps_its_keys_when_a_new_master_comes() -> None:
    ticket = Keys([OLD]).ticket(IDENTITY)
    assert Keys([OLD, NEW]).caller_key(ticket) == Keys([OLD]).caller_key(ticket)
    assert Keys([OLD, NEW]).probe_key(ticket) == Keys([OLD]).probe_key(ticket)


def test_there_is_no_key_for_a_ticket_that_is_not_ours() -> None:
    with pytest.raises(KeyFileError, match=r"3\.1763805600123"):
        Keys([NEW]).caller_key(Keys([OLD]).ticket(IDENTITY))


def test_identity_of_names_slot_and_generation() -> None:
    assert identity_of("3.17.sig") == "3.17"


HELD = entry_of("3.17.held")
OTHER = entry_of("4.18.other", Identity(4, 18))


@pytest.mark.parametrize(
    ("tickets", "expected"),
    [
        ([], (Verdict.NONE, None, "")),
        (["3.17.held"], (Verdict.HELD, HELD, "3.17.held")),
        (["mine"], (Verdict.LOST, None, "mine")),
        (["theirs"], (Verdict.FORGED, None, "theirs")),
        (["theirs", "mine", "3.17.held"], (Verdict.HELD, HELD, "3.17.held")),
        (["3.17.held", "4.18.other"], (Verdict.HELD, HELD, "3.17.held")),
        (["theirs", "mine"], (Verdict.LOST, None, "mine")),
        (["theirs", "foreign"], (Verdict.FORGED, None, "theirs")),
    ],
)
def test_all_tickets_of_a_request_are_looked_at_held_first_then_lost(tickets: list[str], expected: object) -> None:
    assert judge(tickets, Table(1, (HELD, OTHER)), lambda ticket: ticket == "mine") == expected


def test_a_ticket_in_the_table_costs_no_signature() -> None:
    def signed(ticket: str) -> bool:
        raise AssertionError("asked")

    assert judge(["theirs", "3.17.held"], Table(1, (HELD,)), signed)[0] is Verdict.HELD


def test_a_key_file_is_made_once_0640_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = make_keys(path, os.getgid())
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_gid == os.getgid()
    assert make_keys(path).ticket(IDENTITY) == read_keys(path).ticket(IDENTITY) == made.ticket(IDENTITY)
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


def test_two_processes_that_make_the_key_file_at_once_get_the_same(tmp_path: Path) -> None:
    path, tickets = tmp_path / "keys", []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        tickets.append(make_keys(path).ticket(IDENTITY))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tickets) == 8
    assert len(set(tickets)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


def test_a_key_file_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be made: No such file or directory"):
        make_keys(tmp_path / "no folder" / "keys")


def test_a_key_file_behind_a_closed_door_is_a_key_file_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", closed)
    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(KeyFileError, match="Permission denied"):
        make_keys(tmp_path / "keys")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no key"),
        (b"# only a remark\n\n", "holds no key"),
        (b"short\n", "shorter than 32"),
        (b"k" * 40 + b"\nshort\n", "shorter than 32"),
        ("ü".encode() * 40, "not plain ASCII"),
        (b"\xff" * 40, "not plain ASCII"),
    ],
)
def test_an_unusable_key_file_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(KeyFileError, match=why):
        read_keys(tmp_path / "keys")


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_keys(tmp_path / "keys")


def test_lines_of_a_key_file_go_from_oldest_to_newest(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# two keys\n{OLD}\n\n{NEW}  \n")
    keys = read_keys(tmp_path / "keys")
    assert keys.ticket(IDENTITY) == Keys([NEW]).ticket(IDENTITY)
    assert keys.signed(Keys([OLD]).ticket(IDENTITY))


def test_no_key_is_no_keys() -> None:
    with pytest.raises(KeyFileError):
        Keys([])


# Who may read the key file.


def test_a_key_file_that_may_not_be_read_says_whose_it_is_and_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text("x")
    path.chmod(0o600)

    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", closed)
    with pytest.raises(KeyFileError) as raised:
        read_keys(path)
    owner, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    text = str(raised.value)
    assert f"key file {path}: Permission denied; this process runs as {owner} in the group {group}" in text
    assert f"it is of {owner}:{grp.getgrgid(path.stat().st_gid).gr_name}, mode 0600" in text
    assert f"`chgrp {group} {path} && chmod 0640 {path}`" in text


def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "closed"
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, *_, **__: Path(path) != folder and real(path, os.F_OK))
    monkeypatch.setattr(Path, "read_text", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(KeyFileError, match=f"may not enter {folder}$"):
        read_keys(folder / "keys")


@pytest.mark.parametrize(
    ("mode", "mine", "readable"),
    [(0o640, True, True), (0o600, True, False), (0o640, False, False), (0o644, False, True), (0o604, True, True)],
)
def test_whether_apaches_group_can_read_the_key_file(tmp_path: Path, mode: int, mine: bool, readable: bool) -> None:
    path = tmp_path / "keys"
    path.write_text("x")
    path.chmod(mode)
    group = path.stat().st_gid if mine else path.stat().st_gid + 4711
    said = unreadable_for(path, group)
    assert bool(said) is not readable
    if said:
        assert f"mode {mode:04o}" in said
        assert f"chgrp {grp.getgrgid(group).gr_name if mine else group} {path}" in said


def test_thousands_of_forged_tickets_cost_a_few_signatures() -> None:
    asked: list[str] = []

    def signed(ticket: str) -> bool:
        asked.append(ticket)
        return False

    tickets = [f"0.{number}.{'A' * 43}" for number in range(3000)] * 2
    assert judge(tickets, Table(), signed)[0] is Verdict.FORGED
    assert len(asked) == MAX_VERIFIED


def test_who_holds_a_ticket_is_found_among_thousands() -> None:
    keys = Keys(["m" * 48])
    held = Entry(keys.ticket(Identity(1, 17)), Address("127.0.0.1", 9001), State.OK, Identity(1, 17))
    tickets = [*(f"0.{number}.{'A' * 43}" for number in range(3000)), held.ticket]
    assert judge(tickets, Table(1, (held,)), keys.signed) == (Verdict.HELD, held, held.ticket)


def test_a_few_forged_ones_hide_no_ticket_of_ours() -> None:
    keys = Keys(["m" * 48])
    ours = keys.ticket(Identity(1, 17))
    forged = [f"0.{number}.{'A' * 43}" for number in range(MAX_VERIFIED - 1)]
    assert judge([*forged, *forged, "x" * 200, ours], Table(), keys.signed) == (Verdict.LOST, None, ours)


# With the number of a machine.

NUMBERED = with_number(7, Keys([NEW]).mask, 0, 1763805600123, 3)


def test_a_ticket_of_16_digits_is_one_like_those_of_13() -> None:
    ticket = Keys([NEW]).ticket(Identity(3, NUMBERED))
    assert len(str(NUMBERED)) == 16
    assert Keys([OLD, NEW]).signed(ticket)
    assert Keys([OLD, NEW]).caller_key(ticket) == Keys([NEW]).caller_key(ticket)


def test_the_number_is_found_by_the_key_that_signed_the_ticket() -> None:
    ticket = Keys([NEW]).ticket(Identity(3, NUMBERED))
    for keys in ([NEW], [OLD, NEW], [NEW, OLD]):
        assert Keys(keys).number_in(ticket) == 7
    assert Keys([OLD]).number_in(ticket) is None
    assert Keys([NEW]).number_in(Keys([NEW]).ticket(IDENTITY)) is None


def test_the_mask_is_of_the_key_that_signs() -> None:
    assert Keys([OLD, NEW]).mask(3, 17) == Keys([NEW]).mask(3, 17) == 896
    assert Keys([OLD]).mask(3, 17) != Keys([NEW]).mask(3, 17)
