"""One session at a time, in the stores of frameworks: what holds for each of them, with real requests."""

from __future__ import annotations

import hashlib
import pickle
import time

import pytest
import store_processes
from store_processes import LIFETIME, Make, Process, flask_process, ident_of

from lbadaptor.appserver.sessions.stores import Unloadable, Unsaveable

pytestmark = pytest.mark.filterwarnings("ignore:The 'use_signer' option is deprecated:DeprecationWarning")


# From one process to another.


def test_a_session_moves_to_another_process(make: Make) -> None:
    one, other = make(), make()
    value = one.begin("apple")
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    assert one.access.has(ident)
    assert not other.access.has(ident)
    assert other.access.read(ident) is None

    assert ident_of(other, value) == ident
    other.access.put(ident, content.data, content.ends)
    assert other.access.has(ident)
    assert other.access.read(ident) == content
    one.access.drop(ident)
    assert not one.access.has(ident)
    assert one.access.read(ident) is None
    assert one.entries() == []

    assert other.visit("/look/", value) == "apple"
    assert other.visit("/append/pear", value) == "apple,pear"
    assert one.visit("/look/", value) == ""


def test_a_session_that_is_not_there_may_be_dropped(make: Make) -> None:
    one = make()
    value = one.begin("apple")
    one.access.drop("unknown12")
    one.access.drop("")
    assert one.visit("/look/", value) == "apple"


def test_a_living_session_is_never_replaced(make: Make) -> None:
    one, other = make(), make()
    value = one.begin("apple")
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    other.access.put(ident, content.data, content.ends)
    other.visit("/append/pear", value)
    other.access.put(ident, content.data, content.ends)
    assert other.visit("/look/", value) == "apple,pear"


def test_an_ended_session_is_not_there_and_may_be_replaced(make: Make) -> None:
    one, other = make(), make()
    value = one.begin("apple")
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    other.access.put(ident, content.data, content.ends)
    other.visit("/append/pear", value)
    assert other.access.has(ident)

    other.end(ident)
    assert not other.access.has(ident)
    assert other.access.read(ident) is None
    other.access.put(ident, content.data, content.ends)
    assert other.access.has(ident)
    assert other.visit("/look/", value) == "apple"


def test_what_has_ended_meanwhile_is_not_loaded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = make(), make()
    ident = ident_of(one, one.begin("apple"))
    content = one.access.read(ident)
    assert content is not None
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now + LIFETIME + 2)
        other.access.put(ident, content.data, content.ends)
    assert not other.access.has(ident)


def test_a_logout_leaves_no_session(make: Make) -> None:
    one = make()
    value = one.begin("apple")
    ident = ident_of(one, value)
    assert one.access.has(ident)
    one.visit("/out/", value)
    assert not one.access.has(ident)
    assert one.access.read(ident) is None


def test_the_end_is_the_stores_own(make: Make) -> None:
    one = make()
    before = time.time()
    content = one.access.read(ident_of(one, one.begin("apple")))
    assert content is not None
    assert before + LIFETIME - 1 <= content.ends <= time.time() + LIFETIME


def test_no_look_is_an_access(make: Make) -> None:
    one = make()
    first = ident_of(one, one.begin("apple"))
    one.begin("pear")
    order, content = one.entries(), one.access.read(first)
    for _ in range(3):
        assert one.access.has(first)
        assert one.access.read(first) == content
    assert one.entries() == order


# What counts as a change.


def test_a_visit_that_only_reads_changes_no_mark(make: Make) -> None:
    one = make()
    value = one.begin("apple")
    one.visit("/thing/", value)
    content = one.access.read(ident_of(one, value))
    assert content is not None
    for _ in range(3):
        assert one.visit("/look/", value) == "apple"
        again = one.access.read(ident_of(one, value))
        assert again is not None
        assert again.mark == content.mark
        assert again.ends >= content.ends


def test_a_change_changes_the_mark(make: Make) -> None:
    """In place, too: Flask and Django save each request's session here, Beaker's application tells it to."""
    one = make()
    value = one.begin("apple")
    ident = ident_of(one, value)
    marks = set()
    for word in ("pear", "plum"):
        one.visit(f"/append/{word}", value)
        content = one.access.read(ident)
        assert content is not None
        marks.add(content.mark)
    assert len(marks) == 2


# Which session a visitor has.


@pytest.mark.parametrize(
    "template",
    [
        "{apple} {pear}",
        "{pear} {apple}",
        "{apple} unknown-session-of-another",
        "unknown-session-of-another {apple}",
        "{apple} {pear}x",
        "{pear}x {apple}",
        "x{pear} {apple}",
        "{apple} short",
        "{apple} ~",
        "~ {apple}",
        '{apple} "{pear}"',
        '"{apple}" {pear}',
        "{apple} a_b",
        "a_b {apple}",
    ],
)
def test_of_several_values_it_is_the_one_that_the_framework_takes(make: Make, template: str) -> None:
    one = make()
    known = {name: one.begin(name) for name in ("apple", "pear")}
    idents = {ident_of(one, value): name for name, value in known.items()}
    sent = [part.replace("~", "").replace("_", " ").format(**known) for part in template.split(" ")]
    values = [value[1:-1] if value.startswith('"') else value for value in sent]
    assert idents.get(one.access.ident(values), "") == one.visit("/look/", *sent)


def test_no_value_is_no_session_and_nothing_raises(make: Make) -> None:
    one = make()
    one.begin("apple")
    for values in ([], [""], ["\xff"], [" "], ['"'], ["\\"], ["é", "\x01"]):
        assert one.access.read(one.access.ident(values)) is None
    long = one.access.ident(["x" * 100_000])
    assert not one.access.has(long)


@pytest.mark.parametrize("kind", ["flask", "beaker"])
def test_a_signed_cookie_is_taken_with_its_signature_only(kind: str, request: pytest.FixtureRequest) -> None:
    def process(key: str) -> Process:
        if kind == "flask":
            return flask_process(signed=True, key=key)
        return request.getfixturevalue("make_beaker")(secret=key)  # type: ignore[no-any-return]

    one, same, foreign = process("one"), process("one"), process("another")
    value = one.begin("apple")
    ident = ident_of(one, value)
    assert ident in value
    assert ident != value
    assert same.access.ident([value]) == ident
    assert same.access.secret == one.access.secret == hashlib.sha256(b"one").hexdigest()[:16]
    assert foreign.access.secret != one.access.secret
    for access_, bad in ((foreign.access, value), (one.access, ident), (one.access, f"{value}x")):
        assert access_.ident([bad]) == ""


@pytest.mark.parametrize("kind", ["flask", "django", "beaker"])
def test_a_cookie_that_is_not_signed_has_no_secret(kind: str, request: pytest.FixtureRequest) -> None:
    one = flask_process() if kind == "flask" else request.getfixturevalue(f"make_{kind}")()
    assert one.access.secret == ""
    assert one.access.kind == kind


# What cannot be saved or loaded.


def test_a_class_that_is_not_there_any_more_cannot_be_loaded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = make(), make()
    value = one.begin("apple")
    one.visit("/thing/", value)
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    to = other.access
    monkeypatch.delattr(store_processes, "Thing")
    with pytest.raises(Unloadable, match=r"AttributeError: .*Thing"):
        to.put(ident, content.data, content.ends)
    assert not to.has(ident)


def test_what_is_no_session_cannot_be_loaded(make: Make) -> None:
    one = make()
    for data in (b"", b"\xff\xfe", b"nonsense", pickle.dumps(["no session"]), b"gASVBAAAAAAAAABdlC4="):
        with pytest.raises(Unloadable):
            one.access.put("12345678", data, time.time() + LIFETIME)
    assert one.entries() == []


def test_what_flask_could_not_pickle_cannot_be_saved() -> None:
    one = flask_process()
    value = one.begin("apple")
    one.visit("/stubborn/", value)
    with pytest.raises(Unsaveable, match="a type that cachelib could not pickle"):
        one.access.read(ident_of(one, value))


@pytest.mark.parametrize("kind", ["django", "beaker"])
def test_what_a_framework_cannot_pickle_is_never_in_its_store(kind: str, request: pytest.FixtureRequest) -> None:
    one = request.getfixturevalue(f"make_{kind}")()
    value = one.begin("apple")
    content = one.access.read(ident_of(one, value))
    with pytest.raises(pickle.PicklingError):
        one.visit("/stubborn/", value)
    assert one.access.read(ident_of(one, value)).mark == content.mark
