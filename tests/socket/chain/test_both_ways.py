"""Requests and answers that are under way at once: nobody waits for who waits for them."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from living import living
from scripted import PATIENCE, ScriptedServer, Talk, answer
from stage import Site

from lbadaptor.adaptor.spool import VisitorGone

Serve = Callable[..., ScriptedServer]
MIB = 1 << 20
TEXT = ("Content-Type", "text/plain")
CHUNKED = "Transfer-Encoding: chunked"
QUICK = 30.0
"""Seconds, less than the answer's time: who waited for each other would wait for all of that."""


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer while reading."""
    start_response("200 OK", [TEXT])
    read = environ["wsgi.input"].read
    return iter(lambda: read(8192), b"")


class Made:
    """wsgi.input: so many bytes, made as they are read, so that memory holds none of them."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.sha = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        piece = os.urandom(1) * min(size, self.left)
        self.left -= len(piece)
        self.sha.update(piece)
        return piece


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
@pytest.mark.parametrize("spool", [64 * MIB, 0], ids=["kept", "streamed"])
@pytest.mark.parametrize("size", [60_000, MIB, 20 * MIB])
def test_an_application_that_answers_while_it_reads_is_answered_whole(
    site: Site, unix: bool, spool: int, size: int
) -> None:
    site.configure(body_spool=spool, answer_timeout=60.0)
    data = os.urandom(size)
    with living(site, echo, unix=unix) as entry:
        site.publish(entry)
        began = time.monotonic()
        got = site.ask("POST", data)
        assert time.monotonic() - began < QUICK
        assert (got.status, got.body == data) == (200, True)
        assert site.adaptor.backends.load(entry).in_flight == 0
        assert site.ask("POST", b"the next one").body == b"the next one"


@pytest.mark.parametrize(
    "extra",
    [{"mod_wsgi.process_group": ""}, {"mod_wsgi.process_group": "d"}, {"wsgi.run_once": True}],
    ids=["embedded", "daemon", "cgi"],
)
def test_more_than_the_spool_holds_goes_both_ways_and_takes_no_memory(site: Site, extra: dict[str, Any]) -> None:
    site.configure(answer_timeout=60.0)
    made, sha = Made(100 * MIB), hashlib.sha256()
    with living(site, echo, unix=True) as entry:
        site.publish(entry)
        tracemalloc.start()
        with site.begin("POST", made, CONTENT_LENGTH=str(made.left), valid=False, **extra) as got:
            for block in got.blocks:
                sha.update(block)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (got.status, sha.hexdigest()) == (200, made.sha.hexdigest())
    assert peak < 8 * MIB


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_as_many_at_once_as_the_appserver_has_threads(site: Site, unix: bool) -> None:
    site.configure(answer_timeout=60.0)
    data = os.urandom(3 * MIB)
    right: list[bool] = []
    with living(site, echo, unix=unix, threads=8) as entry:
        site.publish(entry)
        threads = [
            threading.Thread(target=lambda: right.append(site.ask("POST", data).body == data)) for _ in range(8)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < QUICK
    assert right == [True] * 8


@pytest.mark.parametrize("status", ["200 OK", "409 Conflict"])
@pytest.mark.parametrize("framed", [True, False])
def test_an_answer_goes_out_before_the_rest_of_the_body_is_here(site: Site, status: str, framed: bool) -> None:
    """As under mod_wsgi: the visitor goes on when they have read the beginning of the answer."""
    site.configure(body_memory=1000, body_spool=0)
    begun, read = threading.Event(), threading.Event()

    class Waiting:
        """wsgi.input: a part when the application has begun to answer, the rest when the visitor has read that."""

        def __init__(self) -> None:
            self.waits = [begun, read]

        def read(self, size: int, /) -> bytes:
            if self.first:
                self.first = False
                return b"x" * 2000
            if not self.waits:
                return b""
            assert self.waits.pop(0).wait(PATIENCE)
            return b"x" * 2000

        first = True

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        length = [("Content-Length", "6006")] if framed else []
        start_response(status, [TEXT, *length])
        yield b"begun:"
        begun.set()
        while block := environ["wsgi.input"].read(1000):
            yield block

    with living(site, application, unix=True) as entry:
        site.publish(entry)
        with site.begin("POST", Waiting(), CONTENT_LENGTH="6000", valid=False) as got:
            blocks = iter(got.blocks)
            first = next(blocks)
            assert first.startswith(b"begun:")
            read.set()
            assert first + b"".join(blocks) == b"begun:" + b"x" * 6000
        assert f"{got.status} {got.reason}" == status


def test_an_application_that_reads_on_when_its_answer_is_complete_gets_the_whole_body(site: Site) -> None:
    site.configure(body_memory=1000, body_spool=0)
    read: list[int] = []
    over = threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "4")])
        yield b"done"
        read.append(len(environ["wsgi.input"].read()))
        over.set()

    with living(site, application, unix=True) as entry:
        site.publish(entry)
        for _ in range(2):
            assert site.ask("POST", b"x" * (2 * MIB)).body == b"done"
            assert over.wait(PATIENCE)
            over.clear()
    assert read == [2 * MIB] * 2


def test_an_answer_that_is_complete_is_not_held_up_by_a_slow_visitor(site: Site) -> None:
    """An error, and the visitor still sends: it is told at once."""
    site.configure(body_memory=1000, body_spool=0)

    class Endless:
        def __init__(self) -> None:
            self.reads = 0

        def read(self, size: int, /) -> bytes:
            self.reads += 1
            assert self.reads < 10_000, "the visitor is asked for ever"
            return b"x" * 5000

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("413 Content Too Large", [TEXT, ("Content-Length", "3")])
        return [b"no\n"]

    with living(site, application, unix=True) as entry:
        site.publish(entry)
        got = site.ask("POST", Endless(), CONTENT_LENGTH=str(1 << 40), valid=False)
        assert (got.status, got.body) == (413, b"no\n")


# Who takes nothing and says nothing.


@pytest.mark.parametrize("begin", [b"", answer(b"x", framing="Content-Length: 1000000")])
def test_an_appserver_that_neither_takes_nor_says_a_byte_is_silent(site: Site, serve: Serve, begin: bytes) -> None:
    site.configure(answer_timeout=0.3)
    done = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(begin)
        done.wait(PATIENCE)
        talk.close()

    site.publish_servers(serve(step))
    began = time.monotonic()
    with site.begin("POST", b"x" * (30 * MIB), valid=False) as got:
        if begin:
            with pytest.raises(Exception, match="no answer in time"):
                got.read()
        else:
            assert got.status == 504
    assert 0.3 <= time.monotonic() - began < PATIENCE
    done.set()


def test_an_appserver_is_not_silent_while_bytes_move_in_either_direction(site: Site, serve: Serve) -> None:
    """The body goes slowly, and in the end the answer comes: each pause is shorter than the limit, all are longer."""
    site.configure(answer_timeout=3.0)

    def step(talk: Talk) -> None:
        taken = len(talk.rest)
        for step in range(1, 7):
            time.sleep(0.55)  # it is what is tried here
            while taken < 4 * MIB * step:  # much more than the buffers of a connection hold
                taken += len(talk.connection.recv(MIB))
        while taken < 30 * MIB:
            taken += len(talk.connection.recv(MIB))
        talk.send(answer(b"done"))

    site.publish_servers(serve(step))
    assert site.ask("POST", b"x" * (30 * MIB)).body == b"done"


def test_a_visitor_who_leaves_while_the_answer_is_under_way_cuts_the_request(site: Site) -> None:
    site.configure(body_memory=1000, body_spool=0)
    failed: list[str] = []
    begun, read, over = (threading.Event() for _ in range(3))

    class Leaving:
        def __init__(self) -> None:
            self.pieces = [b"x" * 5000] * 3

        def read(self, size: int, /) -> bytes:
            if len(self.pieces) == 1:
                assert begun.wait(PATIENCE)
            if not self.pieces:
                assert read.wait(PATIENCE)
                raise OSError("Apache/mod_wsgi request data read error")
            return self.pieces.pop()

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        try:
            while block := environ["wsgi.input"].read(1000):
                yield block
                begun.set()
        except OSError as error:
            failed.append(str(error))
            raise
        finally:
            over.set()

    with living(site, application, unix=True) as entry:
        site.publish(entry)
        with site.begin("POST", Leaving(), CONTENT_LENGTH="900000", valid=False) as got:
            blocks = iter(got.blocks)
            assert next(blocks)
            read.set()
            with pytest.raises(VisitorGone, match="read error"):
                list(blocks)
        assert over.wait(PATIENCE)
        assert site.adaptor.backends.load(entry).in_flight == 0
    assert len(failed) == 1
