from __future__ import annotations

import re

import pytest

from lbadaptor.contract.address import (
    VERSION,
    Address,
    Entry,
    Given,
    Identity,
    State,
    Table,
    free_slots,
    parse,
    write,
)
from lbadaptor.contract.errors import AddressFileError

GENERATION = 1763805600123


def entry(slot: int, state: State = State.OK, **more: int) -> Entry:
    identity = Identity(slot, GENERATION + slot)
    return Entry(f"{identity}.{'s' * 43}", Address("127.0.0.1", 9000 + slot), state, identity, **more)


def line(**changes: object) -> str:
    columns = {
        "ticket": f"0.{GENERATION}.sig",
        "address": "127.0.0.1:9000",
        "state": "OK",
        "slot": 0,
        "generation": GENERATION,
        "weight": 100,
        "sessions": 41,
    }
    return "  ".join(map(str, (columns | changes).values())) + "\n"


TABLE = Table(42, (entry(0, sessions=41), entry(1, State.DYING, weight=50), entry(7, State.FAILING)))


def test_what_is_written_is_read_again() -> None:
    assert parse(write(TABLE, "monitor 4711 on web1", "2026-11-22T10:00:00Z")) == TABLE


def test_a_table_without_entries_is_written_and_read_again() -> None:
    assert parse(write(Table(7), "monitor", "now")) == Table(7)


def test_the_first_two_columns_are_key_and_value_of_a_rewrite_map() -> None:
    rows = [row for row in write(TABLE, "monitor", "now").splitlines() if not row.startswith("#")]
    assert [row.split()[:2] for row in rows] == [[e.ticket, str(e.address)] for e in TABLE.entries]


def test_the_header_names_version_serial_writer_time_and_number_of_entries() -> None:
    first = write(TABLE, "monitor 4711 on web1", "2026-11-22T10:00:00Z").splitlines()[0]
    assert first == "# address.text 1 · serial 42 · monitor 4711 on web1 · 2026-11-22T10:00:00Z · entries 3"


def test_a_table_finds_entries_by_ticket_and_those_for_anybody() -> None:
    assert TABLE.by_ticket[TABLE.entries[1].ticket] is TABLE.entries[1]
    assert TABLE.ok == TABLE.entries[:1]


def test_a_table_finds_the_entry_that_a_text_names_in_its_one_spelling() -> None:
    seventh = TABLE.entries[2]
    assert TABLE.named(f"7.{GENERATION + 7}") is seventh
    for wrong in ("", "7", f"07.{GENERATION + 7}", f" 7.{GENERATION + 7}", f"7.{GENERATION}", seventh.ticket, "7.x"):
        assert TABLE.named(wrong) is None


def test_a_text_without_header_has_serial_0() -> None:
    assert parse(line()).serial == 0


def test_comments_and_empty_lines_are_passed_over() -> None:
    assert len(parse(f"# a remark\n\n{line()}   \n# another\n").entries) == 1


def test_line_ends_of_another_system_do_no_harm() -> None:
    text = write(TABLE, "monitor", "now")
    assert parse(text.replace("\n", "\r\n")).entries == TABLE.entries


def test_entries_of_unchanged_lines_are_those_of_the_table_before() -> None:
    before = parse(write(TABLE, "monitor", "now"))
    changed = (TABLE.entries[0], entry(1, State.FAILING, weight=50), entry(8))
    now = parse(write(Table(43, changed), "monitor", "then"), before)
    assert now == Table(43, changed)
    assert now.entries[0] is before.entries[0]
    assert list(now.by_ticket) == [e.ticket for e in changed]


def test_what_is_wrong_is_found_beside_lines_that_are_known() -> None:
    good = f"# a comment\n{line()}"
    before = parse(good)
    for more in (line(), line(slot=1)):
        with pytest.raises(AddressFileError, match="line 3"):
            parse(good + more, before)


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "[::1]:9000"])
def test_the_fast_way_reads_what_the_careful_way_reads(address: str) -> None:
    good = line(address=address)
    assert parse(good).by_line
    for place in range(len(good) - 1):
        for other in ("", "0", "9", "x", ".", ":", "[", "]", " ", "\t", "\r", "\xa0", "\x1c", "²", "#", "-"):
            for text in (good[:place] + other + good[place:], good[:place] + other + good[place + 1 :]):
                assert outcome(text) == outcome(text + "\n"), text  # an empty line makes it go the careful way


def outcome(text: str) -> tuple[Entry, ...] | str:
    try:
        return parse(text).entries
    except AddressFileError as error:
        return str(error)


def test_an_empty_line_makes_it_go_the_careful_way() -> None:
    table = parse(line() + "\n")
    assert len(table.entries) == 1
    assert not table.by_line


@pytest.mark.parametrize("text", ["\n", "# address.text 1 · serial 3 · entries 0\n"])
def test_a_text_with_no_entry_is_an_empty_table(text: str) -> None:
    assert parse(text).entries == ()


def test_a_text_cut_anywhere_is_refused_or_was_not_ours_yet() -> None:
    text = write(TABLE, "monitor", "now")
    for end in range(len(text)):
        with pytest.raises(AddressFileError, match=r"half written|columns"):
            parse(text[:end])


def test_a_header_with_a_number_beyond_measure_raises_nothing_else() -> None:
    for digits in ("9" * 20, "9" * 5000):
        parse(f"# address.text 1 · serial {digits} · entries 0\n")
        parse(f"# address.text {digits} · serial 1 · entries 0\n")


def test_a_later_version_is_refused() -> None:
    with pytest.raises(AddressFileError, match="version 2") as caught:
        parse(f"# address.text {VERSION + 1} · serial 1 · entries 0\n")
    assert caught.value.line == 1


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("one two three\n", "columns: 3"),
        (line()[:-1] + " more\n", "columns: 8"),
        (line(state="ok"), "state 'ok' is none of OK, DYING, FAILING"),
        (line(state="STOPPING"), "STOPPING"),
        (line(slot="x"), "slot 'x'"),
        (line(slot="-1"), "slot '-1'"),
        (line(slot="²"), "slot '²'"),
        (line(sessions="1.5"), "sessions '1.5'"),
        (line(weight="9" * 20), "weight"),
        (line(slot=1), "does not belong to slot 1"),
        (line(generation=5), "does not belong to slot 0, generation 5"),
        (line(address="127.0.0.1"), "not host:port"),
        (line(address=":9000"), "not host:port"),
        (line(address="127.0.0.1:65536"), "not host:port"),
        (line(address="127.0.0.1:-1"), "not host:port"),
        (line(address="127.0.0.1:" + "9" * 5000), "not host:port"),
        (line(address="::1:9000"), "brackets"),
        (line(), "slot 0 stands in line 2 too"),
        (line(address="127.0.0.1:9001"), "slot 0 stands in line 2 too"),
        (line(ticket="1.5.sig", slot=1, generation=5), "address 127.0.0.1:9000 stands in line 2 too"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(bad: str, why: str) -> None:
    with pytest.raises(AddressFileError, match=why) as caught:
        parse(f"# a comment\n{line()}{bad}")
    assert caught.value.line == 3
    assert str(caught.value).startswith("line 3: ")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9000", Address("127.0.0.1", 9000)),
        ("web1.example:1", Address("web1.example", 1)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


def test_free_slots_come_lowest_first() -> None:
    assert free_slots([0, 2, 9], 5) == [1, 3, 4]
    assert free_slots(range(3), 3) == []


GIVEN = Given(7, 1763805600123456, 1763805500000, 1763805600200)


def test_the_header_of_a_machine_with_a_number_tells_what_it_has_given() -> None:
    text = write(Table(42, TABLE.entries, given=GIVEN), "monitor 4711 on web1", "2026-11-22T10:00:00Z")
    header = text.partition("\n")[0]
    assert (
        " · 2026-11-22T10:00:00Z · machine 7, newest 1763805600123456 from 1763805500000 to 1763805600200 · entries "
    ) in header
    table = parse(text)
    assert (table.given, table.serial, table.entries) == (GIVEN, 42, TABLE.entries)
    assert parse(write(TABLE, "monitor", "now")).given is None


def test_programs_of_before_read_that_header_too() -> None:
    text = write(Table(42, TABLE.entries, given=GIVEN), "monitor 4711 on web1", "now")
    before = re.compile(
        r"# address\.text (?P<version>\d{1,9})\b"
        r"(?:.*?· serial (?P<serial>\d{1,19})\b)?(?:.*· entries (?P<entries>\d{1,9})$)?"
    )
    found = before.match(text.partition("\n")[0])
    assert found is not None
    assert (found["version"], found["serial"], found["entries"]) == ("1", "42", str(len(TABLE.entries)))
