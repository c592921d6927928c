"""What is Beaker's own about sessions that are read and loaded one by one."""

from __future__ import annotations

import time

import pytest
from beaker.container import MemoryNamespaceManager
from store_processes import LIFETIME, Make, ident_of

from lbadaptor.appserver.sessions.stores import Unloadable
from lbadaptor.appserver.sessions.stores import beaker_access as of_beaker


def test_beakers_sessions_without_a_timeout_tell_no_end(make_beaker: Make) -> None:
    one = make_beaker()
    one.application.options["timeout"] = None
    ident = ident_of(one, one.begin("apple"))
    content = one.access.read(ident)
    assert content is not None
    assert content.ends == 0.0
    assert one.access.has(ident)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_beakers_sessions_are_read_as_they_are_encoded(make_beaker: Make, serializer: str) -> None:
    one = make_beaker(data_serializer=serializer)
    value = one.begin("apple")
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    one.visit("/look/", value)
    again = one.access.read(ident)
    assert again is not None
    assert again.data != content.data, "the time of the visit is in it"
    assert again.mark == content.mark


class Xor:
    """Stands for a cipher: no package that has one is here."""

    has_aes = True

    def getKeyLength(self) -> int:
        return 32

    def aesEncrypt(self, data: bytes, key: bytes) -> bytes:
        return bytes(byte ^ key[at % len(key)] for at, byte in enumerate(data))

    aesDecrypt = aesEncrypt


def test_an_encrypted_session_stays_encrypted_and_its_mark_the_same(
    make_beaker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beaker encrypts it with another nonce at each visit."""
    monkeypatch.setattr("beaker.session.get_crypto_module", lambda name: Xor())
    keys = {"encrypt_key": "secret", "validate_key": "other"}
    one, other = make_beaker(**keys), make_beaker(**keys)
    value = one.begin("apple")
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    assert content.data.decode() == MemoryNamespaceManager.namespaces[ident]["session"]
    one.visit("/look/", value)
    again = one.access.read(ident)
    assert again is not None
    assert again.data[:20] != content.data[:20]
    assert again.mark == content.mark
    other.access.put(ident, content.data, content.ends)
    assert other.visit("/append/pear", value) == "apple,pear"
    changed = other.access.read(ident)
    assert changed is not None
    assert changed.mark != content.mark


def test_what_beaker_could_not_decode_is_no_session(make_beaker: Make) -> None:
    one, other = make_beaker(data_serializer="json"), make_beaker()
    ident = ident_of(one, one.begin("apple"))
    content = one.access.read(ident)
    assert content is not None
    with pytest.raises(Unloadable):
        other.access.put(ident, content.data, content.ends)
    MemoryNamespaceManager.namespaces[ident] = {"session": content.data.decode()}
    assert not other.access.has(ident)
    assert other.access.read(ident) is None


def test_whether_beakers_session_lives_is_told_without_decoding(
    make_beaker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_beaker()
    value = one.begin("apple")
    reached = one.access
    assert isinstance(reached, of_beaker.BeakerAccess)
    ident = ident_of(one, value)
    reached.read(ident)
    decode, decoded = reached._codec._decrypt_data, []
    monkeypatch.setattr(reached._codec, "_decrypt_data", lambda text: decoded.append(text) or decode(text))
    for _ in range(3):
        assert reached.has(ident)
    assert decoded == []
    one.visit("/append/pear", value)
    for _ in range(3):
        assert reached.has(ident)
    assert len(decoded) == 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME + 2)
    assert not reached.has(ident)
    assert len(decoded) == 1


def test_what_is_remembered_of_beakers_sessions_is_bounded(
    make_beaker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_beaker, "MOST_KNOWN", 2)
    one = make_beaker()
    reached = one.access
    assert isinstance(reached, of_beaker.BeakerAccess)
    idents = [ident_of(one, one.begin(word)) for word in ("apple", "pear", "plum")]
    for ident in idents * 2:
        assert reached.has(ident)
        assert len(reached._known) <= 2
    dropped, *others = [ident for ident in idents if ident in reached._known]
    reached.drop(dropped)
    assert dropped not in reached._known
    MemoryNamespaceManager.namespaces.clear()
    assert not any(reached.has(ident) for ident in others)
    assert reached._known == {}


def test_beakers_other_namespaces_are_left_alone(make_beaker: Make) -> None:
    """Beaker's caches are in the same dictionary, and a visitor may send any id."""
    one = make_beaker()
    reached = one.access
    MemoryNamespaceManager.namespaces["cached"] = {"page": "text"}
    assert not reached.has("cached")
    assert reached.read("cached") is None
    reached.drop("cached")
    assert MemoryNamespaceManager.namespaces["cached"] == {"page": "text"}
    ident = ident_of(one, one.begin("apple"))
    MemoryNamespaceManager.namespaces[ident]["page"] = "text"
    reached.drop(ident)
    assert MemoryNamespaceManager.namespaces[ident] == {"page": "text"}


def test_a_session_that_beaker_saves_meanwhile_is_not_replaced(
    make_beaker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the loading a request has saved one."""
    one, other = make_beaker(), make_beaker()
    value = one.begin("apple")
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    reached = other.access
    reached.put(ident, content.data, content.ends)
    other.visit("/append/pear", value)
    monkeypatch.setattr(of_beaker.BeakerAccess, "has", lambda self, ident: False)
    reached.put(ident, content.data, content.ends)
    assert other.visit("/look/", value) == "apple,pear"


def test_a_living_session_is_not_even_taken_out_for_a_moment(make_beaker: Make) -> None:
    class Kept(dict[str, str]):
        pop: None = None  # type: ignore[assignment]

    one = make_beaker()
    value = one.begin("apple")
    ident = ident_of(one, value)
    content = one.access.read(ident)
    assert content is not None
    namespaces = MemoryNamespaceManager.namespaces
    namespaces[ident] = Kept(namespaces[ident])
    one.access.put(ident, content.data, content.ends)
    assert one.visit("/look/", value) == "apple"
