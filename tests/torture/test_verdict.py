"""The rules: each violation is found in records that were written for it, and what the design allows is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from .__main__ import error_log
from .evidence import Cause, Evidence, GaveUp
from .records import Counted, Fault, Limits, Logged, Name, Outcome, Process, Records, Said, Sample, Seen, Told, Visit
from .report import RULE_NAMES, report
from .verdict import RULES, judge

ONE, TWO = Name(0, 1001), Name(1, 1002)
PIDS = {ONE: Process(11, 5), TWO: Process(12, 6)}
MB = 2**20

Change = Callable[[Records], object]


def told(appserver: Name = ONE, **more: Any) -> Told:
    return Told(
        **{"name": "r", "process": PIDS.get(appserver), "appserver": appserver, "lost": False, "good": True, **more}
    )


def visit(at: float, name: str = "r", **more: Any) -> Visit:
    """A GET with a session at ONE, answered at that time, after a tenth of a second."""
    good = {
        "name": name,
        "client": "v",
        "method": "GET",
        "page": "visit",
        "began": at - 0.1,
        "ended": at,
        "outcome": Outcome.ANSWERED,
        "status": 200,
        "port": 5000,
        "told": told(sid="s", count=2),
        "brought": "s",
        "holder": told(sid="s", count=2),
        "told_at": at - 1,
        "asked_at": more.get("told_at", at - 1) - 0.1,
        "least": 2,
        "most": 2,
    }
    return Visit(**{**good, **more})


def moved(at: float = 50.0, **more: Any) -> Visit:
    """A visit whose session is gone, as the answer of TWO says."""
    return visit(at, told=told(TWO, sid="t", new=True, lost=True), **more)


def failed(at: float, status: int, **more: Any) -> Visit:
    return visit(at, status=status, told=None, **more)


def log(at: float, text: str, port: int = 5000) -> Logged:
    return Logged(at, f"lbadaptor: {text}", port)


def post(at: float, name: str, **more: Any) -> Visit:
    return visit(at, name, method="POST", least=3, most=3, **{"told": told(sid="s", count=3), **more})


def good() -> Records:
    """A hundred seconds without an error; slots 0 and 1 are OK, and each AppServer has given an answer."""
    records = Records(Limits(failing=2.0, hung=4.0, wait=5.0, idle=25.0), 2, began=0.0, ended=100.0)
    records.quiet, records.strength = 90.0, 1.0
    records.visits = [visit(10.0), visit(11.0, told=told(TWO, sid="u", new=True), brought="", holder=None)]
    records.visits.append(post(12.0, "p"))
    records.executed = [("p", 11)]
    records.tables = [Seen(0.0, 1, {ONE: "OK", TWO: "OK"})]
    records.said = [
        Said(1.0, f"lbmonitor: slot {name.slot} starts: pid {PIDS[name].pid}, 127.0.0.1:1") for name in PIDS
    ]
    records.samples = [
        Sample(at, role, Process(1, 1), 30 * MB, 20)
        for at in (5.0, 30.0, 60.0, 95.0)
        for role in ("arbiter", "httpd child")
    ]
    return records


def table(records: Records, at: float, **states: str) -> None:
    names = {"one": ONE, "two": TWO, "reborn": Name(0, 1003)}
    seen = Seen(at, records.tables[-1].serial + 1, {names[name]: state for name, state in states.items()})
    records.tables.append(seen)


def kill(records: Records, at: float, *names: Name) -> None:
    records.faults += [Fault(at, "kill", PIDS[name], name.slot) for name in names]


def stop(records: Records, at: float, seconds: float, name: Name = ONE) -> None:
    records.faults.append(Fault(at, "stop", PIDS[name], name.slot, until=at + seconds))


def with_visits(*visits: Visit) -> Change:
    return lambda records: records.visits.extend(visits)


def with_error(at: float, status: int, why: str, method: str = "GET", **more: Any) -> Change:
    """A 5xx, and its line in the error log."""

    def change(records: Records) -> None:
        records.visits.append(failed(at, status, method=method, **more))
        records.logged.append(log(at, f"{status} {method}: {why}"))

    return change


def with_left(*left: str) -> Change:
    return lambda records: records.left.extend(left)


def both(*changes: Change) -> Change:
    return lambda records: [change(records) for change in changes]


def surviving(mode: str, change: Change) -> Change:
    return lambda records: (setattr(records, "survive", mode), change(records))


def no_answer(at: float, name: str = "q", **more: Any) -> Visit:
    return post(at, name, told=None, status=0, outcome=Outcome.STALE, **more)


def unheard(at: float, page: str) -> Visit:
    """A POST whose answer the visitor has not read."""
    return post(at, "q", page=page, told=None, outcome=Outcome.LEFT)


def again(at: float, **more: Any) -> Visit:
    return visit(at, page="peek", ended_session=True, **more)


def counted(records: Records, *names: str) -> None:
    """Each of these POSTs got the same number in the session."""
    records.counted += [Counted(name, 11, "s", 3) for name in names]


def full(records: Records, at: float) -> None:
    """The sessions' folder is full for a second."""
    records.faults.append(Fault(at, "fill sessions", until=at + 1.0))


def stop_all(records: Records, at: float) -> None:
    records.faults.append(Fault(at, "stop and start"))


NO_EFFECT = 'AppServer 0: survive = "anything" has no effect: trouble'
NO_EFFECT_IN_TWO = NO_EFFECT.replace("AppServer 0", "AppServer 1")
ASIDE = "AppServer 1: a session is lost, its file is set aside: 3 AppServers have died while it was at work"
LOST = "connection lost before the first byte of the answer"
DIED = f"AppServer {ONE}: {LOST}"
BUSY = f"AppServer {ONE}: refused: BUSY"
FAILING = f"AppServer {ONE}, which holds the session, is FAILING"
HUNG = "lbmonitor: slot 0 is hung and is ended"
NO_SLOT = "lbmonitor: slot 0 is ended with 4 sessions: no slot is free for the release"
TRACEBACK = "Traceback (most recent call last):"

VIOLATIONS: list[tuple[str, str, Change]] = [
    ("sessions", "nothing ended its holder", with_visits(moved())),
    ("sessions", "nothing ended its holder", lambda r: (kill(r, 50.5, ONE), r.visits.append(moved(50.0)))),
    ("sessions", "nothing ended its holder", lambda r: (kill(r, 40.0, TWO), r.visits.append(moved(50.0)))),
    ("sessions", "nothing ended its holder", lambda r: (stop(r, 40.0, 1.0), r.visits.append(moved(50.0)))),
    (
        "sessions",
        "nothing ended its holder",
        lambda r: (r.said.append(Said(60.0, NO_SLOT)), r.visits.append(moved(50.0))),
    ),
    (
        "sessions",
        "no answer said `lost`",
        lambda r: (kill(r, 40.0, ONE), r.visits.append(visit(50.0, told=told(TWO, sid="t", new=True)))),
    ),
    (
        "sessions",
        "though its session is there",
        lambda r: (kill(r, 40.0, ONE), r.visits.append(visit(50.0, told=told(sid="s", lost=True, count=2)))),
    ),
    ("sessions", "counted 1, not 2 to 2", with_visits(visit(50.0, told=told(sid="s", count=1)))),
    ("sessions", "counted 4, not 2 to 3", with_visits(visit(50.0, told=told(sid="s", count=4), most=3))),
    ("sessions", "counted 1, not 0 to 0", with_visits(visit(50.0, told=told(new=True, count=1), brought=""))),
    ("sessions", "the session moved", with_visits(visit(50.0, told=told(TWO, sid="s", count=2)))),
    (
        "doubled",
        "the first one was answered",
        lambda r: (kill(r, 40.0, ONE), r.visits.append(post(50.0, "q")), counted(r, "q", "q2")),
    ),
    ("doubled", "nobody died in between", lambda r: (r.visits.append(no_answer(50.0, "q")), counted(r, "q", "q2"))),
    ("returns", "is back", with_visits(again(50.0, told=told(sid="s", count=2)))),
    *(
        (rule, words, surviving(mode, change))
        for mode in ("leaving", "anything")
        for rule, words, change in (
            ("sessions", "nothing ended its holder", with_visits(moved())),
            ("sessions", "nothing ended its holder", lambda r: (stop(r, 40.0, 1.0), r.visits.append(moved(50.0)))),
            ("sessions", "nothing ended its holder", lambda r: (stop_all(r, 40.0), r.visits.append(moved(50.0)))),
            ("sessions", "nothing ended its holder", lambda r: (full(r, 30.0), r.visits.append(moved(50.0)))),
            (
                "sessions",
                "nothing ended its holder",
                lambda r: (r.said.append(Said(49.0, NO_SLOT)), r.visits.append(moved(50.0))),
            ),
            ("sessions", "the session moved", with_visits(visit(50.0, told=told(TWO, sid="s", count=2)))),
            (
                "sessions",
                "counted 1, not 2 to 2",
                with_visits(visit(50.0, told=told(TWO, sid="s", count=1, moved=True))),
            ),
            (
                "sessions",
                "no answer said `lost`",
                lambda r: (full(r, 48.5), r.visits.append(visit(50.0, told=told(TWO, sid="t", new=True)))),
            ),
        )
    ),
    *(
        ("sessions", "nothing ended its holder", surviving("anything", change))
        for change in (
            lambda r: (kill(r, 49.5, ONE), r.visits.append(moved(50.0))),
            lambda r: (stop(r, 40.0, 8.0), r.said.append(Said(45.0, HUNG)), r.visits.append(moved(50.0))),
            lambda r: (kill(r, 49.5, ONE, TWO), r.said.append(Said(49.9, ASIDE)), r.visits.append(moved(50.0))),
            lambda r: (kill(r, 49.5, ONE), kill(r, 49.5, TWO), kill(r, 49.5, ONE), r.visits.append(moved(50.0))),
            lambda r: (r.visits.append(no_answer(49.5, page="visit")), r.visits.append(moved(50.0))),
            lambda r: (
                r.visits.append(unheard(40.0, "login")),
                r.executed.append(("q", 11)),
                r.visits.append(moved(50.0)),
            ),
            lambda r: (r.visits.append(unheard(49.5, "login")), r.visits.append(moved(50.0))),
            lambda r: (r.said.append(Said(2.0, NO_EFFECT_IN_TWO)), kill(r, 49.5, ONE), r.visits.append(moved(50.0))),
        )
    ),
    (
        "sessions",
        "nothing ended its holder",
        surviving("leaving", lambda r: (kill(r, 49.3, TWO), r.visits.append(moved(50.0, began=49.99)))),
    ),
    ("hangs", "stopped for 0.0 s at most", lambda r: r.said.append(Said(50.0, HUNG))),
    ("hangs", "stopped for 3.0 s at most", lambda r: (stop(r, 46.0, 3.0), r.said.append(Said(50.0, HUNG)))),
    ("posts", "p was executed more than once: 2", lambda r: r.executed.append(("p", 12))),
    ("posts", "never executed", with_visits(post(50.0, "q"))),
    (
        "posts",
        "executed, and its connection closed",
        lambda r: (
            r.executed.append(("q", 11)),
            r.visits.append(post(50.0, "q", told=None, status=0, outcome=Outcome.STALE)),
        ),
    ),
    ("errors", "nothing in the error log", with_visits(failed(50.0, 502))),
    ("errors", "which no visitor got", lambda r: r.logged.append(log(50.0, f"502 GET /page: {DIED}"))),
    ("errors", "nothing in the error log", both(with_error(50.0, 503, BUSY), with_visits(failed(80.0, 503)))),
    ("errors", "did not die under it", with_error(50.0, 502, DIED, method="POST")),
    ("errors", "did not die under it", lambda r: (kill(r, 50.0, TWO), with_error(50.0, 502, DIED, method="POST")(r))),
    ("errors", "only one AppServer died", lambda r: (kill(r, 50.0, ONE), with_error(50.0, 502, DIED)(r))),
    ("errors", "address.text never said so", with_error(50.0, 503, FAILING)),
    ("errors", "0.1001, 1.1002 were OK", with_error(50.0, 503, "no AppServer is available")),
    (
        "errors",
        "the spool folder was in order",
        with_error(50.0, 503, "no temporary file for a request's body: full"),
    ),
    ("errors", "the design has no such error", with_error(50.0, 504, f"AppServer {ONE}: no answer in time")),
    ("errors", "the design has no such error", with_error(50.0, 503, "key file: no such file")),
    ("errors", "status 421", with_visits(failed(50.0, 421))),
    ("errors", "nothing in the error log", with_visits(failed(50.0, 500))),
    (
        "connections",
        "nothing ended AppServer 0.1001",
        lambda r: (
            r.visits.append(visit(50.0, outcome=Outcome.CUT)),
            r.logged.append(log(50.0, "an answer broke off, the visitor's connection is cut: why")),
        ),
    ),
    (
        "connections",
        "nothing in the error log",
        lambda r: (kill(r, 50.0, ONE), r.visits.append(visit(50.0, outcome=Outcome.CUT))),
    ),
    (
        "connections",
        "its AppServer is not known",
        lambda r: (kill(r, 50.0, ONE), r.visits.append(visit(50.0, told=None, outcome=Outcome.CUT))),
    ),
    (
        "connections",
        "out of reach",
        lambda r: r.logged.append(log(50.0, "an answer broke off, the visitor's connection is out of reach: why")),
    ),
    *(
        ("connections", outcome.value, with_visits(visit(50.0, told=None, status=0, outcome=outcome)))
        for outcome in (Outcome.UNANSWERED, Outcome.NO_CONNECTION, Outcome.SILENT, Outcome.GARBLED)
    ),
    ("contents", "short: 1 of 2", with_visits(visit(50.0, wrong="short: 1 of 2 bytes, and looks whole"))),
    ("address_text", "half written", lambda r: r.tables.append(Seen(50.0, error="half written"))),
    ("address_text", "serial 1 after 1", lambda r: r.tables.append(Seen(50.0, 1, {ONE: "OK"}))),
    ("address_text", "0.1001 is back", lambda r: (table(r, 50.0, two="OK"), table(r, 60.0, one="OK", two="OK"))),
    (
        "address_text",
        "generation 1001 in two slots",
        lambda r: r.tables.append(Seen(50.0, 2, {ONE: "OK", Name(3, 1001): "OK"})),
    ),
    (
        "address_text",
        "belongs to two processes",
        with_visits(visit(50.0, told=told(process=Process(77, 7), sid="s", count=2))),
    ),
    (
        "sizes",
        "memory of arbiter grew",
        lambda r: r.samples.append(Sample(99.0, "arbiter", Process(1, 1), 45 * MB, 20)),
    ),
    (
        "sizes",
        "httpd child grew",
        lambda r: r.samples.append(Sample(99.0, "httpd child", Process(2, 2), 46 * MB, 20)),
    ),
    ("sizes", "open descriptors", lambda r: r.samples.append(Sample(99.0, "arbiter", Process(1, 1), MB, 61))),
    ("calm", "not at full strength", lambda r: setattr(r, "strength", None)),
    ("calm", "not at full strength", lambda r: setattr(r, "strength", 31.0)),
    ("calm", "503, after the fault injector", with_visits(failed(95.0, 503))),
    ("calm", "cut, after the fault injector", with_visits(visit(95.0, status=0, outcome=Outcome.CUT))),
    ("left_behind", "left behind: zombie 5", with_left("zombie 5")),
    ("left_behind", "the fault injector: trouble", lambda r: r.test_errors.append("the fault injector: trouble")),
    ("left_behind", "Traceback", lambda r: r.said.append(Said(50.0, TRACEBACK))),
    ("left_behind", "Traceback", lambda r: r.logged.append(Logged(50.0, TRACEBACK, 5000))),
    (
        "left_behind",
        "exit signal",
        lambda r: r.logged.append(Logged(50.0, "AH00052: child pid 7 exit signal Segmentation fault (11)")),
    ),
]


@pytest.mark.parametrize(("rule", "words", "change"), VIOLATIONS, ids=[f"{row[0]}: {row[1]}" for row in VIOLATIONS])
def test_a_violation_is_found(rule: str, words: str, change: Change) -> None:
    records = good()
    change(records)
    found = judge(records)[rule]
    assert len(found) == 1, found
    assert words in found[0]
    assert found[0] in report(records, judge(records))


ALLOWED: list[tuple[str, Change]] = [
    ("nothing happened", lambda r: None),
    ("killed, and the answer says so", lambda r: (kill(r, 49.95, ONE), r.visits.append(moved(50.0)))),
    (
        "hung, and the answer says so",
        lambda r: (stop(r, 40.0, 8.0), r.said.append(Said(45.0, HUNG)), r.visits.append(moved(50.0))),
    ),
    ("killed before the monitor called it hung", lambda r: (kill(r, 40.0, ONE), r.said.append(Said(45.0, HUNG)))),
    (
        "ended by a limit, and the answer says so",
        lambda r: (r.said.append(Said(49.0, NO_SLOT)), r.visits.append(moved(50.0))),
    ),
    ("idle for too long", with_visits(moved(50.0, told_at=20.0))),
    ("a logout of a lost session", lambda r: (kill(r, 49.0, ONE), r.visits.append(moved(50.0, page="logout")))),
    ("a POST without an answer counts or not", with_visits(visit(50.0, told=told(sid="s", count=3), most=3))),
    (
        "a POST under which its AppServer was killed",
        lambda r: (kill(r, 49.95, ONE), with_error(50.0, 502, DIED, method="POST")(r)),
    ),
    (
        "a POST under which its AppServer was ended as hung",
        lambda r: (
            stop(r, 42.0, 8.0),
            r.said.append(Said(48.0, HUNG)),
            r.said.append(Said(50.0, "lbmonitor: slot 0 (STOPPING) was ended by SIGKILL after 9 s")),
            with_error(50.0, 502, DIED, method="POST", began=43.0)(r),
        ),
    ),
    ("a GET under which two died", lambda r: (kill(r, 49.95, ONE, TWO), with_error(50.0, 502, DIED)(r))),
    (
        "a FAILING holder",
        lambda r: (table(r, 49.0, one="FAILING", two="OK"), with_error(50.0, 503, FAILING)(r)),
    ),
    ("a BUSY holder", with_error(50.0, 503, BUSY)),
    ("no AppServer is available", lambda r: (table(r, 44.0), with_error(50.0, 503, "no AppServer is available")(r))),
    (
        "no AppServer is available, though address.text does not say so yet",
        lambda r: (kill(r, 49.0, ONE, TWO), with_error(50.0, 503, "no AppServer is available")(r)),
    ),
    (
        "a full spool folder",
        lambda r: (
            r.faults.append(Fault(49.0, "fill spool", until=50.0)),
            with_error(50.0, 503, "no temporary file for a request's body: No such file", method="POST")(r),
        ),
    ),
    (
        "an answer that was cut with its AppServer",
        lambda r: (
            kill(r, 49.0, ONE),
            r.visits.append(visit(50.0, outcome=Outcome.CUT)),
            r.logged.append(log(50.0, "an answer broke off, the visitor's connection is cut: why")),
            r.logged.append(Logged(50.1, TRACEBACK, 5000)),
        ),
    ),
    ("a visitor who left", with_visits(visit(50.0, outcome=Outcome.LEFT))),
    ("an idle connection that closed", with_visits(post(50.0, "q", told=None, status=0, outcome=Outcome.STALE))),
    ("an ended session that stays so", with_visits(again(50.0, told=told(sid="s", new=True)))),
    (
        "a session that has counted what nobody heard of, and died",
        lambda r: (r.visits.append(no_answer(50.0)), kill(r, 50.0, ONE), counted(r, "q", "q2")),
    ),
    *(
        (f"{words}, {mode}", surviving(mode, change))
        for mode in ("leaving", "anything")
        for words, change in (
            ("moved, and the answer says so", with_visits(visit(50.0, told=told(TWO, sid="s", count=2, moved=True)))),
            (
                "moved, which an answer that was lost has told",
                with_visits(no_answer(49.5), visit(50.0, told=told(TWO, sid="s", count=2))),
            ),
            (
                "moved, as a request told that was sent at once with this one",
                with_visits(visit(50.0, told=told(TWO, sid="s", count=2), together=True)),
            ),
            (
                "a login whose answer was lost",
                lambda r: (
                    r.visits.append(unheard(49.5, "login")),
                    r.executed.append(("q", 11)),
                    r.visits.append(visit(50.0, told=told(TWO, sid="t", new=True))),
                ),
            ),
            ("the folder was full", lambda r: (full(r, 48.5), kill(r, 49.5, ONE), r.visits.append(moved(50.0)))),
            (
                "the folder was full at a request without an answer",
                lambda r: (
                    full(r, 45.0),
                    r.visits.append(no_answer(46.0)),
                    kill(r, 47.0, ONE),
                    r.visits.append(moved(50.0, told_at=43.0)),
                ),
            ),
            (
                "an AppServer that can keep no sessions",
                lambda r: (r.said.append(Said(12.0, NO_EFFECT)), kill(r, 49.5, ONE), r.visits.append(moved(50.0))),
            ),
            (
                "three AppServers died under it",
                lambda r: (
                    kill(r, 49.2, ONE),
                    kill(r, 49.5, TWO),
                    kill(r, 49.8, ONE),
                    r.said.append(Said(50.0, ASIDE)),
                    r.visits.append(moved(50.0)),
                ),
            ),
            ("idle for too long", with_visits(moved(50.0, told_at=20.0))),
        )
    ),
    (
        "killed with what it held",
        surviving("leaving", lambda r: (kill(r, 49.5, ONE), r.visits.append(moved(50.0)))),
    ),
    (
        "ended as hung with what it held",
        surviving(
            "leaving",
            lambda r: (
                stop(r, 42.0, 8.0),
                r.said.append(Said(49.5, "lbmonitor: slot 0 (STOPPING) was ended by SIGKILL after 9 s")),
                r.visits.append(moved(50.0)),
            ),
        ),
    ),
    (
        "killed after a take-over",
        surviving(
            "leaving",
            lambda r: (r.visits.append(no_answer(49.5)), kill(r, 49.5, TWO), r.visits.append(moved(50.0))),
        ),
    ),
    ("a slot's next generation", lambda r: (table(r, 50.0, two="OK"), table(r, 51.0, reborn="OK", two="OK"))),
    (
        "a process that is a fifth larger",
        lambda r: r.samples.append(Sample(99.0, "arbiter", Process(1, 1), 36 * MB, 50)),
    ),
]


@pytest.mark.parametrize("change", [row[1] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_what_the_design_allows_is_no_violation(change: Change) -> None:
    records = good()
    change(records)
    assert {rule: found for rule, found in judge(records).items() if found} == {}


def test_every_rule_has_a_violation_and_a_name() -> None:
    rules = {rule.__name__ for rule in RULES}
    assert {row[0] for row in VIOLATIONS} == rules == RULE_NAMES.keys()


@pytest.mark.parametrize(
    ("status", "why", "cause"),
    [
        (502, f"AppServer 0.1: {LOST}: Connection reset by peer", Cause.DIED),
        (502, "AppServer 0.1: connection lost within the answer, nothing passed on: missing bytes: 5", Cause.DIED),
        (502, "AppServer 0.1: the answer is not HTTP", Cause.OTHER),
        (503, "AppServer 0.1, which holds the session, is FAILING", Cause.FAILING),
        (503, "AppServer 0.1: refused: BUSY: 0.1", Cause.BUSY),
        (503, "AppServer 0.1: connect timed out", Cause.BUSY),
        (503, "no AppServer is available, and enough requests wait for one", Cause.NONE_AVAILABLE),
        (503, "keeping a request's body: No space left on device", Cause.SPOOL),
        (503, "AppServer 0.1: our own shortage", Cause.OTHER),
        (504, "AppServer 0.1: no answer in time", Cause.SILENT),
    ],
)
def test_the_cause_of_an_error_is_what_the_log_says(status: int, why: str, cause: Cause) -> None:
    assert GaveUp(log(0.0, ""), status, "GET", why).cause is cause


def test_an_error_is_paired_with_the_log_line_of_its_own_connection() -> None:
    records = good()
    records.visits += [failed(50.0, 502, port=1), failed(50.0, 502, port=2)]
    records.logged += [log(50.0, "502 GET: two", 2), log(50.0, "502 GET: one", 1), log(70.0, "502 GET: late", 1)]
    pairs, silent, on_nothing = Evidence(records).pairs
    assert [(seen.port, word.why) for seen, word in pairs] == [(1, "one"), (2, "two")]
    assert silent == []
    assert [word.why for word in on_nothing] == ["late"]


def test_a_line_of_the_monitor_is_about_the_appserver_that_was_in_the_slot() -> None:
    records = good()
    reborn = Name(0, 1003)
    records.visits.append(visit(70.0, told=told(reborn, process=Process(13, 7), sid="w", new=True), brought=""))
    records.said = [*records.said, Said(50.0, HUNG), Said(60.0, "lbmonitor: slot 0 starts: pid 13, 127.0.0.1:1")]
    records.said += [Said(61.0, HUNG), Said(71.0, HUNG)]
    found = {said.at: name for said, _, _, name in Evidence(records).of_appservers if said.text == HUNG}
    assert found == {50.0: ONE, 61.0: None, 71.0: reborn}


def test_a_death_is_counted_once() -> None:
    records = good()
    kill(records, 50.0, ONE)
    records.said.append(Said(50.1, "lbmonitor: slot 0 (OK) was ended by SIGKILL after 9 s"))
    assert Evidence(records).deaths == [(50.0, 0, ONE)]
    unknown = replace(records, visits=[])
    assert [death[:2] for death in Evidence(unknown).deaths] == [(50.0, 0)]


def test_a_death_by_the_monitor_is_counted_once_though_no_answer_named_the_process() -> None:
    records = replace(good(), visits=[])
    records.said.append(Said(50.0, "lbmonitor: slot 0 does not exit: SIGKILL"))
    records.said.append(Said(50.1, "lbmonitor: slot 0 (STOPPING) was ended by SIGKILL after 9 s"))
    assert Evidence(records).deaths == [(50.0, 0, None)]


def test_the_error_log_is_read() -> None:
    lines = error_log(
        "[Mon Nov 23 01:26:25.500000 2026] [wsgi:error] [pid 1:tid 2] [client 127.0.0.1:591] lbadaptor: 502 GET: x\n"
        "  its second line\n"
        "[Mon Nov 23 01:26:26.000000 2026] [mpm_event:notice] [pid 1:tid 1] AH00491: caught SIGTERM, shutting down\n"
    )
    assert [line.port for line in lines] == [591, 0, 0]
    assert lines[0].text == "lbadaptor: 502 GET: x"
    assert lines[1] == Logged(lines[0].at, "  its second line")
    assert lines[2].at - lines[0].at == 0.5
