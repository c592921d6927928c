"""The application's answer in HTTP/1.1, as PEP 3333 and RFC 9112 want it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from lbadaptor.appserver.wsgi.answer import Answer, FileWrapper, Headers, LongLine, ShortAnswer
from lbadaptor.contract.headers import HOP_BY_HOP
from lbadaptor.http1.states import BODY, REQUEST

OWN = b"LB-Status: OK\r\n"
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Wire:
    """A caller, and what it got."""

    def __init__(
        self, method: str = "GET", keep_alive: bool = True, chunks: bool = True, complete: bool = True
    ) -> None:
        self.pieces: list[bytes] = []
        self.keep_alive = keep_alive
        self.state = REQUEST if complete else BODY
        self.released_at: list[int] = []
        """how many pieces were sent when the caller was released"""
        self.amend: Callable[[Headers, bool], Headers] = lambda headers, cookies: headers
        self.own: Callable[[], bytes] = lambda: OWN
        self.answer = Answer(
            self,
            method,
            chunks,
            lambda headers, cookies: self.amend(headers, cookies),
            lambda: self.own(),
            lambda caller: self.released_at.append(len(self.pieces)),
        )

    def send(self, data: bytes) -> None:
        self.pieces.append(data)

    def run(self, application: Application) -> tuple[str, list[str], bytes]:
        self.answer.run(application, {})
        return self.read()

    def read(self) -> tuple[str, list[str], bytes]:
        head, _, body = b"".join(self.pieces).partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        return status, lines, body


def app(
    blocks: Iterable[bytes], status: str = "200 OK", headers: Headers | None = None, write: Iterable[bytes] = ()
) -> Application:
    def application(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        put = start_response(status, headers or [])
        for data in write:
            put(data)
        return blocks

    return application


def test_one_block_is_sent_with_its_length_and_in_one_piece() -> None:
    wire = Wire()
    assert wire.run(app([b"hello"])) == ("HTTP/1.1 200 OK", ["Content-Length: 5", "LB-Status: OK"], b"hello")
    assert len(wire.pieces) == 1


def test_blocks_of_unknown_length_are_sent_as_chunks_each_at_once() -> None:
    wire = Wire()
    sent: list[int] = []

    def blocks() -> Iterator[bytes]:
        for block in (b"one", b"", b"four"):
            sent.append(len(wire.pieces))
            yield block

    _, lines, body = wire.run(app(blocks()))
    assert lines == ["Transfer-Encoding: chunked", "LB-Status: OK"]
    assert body == b"3\r\none\r\n4\r\nfour\r\n0\r\n\r\n"
    assert sent == [0, 1, 1]


def test_a_caller_that_knows_no_chunks_gets_the_body_until_the_connections_end() -> None:
    wire = Wire(chunks=False)
    _, lines, body = wire.run(app(iter([b"one", b"four"])))
    assert lines == ["Connection: close", "LB-Status: OK"]
    assert body == b"onefour"
    assert not wire.keep_alive


def test_the_applications_own_length_is_kept() -> None:
    wire = Wire()
    _, lines, body = wire.run(app(iter([b"one", b"four"]), headers=[("content-length", "7")]))
    assert lines == ["content-length: 7", "LB-Status: OK"]
    assert body == b"onefour"
    assert wire.keep_alive


def test_more_than_the_length_is_cut_off() -> None:
    wire = Wire()
    assert wire.run(app(iter([b"one", b"four", b"x"]), headers=[("Content-Length", "5")]))[2] == b"onefo"
    assert wire.keep_alive


@pytest.mark.parametrize("blocks", [[b"one"], [b"on", b"e"]])
def test_less_than_the_length_is_no_whole_answer(blocks: list[bytes]) -> None:
    wire = Wire()
    with pytest.raises(ShortAnswer, match="bytes shorter"):
        wire.run(app(blocks, headers=[("Content-Length", "5")]))
    assert not wire.answer.released


@pytest.mark.parametrize("blocks", [[], (), iter([]), iter([b"", b""])])
def test_nothing_of_a_length_can_be_a_500_still(blocks: Iterable[bytes]) -> None:
    wire = Wire()
    with pytest.raises(ShortAnswer, match="not one byte of 5"):
        wire.run(app(blocks, headers=[("Content-Length", "5")]))
    assert wire.pieces == []
    wire.answer.fail()
    assert wire.read()[0] == "HTTP/1.1 500 Internal Server Error"
    assert wire.answer.released


# Lines that the caller does not take.


def of(length: int, name: str = "X-Long") -> tuple[str, str]:
    """A header whose line has so many bytes."""
    return name, "x" * (length - len(name) - 2)


LONGEST = 100
TAKEN: dict[str, tuple[str, Headers]] = {
    "header": ("200 OK", [of(LONGEST)]),
    "the last header": ("200 OK", [("X-Short", "x"), of(LONGEST)]),
    "many headers": ("200 OK", [of(LONGEST, f"X-{number}") for number in range(5)]),
    "status line": ("200 " + "x" * (LONGEST - 1 - len("HTTP/1.1 200 ")), []),
}
REFUSED: dict[str, tuple[str, Headers, str, int]] = {
    "header": ("200 OK", [of(LONGEST + 1)], "header X-Long", LONGEST + 1),
    "the last header": ("200 OK", [("X-Short", "x"), of(LONGEST + 7)], "header X-Long", LONGEST + 7),
    "cookie": ("304 Not Modified", [of(LONGEST + 1, "Set-Cookie")], "header Set-Cookie", LONGEST + 1),
    "status line": ("200 " + "x" * (LONGEST - len("HTTP/1.1 200 ")), [], "status line", LONGEST),
}


@pytest.mark.parametrize("name", TAKEN)
def test_lines_as_long_as_the_caller_takes_them_are_sent(name: str) -> None:
    status, headers = TAKEN[name]
    wire = Wire()
    wire.answer.longest_line = LONGEST
    told, lines, _ = wire.run(app([b"ok"], status, headers))
    assert told == f"HTTP/1.1 {status}"
    assert lines == [*(f"{name}: {value}" for name, value in headers), "Content-Length: 2", "LB-Status: OK"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_longer_line_can_be_a_502_still(name: str, method: str) -> None:
    status, headers, line, length = REFUSED[name]
    wire = Wire(method)
    wire.amend = lambda headers, cookies: pytest.fail("a session began") if cookies else headers
    wire.answer.longest_line = LONGEST
    with pytest.raises(LongLine) as refused:
        wire.run(app([b"ok"], status, headers))
    error = refused.value
    assert (error.line, error.length, error.most) == (line, length, LONGEST - (line == "status line"))
    assert wire.pieces == []
    wire.answer.fail("502 Bad Gateway")
    status, _, body = wire.read()
    assert status == "HTTP/1.1 502 Bad Gateway"
    assert (b"Bad Gateway" in body) is (method == "GET")
    assert wire.answer.released


def test_a_line_of_any_length_is_sent_to_a_caller_who_says_no_limit() -> None:
    assert of(1 << 20)[1] in Wire().run(app([], headers=[of(1 << 20)]))[1][0]


# When the caller is released.


class Steps:
    """An iterable that writes down how often the caller was released before each of its steps, and its close()."""

    def __init__(self, wire: Wire, *blocks: bytes) -> None:
        self.wire = wire
        self.blocks = blocks
        self.seen: list[int] = []

    def __iter__(self) -> Iterator[bytes]:
        for block in self.blocks:
            self.seen.append(len(self.wire.released_at))
            yield block
        self.seen.append(len(self.wire.released_at))

    def close(self) -> None:
        self.seen.append(len(self.wire.released_at))


@pytest.mark.parametrize(
    ("method", "status", "headers", "chunks", "complete", "seen", "keep_alive"),
    [
        ("GET", "200 OK", [("Content-Length", "4")], True, True, [0, 0, 1, 1, 1], True),
        ("GET", "200 OK", [("Content-Length", "2")], True, True, [0, 1, 1, 1, 1], True),
        ("GET", "200 OK", [("Content-Length", "0")], True, True, [0, 1, 1, 1, 1], True),
        ("GET", "200 OK", [], True, True, [0, 0, 0, 0, 1], True),
        ("GET", "200 OK", [], False, True, [0, 0, 0, 0, 1], False),
        ("HEAD", "200 OK", [], True, True, [0, 1, 1, 1, 1], True),
        ("HEAD", "200 OK", [("Content-Length", "9")], True, True, [0, 1, 1, 1, 1], True),
        ("GET", "204 No Content", [], True, True, [0, 1, 1, 1, 1], True),
        ("GET", "304 Not Modified", [], True, True, [0, 1, 1, 1, 1], True),
        ("POST", "200 OK", [("Content-Length", "4")], True, False, [0, 0, 0, 0, 1], False),
        ("POST", "200 OK", [], True, False, [0, 0, 0, 0, 1], True),
        ("POST", "204 No Content", [], True, False, [0, 0, 0, 0, 1], False),
        ("HEAD", "200 OK", [], True, False, [0, 0, 0, 0, 1], False),
    ],
)
def test_the_caller_is_released_with_the_last_byte(
    method: str, status: str, headers: Headers, chunks: bool, complete: bool, seen: list[int], keep_alive: bool
) -> None:
    """Not when the iterable is exhausted, nor when it is closed; but for the body that it may still read."""
    wire = Wire(method, chunks=chunks, complete=complete)
    steps = Steps(wire, b"ab", b"cd", b"ef")
    _, lines, _ = wire.run(app(steps, status=status, headers=headers))
    assert steps.seen == seen
    assert (wire.keep_alive, "Connection: close" in lines) == (keep_alive, not keep_alive)
    assert wire.released_at == [len(wire.pieces)], "once, and nothing is sent afterwards"


@pytest.mark.parametrize("complete", [True, False])
def test_one_block_releases_the_caller_before_close(complete: bool) -> None:
    wire = Wire("POST", complete=complete)
    seen: list[int] = []

    class One(list[bytes]):
        def close(self) -> None:
            seen.append(len(wire.released_at))

    wire.run(app(One([b"hello"])))
    assert seen == [1]
    assert wire.keep_alive


def test_written_to_its_end_the_caller_is_released_within_the_application() -> None:
    wire = Wire()

    def application(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Length", "4")])
        write(b"ab")
        assert not wire.released_at
        write(b"cdef")
        assert wire.released_at
        write(b"no more")
        return [b"nor this"]

    assert wire.run(application)[2] == b"abcd"


def test_what_is_raised_after_the_last_byte_is_raised_to_the_caller() -> None:
    wire = Wire()

    def blocks() -> Iterator[bytes]:
        yield b"abcd"
        raise KeyError("late")

    with pytest.raises(KeyError):
        wire.run(app(blocks(), headers=[("Content-Length", "4")]))
    assert wire.answer.released
    assert wire.read()[2] == b"abcd"


@pytest.mark.parametrize("name", ["LB-Status", "lb-anything", "LB_Status", "lb_anything", "Lb_x-Y"])
def test_what_is_between_us_and_the_caller_is_not_the_applications_to_say(name: str) -> None:
    assert Wire().run(app([b"x"], headers=[(name, "DYING")]))[1] == ["Content-Length: 1", "LB-Status: OK"]


@pytest.mark.parametrize("blocks", [[], [b""], iter([]), iter([b"", b""]), ()])
def test_an_empty_answer_says_so(blocks: Iterable[bytes]) -> None:
    assert Wire().run(app(blocks)) == ("HTTP/1.1 200 OK", ["Content-Length: 0", "LB-Status: OK"], b"")


@pytest.mark.parametrize("blocks", [[b"hello"], iter([b"hel", b"lo"])])
@pytest.mark.parametrize("headers", [[], [("Content-Length", "5")]])
def test_head_has_no_body(blocks: Iterable[bytes], headers: Headers) -> None:
    wire = Wire("HEAD")
    _, lines, body = wire.run(app(blocks, headers=headers))
    assert body == b""
    assert "Transfer-Encoding: chunked" not in lines
    assert wire.keep_alive


def test_head_has_the_length_that_get_would_have() -> None:
    assert Wire("HEAD").run(app([b"hello"]))[1] == ["Content-Length: 5", "LB-Status: OK"]
    assert Wire("HEAD").run(app([], headers=[("Content-Length", "5")]))[1] == ["Content-Length: 5", "LB-Status: OK"]
    assert Wire("HEAD").run(app([]))[1] == ["LB-Status: OK"]


@pytest.mark.parametrize("blocks", [[], [b""], [b"wrong"], iter([b"wr", b"ong"])])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "204"])
def test_204_and_304_have_neither_body_nor_framing(blocks: Iterable[bytes], status: str) -> None:
    wire = Wire()
    _, lines, body = wire.run(app(blocks, status=status))
    assert (lines, body) == (["LB-Status: OK"], b"")
    assert wire.keep_alive


def test_204_has_no_length_and_304_keeps_it() -> None:
    headers = [("Content-Length", "5")]
    assert Wire().run(app([], status="204 No Content", headers=headers))[1] == ["LB-Status: OK"]
    assert Wire().run(app([], status="304 Not Modified", headers=headers))[1] == [
        "Content-Length: 5",
        "LB-Status: OK",
    ]


def test_write_sends_at_once_and_before_the_blocks() -> None:
    wire = Wire()
    assert (
        wire.run(app([b"last"], write=[b"first", b"", b"then"]))[2]
        == b"5\r\nfirst\r\n4\r\nthen\r\n4\r\nlast\r\n0\r\n\r\n"
    )
    assert wire.pieces[0].endswith(b"5\r\nfirst\r\n")


def test_a_generator_may_start_the_response_late() -> None:
    def application(_: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"late"

    assert Wire().run(application)[2] == b"4\r\nlate\r\n0\r\n\r\n"


def test_a_connection_that_ends_says_so() -> None:
    assert "Connection: close" in Wire(keep_alive=False).run(app([b"x"]))[1]


def test_a_status_without_reason_keeps_its_space() -> None:
    assert Wire().run(app([b"x"], status="299"))[0] == "HTTP/1.1 299 "


def test_a_reason_in_latin_1_arrives() -> None:
    assert Wire().run(app([b"x"], status="404 Nicht \xfcblich"))[0] == "HTTP/1.1 404 Nicht \xfcblich"


@pytest.mark.parametrize(
    "name", [*sorted(HOP_BY_HOP), "Transfer-Encoding", "LB-Status", "lb-load", "LB-REFUSED", "LB-Moved-To", "Lb-X"]
)
def test_an_application_cannot_set_what_is_the_gateways(name: str) -> None:
    _, lines, _ = Wire().run(app([b"x"], headers=[(name, "DYING"), ("X-A", "b")]))
    assert lines == ["X-A: b", "Content-Length: 1", "LB-Status: OK"]


@pytest.mark.parametrize(
    "status",
    [
        *("", "OK", "20 OK", "2000 OK", "200OK", " 200 OK", "200\r\nX: y", "200 OK\n", "200 O\0K", "200 O\x01K"),
        *("2\u0660\u0660 OK", "200 \u20ac", "100 Continue", "101 Switching Protocols", "099 X", "600 X"),
    ],
)
def test_a_wrong_status_is_the_applications_error(status: str) -> None:
    wire = Wire()
    with pytest.raises(ValueError, match="is no status"):
        wire.run(app([b"x"], status=status))
    assert wire.pieces == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("X A", "x"),
        ("X:", "x"),
        ("X\r\nY", "x"),
        ("\xdcber", "x"),
        ("X", "a\r\nSet-Cookie: b=c"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "a\0b"),
        ("X", "\u20ac"),
        *(("Location", f"/to/{chr(code)}a") for code in (*range(9), *range(10, 32), 127)),
        *(("Location", f"\xe4\t{chr(code)}") for code in (1, 10, 13, 127)),
        *((f"X{sign}", "x") for sign in '()<>@,;:\\"/[]?={} \t\x7f\x80'),
    ],
)
def test_a_wrong_header_is_the_applications_error(name: str, value: str) -> None:
    wire = Wire()
    with pytest.raises(ValueError, match=r"is no header|may hold") as caught:
        wire.run(app([b"x"], headers=[("X-Good", "a"), (name, value)]))
    assert wire.pieces == []
    assert repr(name)[1:-1] in str(caught.value)


@pytest.mark.parametrize("value", ["", "a\tb", "\x80\xff", "\xa0", " a ", "~!%"])
def test_what_a_header_may_hold_arrives_as_it_is(value: str) -> None:
    wire = Wire()
    wire.run(app([b"x"], headers=[("X-A", value), ("X-B", "b")]))
    assert f"\r\nX-A: {value}\r\nX-B: b\r\n".encode("latin-1") in b"".join(wire.pieces)


@pytest.mark.parametrize("values", [["-5"], ["five"], [""], ["1_000"], ["5 "], ["\xb2"], ["5", "6"], ["9" * 19]])
def test_a_wrong_content_length_is_the_applications_error(values: list[str]) -> None:
    wire = Wire()
    with pytest.raises(ValueError, match="Content-Length is"):
        wire.run(app([b"x"], headers=[("Content-Length", value) for value in values]))
    assert wire.pieces == []


@pytest.mark.parametrize("headers", [[(b"X", "a")], [("X", b"a")], [("X", 1)], [("X", None)], [("X",)]])
def test_headers_that_are_no_text_are_the_applications_error(headers: Any) -> None:
    wire = Wire()
    with pytest.raises((TypeError, ValueError)):
        wire.run(app([b"x"], headers=headers))
    assert wire.pieces == []


def test_start_response_must_be_called() -> None:
    with pytest.raises(AssertionError, match="not called"):
        Wire().run(lambda *_: [b"x"])


def test_start_response_twice_needs_exc_info() -> None:
    wire = Wire()
    wire.answer.start_response("200 OK", [])
    with pytest.raises(AssertionError, match="twice"):
        wire.answer.start_response("200 OK", [])


def test_exc_info_replaces_an_answer_that_has_not_begun() -> None:
    def application(_: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-A", "b")])
        try:
            raise KeyError("x")
        except KeyError:
            start_response("500 Oops", [], sys.exc_info())
        return [b"sorry"]

    assert Wire().run(application) == ("HTTP/1.1 500 Oops", ["Content-Length: 5", "LB-Status: OK"], b"sorry")


def test_exc_info_is_raised_when_the_answer_has_begun() -> None:
    def application(_: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"begun")
        try:
            raise KeyError("x")
        except KeyError:
            start_response("500 Oops", [], sys.exc_info())
        return []

    wire = Wire()
    with pytest.raises(KeyError):
        wire.run(application)
    assert wire.answer.begun
    assert not b"".join(wire.pieces).endswith(b"0\r\n\r\n")


class Blocks:
    """An iterable with close()."""

    def __init__(self, *blocks: Any) -> None:
        self.blocks = blocks
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for block in self.blocks:
            if isinstance(block, BaseException):
                raise block
            yield block

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("blocks", [Blocks(b"a", b"b"), Blocks()], ids=["some", "none"])
def test_close_is_called_after_the_last_block(blocks: Blocks) -> None:
    Wire().run(app(blocks))
    assert blocks.closed == 1


@pytest.mark.parametrize("blocks", [Blocks(b"a", KeyError()), Blocks(SystemExit()), Blocks("text"), Blocks(None, 1)])
def test_close_is_called_when_the_application_fails(blocks: Blocks) -> None:
    with pytest.raises((KeyError, SystemExit, TypeError)):
        Wire().run(app(blocks))
    assert blocks.closed == 1


def test_close_is_called_when_the_caller_is_gone() -> None:
    class Gone(Wire):
        def send(self, data: bytes) -> None:
            raise BrokenPipeError

    blocks = Blocks(b"a", b"b")
    with pytest.raises(BrokenPipeError):
        Gone().run(app(blocks))
    assert blocks.closed == 1


@pytest.mark.parametrize(
    ("headers", "blocks"),
    [([], ["text"]), ([], iter(["text"])), ([("Content-Length", "4")], ["text"])],
    ids=["one block", "chunks", "length"],
)
def test_fail_says_so_whatever_was_tried_before(headers: Headers, blocks: Iterable[Any]) -> None:
    wire = Wire()
    with pytest.raises(TypeError):
        wire.run(app(blocks, headers=headers))
    assert not wire.answer.begun
    wire.answer.fail()
    status, lines, body = wire.read()
    assert status == "HTTP/1.1 500 Internal Server Error"
    assert lines == ["Content-Type: text/html", f"Content-Length: {len(body)}", "LB-Status: OK"]
    assert b"Internal Server Error" in body


def test_fail_after_an_answer_without_body_has_a_body() -> None:
    calls: list[int] = []

    def fails_once() -> bytes:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError
        return OWN

    wire = Wire()
    wire.own = fails_once
    with pytest.raises(KeyError):
        wire.run(app(iter([]), status="204 No Content"))
    wire.answer.fail()
    assert b"Internal Server Error" in wire.read()[2]


def test_fail_has_no_body_for_head() -> None:
    wire = Wire("HEAD")
    wire.answer.fail()
    assert wire.read()[2] == b""


def test_bytearray_and_memoryview_are_bytes_enough() -> None:
    blocks: Any = [bytearray(b"ab"), memoryview(b"cd")]
    assert Wire().run(app(blocks))[2] == b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"


def test_the_headers_are_amended_once() -> None:
    seen: list[Headers] = []

    def amend(headers: Headers, cookies: bool) -> Headers:
        seen.append(headers)
        return [*headers, ("Set-Cookie", "ticket")]

    wire = Wire()
    wire.amend = amend
    _, lines, _ = wire.run(app(iter([b"a", b"b"]), headers=[("X-A", "b")]))
    assert seen == [[("X-A", "b")]]
    assert lines[:2] == ["X-A: b", "Set-Cookie: ticket"]


def test_a_file_is_sent_in_blocks_and_closed() -> None:
    file = io.BytesIO(b"0123456789")
    wrapper = FileWrapper(file, 4)
    assert list(wrapper) == [b"0123", b"4567", b"89"]
    wrapper.close()
    assert file.closed


def test_a_file_without_close_needs_none() -> None:
    class Source:
        def read(self, size: int) -> bytes:
            return b""

    source: Any = Source()
    wrapper = FileWrapper(source)
    assert list(wrapper) == []
    wrapper.close()
