from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from lbadaptor.adaptor.spool import BLOCK, EMPTY, Body, VisitorGone, keep
from lbadaptor.contract.errors import OurOwnFault

MEMORY, SPOOL = 100, 1000


class Slow:
    """A stream that gives a few bytes at a time, and counts what was read."""

    def __init__(self, data: bytes, step: int = 30, error: OSError | None = None) -> None:
        self.given = 0
        self._file = io.BytesIO(data)
        self._step = step
        self._error = error

    def read(self, size: int, /) -> bytes:
        piece = self._file.read(min(size, self._step))
        if not piece and self._error:
            raise self._error
        self.given += len(piece)
        return piece


def whole(body: Body) -> bytes:
    return b"".join(body.pieces())


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1, MEMORY, MEMORY + 1, SPOOL, SPOOL + 1, 5000])
def test_a_body_of_any_size_comes_out_as_it_went_in(size: int, chunked: bool, tmp_path: Path) -> None:
    data = os.urandom(size)
    body = keep(Slow(data), None if chunked else size, MEMORY, SPOOL, str(tmp_path))
    assert whole(body) == data
    body.close()
    assert list(tmp_path.iterdir()) == []


def test_no_body_is_not_read() -> None:
    body = keep(Slow(b"the next request"), 0, MEMORY, SPOOL, "")
    assert (body, body.small, body.length, whole(body)) == (EMPTY, b"", 0, b"")


def test_an_empty_chunked_body_has_length_0() -> None:
    body = keep(Slow(b""), None, MEMORY, SPOOL, "")
    assert (body.small, body.length) == (b"", 0)


def test_a_small_body_is_in_memory_and_knows_its_length() -> None:
    body = keep(Slow(b"x" * MEMORY), None, MEMORY, SPOOL, "/nonexistent")
    assert (body.small, body.length, body.repeatable) == (b"x" * MEMORY, MEMORY, True)


def test_a_larger_one_is_in_a_file_that_has_no_name(tmp_path: Path) -> None:
    body = keep(Slow(b"x" * 500), None, MEMORY, SPOOL, str(tmp_path))
    assert (body.small, body.length) == (None, 500)
    assert list(tmp_path.iterdir()) == []
    body.close()


def test_what_is_kept_can_be_sent_again(tmp_path: Path) -> None:
    for size in (MEMORY, SPOOL):
        body = keep(Slow(b"x" * size), size, MEMORY, SPOOL, str(tmp_path))
        assert whole(body) == whole(body) == b"x" * size
        assert body.repeatable
        body.close()


@pytest.mark.parametrize(("length", "announced"), [(5000, None), (None, None)])
def test_beyond_the_bound_it_is_read_as_it_is_sent(length: int | None, announced: int | None, tmp_path: Path) -> None:
    stream = Slow(b"x" * 5000)
    body = keep(stream, length, MEMORY, SPOOL, str(tmp_path))
    assert stream.given <= SPOOL + 30
    assert body.length == announced
    pieces = body.pieces()
    kept = 0
    while kept < stream.given:
        kept += len(next(pieces))
        assert body.repeatable
    next(pieces)
    assert not body.repeatable
    body.close()


def test_without_a_spool_the_rest_is_streamed_from_memory_on() -> None:
    stream = Slow(b"x" * 5000)
    body = keep(stream, 5000, MEMORY, 0, "/nonexistent")
    assert stream.given <= MEMORY + 30
    assert body.small is None
    assert whole(body) == b"x" * 5000
    assert not body.repeatable


@pytest.mark.parametrize("size", [60, 500, 5000])
def test_a_body_that_a_filter_has_lengthened_is_read_to_its_end(size: int, tmp_path: Path) -> None:
    body = keep(Slow(b"x" * size), 50, MEMORY, SPOOL, str(tmp_path))
    assert whole(body) == b"x" * size
    assert body.length == (size if size <= SPOOL else None)
    body.close()


@pytest.mark.parametrize("size", [0, 40, 500, 5000])
def test_a_body_that_a_filter_has_shortened_is_whole_where_its_visitor_is_there(size: int, tmp_path: Path) -> None:
    body = keep(Slow(b"x" * size), 6000, MEMORY, SPOOL, str(tmp_path), short=True)
    assert whole(body) == b"x" * size
    body.close()


def test_what_still_comes_is_kept_while_it_is_sent(tmp_path: Path) -> None:
    data = os.urandom(5000)
    body = keep(Slow(data), 5000, MEMORY, SPOOL, str(tmp_path))
    pieces = body.pieces()
    got = [next(pieces) for _ in range(3)]
    body.keep_rest(str(tmp_path))
    assert b"".join([*got, *pieces]) == data
    assert list(tmp_path.iterdir()) == []
    body.close()


def test_a_part_is_never_sent_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The visitor goes, or the disk is full, while the rest is kept: whoever sends it on breaks off."""
    for stream, length, error in ((Slow(b"x" * 4990), 5000, VisitorGone), (Slow(b"x" * 5000), 5000, OurOwnFault)):
        body = keep(stream, length, MEMORY, SPOOL, str(tmp_path))
        pieces = body.pieces()
        while body.repeatable:
            next(pieces)
        if error is OurOwnFault:
            monkeypatch.setattr("tempfile.TemporaryFile", device_full)
        with pytest.raises(error):
            body.keep_rest(str(tmp_path))
        with pytest.raises(VisitorGone):
            list(pieces)
        body.close()


def test_what_still_comes_can_be_passed_over(tmp_path: Path) -> None:
    stream = Slow(b"x" * 5000)
    body = keep(stream, 5000, MEMORY, SPOOL, str(tmp_path))
    body.pass_over()
    assert stream.given == 5000
    body.close()


def test_too_little_memory_is_a_shortage_of_ours() -> None:
    class Full(Slow):
        def read(self, size: int, /) -> bytes:
            raise MemoryError

    with pytest.raises(OurOwnFault, match="no memory"):
        keep(Full(b""), None, MEMORY, SPOOL, "")


@pytest.mark.parametrize("size", [50, 500])
def test_a_body_that_ends_early_is_the_visitors_fault(size: int, tmp_path: Path) -> None:
    with pytest.raises(VisitorGone, match="10 bytes early"):
        keep(Slow(b"x" * (size - 10)), size, MEMORY, SPOOL, str(tmp_path))


def test_so_is_one_that_ends_early_while_it_is_streamed(tmp_path: Path) -> None:
    body = keep(Slow(b"x" * 4990), 5000, MEMORY, SPOOL, str(tmp_path))
    with pytest.raises(VisitorGone, match="10 bytes early"):
        whole(body)
    body.close()


@pytest.mark.parametrize("size", [50, 500])
@pytest.mark.parametrize("length", [9999, None])
def test_a_connection_that_breaks_is_the_visitors_fault(size: int, length: int | None, tmp_path: Path) -> None:
    stream = Slow(b"x" * size, error=OSError("Apache/mod_wsgi request data read error"))
    with pytest.raises(VisitorGone, match="read error"):
        keep(stream, length, MEMORY, SPOOL, str(tmp_path))


def test_no_spool_folder_is_our_own_fault() -> None:
    with pytest.raises(OurOwnFault, match="No such file"):
        keep(Slow(b"x" * 500), 500, MEMORY, SPOOL, "/nonexistent")


class Full(io.BytesIO):
    """A file on a full disk: the error comes again when it is closed."""

    def write(self, data: object, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        super().close()
        raise OSError(errno.ENOSPC, "No space left on device")


def device_full(**_: object) -> IO[bytes]:
    return open("/dev/full", "w+b", buffering=8192)


@pytest.mark.parametrize("make", [lambda **_: Full(), device_full])
@pytest.mark.parametrize("step", [30, BLOCK])
def test_a_full_disk_is_our_own_fault(
    make: Callable[..., IO[bytes]], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", make)
    with pytest.raises(OurOwnFault, match="No space left"):
        keep(Slow(b"x" * 500, step), 500, MEMORY, SPOOL, "")
