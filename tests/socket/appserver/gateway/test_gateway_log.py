"""What Apache asks of an AppServer for its log, and the request's id, in a real gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from gateway_stage import ASSIGNMENT, Serve, head, hello, seen, until


def fails(environ: dict[str, Any], start_response: Any) -> NoReturn:
    raise ValueError("on purpose")


def test_how_long_it_took_is_told_only_where_apache_asks(serve: Serve) -> None:
    caller = serve(hello).caller()
    for variables in (None, "", "SSL-TLS-SNI", "LB-Time", "LB-Time SSL-TLS-SNI"):
        lb = {} if variables is None else {"Variables": variables}
        for _ in range(2):  # the second one is read by the cache
            reply = caller.ask(head(**lb))
            assert reply.status == 200
            if variables and "LB-Time" in variables:
                assert 0 < int(reply.headers["LB-Time"]) < 10_000_000
            else:
                assert "LB-Time" not in reply.headers
            assert "LB-Time" not in caller.ask(head(Time="1", Var_LB_TIME="1")).headers


@pytest.mark.parametrize("given", ["Z1a@b-c", "x" * 128])
def test_the_application_finds_the_id(serve: Serve, given: str) -> None:
    for method in ("GET", "POST"):
        found = json.loads(serve(seen).ask(head(method, "/", "Content-Length: 0", Request_Id=given)).body)
        assert found["lbadaptor.request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a%41", "(null)", '"'])
def test_what_is_no_id_is_dropped(serve: Serve, given: str) -> None:
    found = json.loads(serve(seen).ask(head(Request_Id=given)).body)
    assert "lbadaptor.request_id" not in found
    assert "HTTP_LB_REQUEST_ID" not in found


def test_the_line_about_a_failure_has_the_id(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    harness = serve(fails)
    assert harness.ask(head(Request_Id="Z1a")).status == 500
    assert harness.ask(head()).status == 500
    told = [record.getMessage() for record in caplog.records]
    assert told == ["GET /app/page (Z1a): the application failed", "GET /app/page: the application failed"]


def test_each_request_has_a_line_in_the_access_log(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    assignment = msgspec.structs.replace(ASSIGNMENT, access_log=str(path))
    answers = iter([hello, fails, hello])
    harness = serve(lambda *call: next(answers)(*call), assignment=assignment)
    for number in range(2):
        harness.ask(head(Request_Id=f"id{number}"))
    harness.ask(head(Generation="16", Request_Id="refused"))
    harness.ask(head(Request_Id="id2"))
    until(lambda: path.read_text().count("\n") == 3)
    # The line of a request may come after its answer, and so after that of the next one.
    lines = sorted(path.read_text().splitlines(), key=lambda line: line.partition(" id=")[2])
    assert [line.split('"')[2].split()[0] for line in lines] == ["200", "500", "200"]
    assert [f" id=id{number} us=" in line for number, line in enumerate(lines)] == [True] * 3


def test_a_log_that_cannot_be_written_disturbs_no_request(serve: Serve) -> None:
    assignment = msgspec.structs.replace(ASSIGNMENT, access_log="/dev/full")
    harness = serve(hello, assignment=assignment)
    caller = harness.caller()
    assert [caller.ask(head()).status for _ in range(3)] == [200] * 3
    assert harness.still_serves()
