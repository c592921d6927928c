"""Whether the application sets the session cookie: what is counted, remembered, and said."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from lbadaptor.appserver.sessions import cookie_check
from lbadaptor.appserver.sessions.cookie_check import ENOUGH, LONGEST_NAME, MOST_NAMES, CookieCheck, doubt
from lbadaptor.appserver.sessions.cookies import Sessions, Visit
from lbadaptor.appserver.sessions.table import SessionTable


@pytest.fixture
def check() -> CookieCheck:
    return CookieCheck("sid")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_enough_answers_without_the_session_cookie_are_a_warning_once(
    check: CookieCheck, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(ENOUGH - 1):
        check.saw(["session"] if number % 2 else ["csrftoken", "session"])
    assert warnings(caplog) == []
    for _ in range(3 * ENOUGH):
        check.saw(["session"])
    (warning,) = warnings(caplog)
    assert f"in {ENOUGH} answers that set cookies none was `sid`; the application sets: csrftoken, session" in warning
    assert 'session_cookie = "sid" may be wrong' in warning


def test_answers_that_set_no_cookie_say_nothing(check: CookieCheck, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2 * ENOUGH):
        check.saw([])
    nothing = {"name": "sid", "session": False, "answers": 0, "others": [], "framework": [], "refused": ""}
    assert check.report() == nothing
    assert warnings(caplog) == []


def test_once_the_session_cookie_was_set_there_is_no_doubt(
    check: CookieCheck, caplog: pytest.LogCaptureFixture
) -> None:
    check.saw(["csrftoken"])
    check.saw(["csrftoken", "sid"])
    for _ in range(2 * ENOUGH):
        check.saw(["csrftoken"])
    assert check.settled
    assert check.answers == 2
    assert warnings(caplog) == []


def test_a_session_cookie_that_comes_after_the_warning_takes_it_back(
    check: CookieCheck, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(ENOUGH):
        check.saw(["csrftoken"])
    check.saw(["sid"])
    assert warnings(caplog)[1:] == ["the session cookie `sid` was set after all"]


@pytest.mark.parametrize("name", ["SID", "sid2", "xsid"])
def test_a_cookies_name_is_case_sensitive_and_whole(check: CookieCheck, name: str) -> None:
    check.saw([name])
    assert not check.settled
    assert check.others == [name]


def test_what_is_remembered_is_bounded(check: CookieCheck) -> None:
    check.saw(["x" * (LONGEST_NAME + 1), "odd name", "\x1b[31m"])
    assert check.others == []
    for number in range(10 * MOST_NAMES):
        check.saw([f"name{number}"])
    assert check.others == [f"name{number}" for number in range(MOST_NAMES)]


def test_without_a_session_cookie_nothing_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    check = CookieCheck("")
    for _ in range(2 * ENOUGH):
        check.saw(["a"])
    assert check.answers == 0
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("answers", "others", "framework", "said"),
    [
        (0, [], [], ""),
        (1, ["a"], [], "in 1 answer that set cookies none was `sid`; the application sets: a"),
        (3, [], [], "the application sets: cookies of odd names"),
        (0, [], ["session"], "its framework names its session cookie `session`"),
        (
            2,
            ["a", "b"],
            ["session"],
            "`session`; in 2 answers that set cookies none was `sid`; the application sets: a, b",
        ),
    ],
)
def test_what_is_said(answers: int, others: Sequence[str], framework: Sequence[str], said: str) -> None:
    text = doubt("sid", answers, others, framework)
    assert said in text
    assert bool(text) is bool(said)


# As the sessions feed it.


def visit(check: CookieCheck) -> Visit:
    sessions = Sessions("sid", "__PRT__", "ticket", SessionTable(1800.0), lambda: 0.0, lambda: 0.0, check)
    return Visit(sessions, [], held=False, fields={})


def test_the_sessions_show_it_all_cookies_of_an_answer(check: CookieCheck) -> None:
    visit(check).answered(
        [("Set-Cookie", "a=1; Path=/"), ("X", "sid=1"), ("set-cookie", "b=2"), ("Set-Cookie", "odd")]
    )
    assert (check.answers, check.others, check.settled) == (1, ["a", "b"], False)
    visit(check).answered([("Set-Cookie", "colour=sid")])
    assert not check.settled
    visit(check).answered([("Set-Cookie", "sid=; Max-Age=0")])
    assert check.settled, "an application that deletes it knows its name"


def test_after_many_answers_only_the_session_cookie_is_looked_for(
    check: CookieCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cookie_check, "MOST_ANSWERS", 2)
    for name in ("a", "b", "c"):
        visit(check).answered([("Set-Cookie", f"{name}=1")])
    assert (check.answers, check.others) == (2, ["a", "b"])
    visit(check).answered([("Set-Cookie", "d=1"), ("Set-Cookie", "sid=1")])
    assert check.settled


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("sid=1; SameSite=None", True),
        ("sid=1; Path=/; samesite = none ; HttpOnly", True),
        ("sid=1; SameSite=None; Secure", False),
        ("sid=1; Secure; SameSite=None", False),
        ("sid=1; SameSite=Lax", False),
        ("sid=1", False),
        ("other=1; SameSite=None", False),
    ],
)
def test_a_session_cookie_that_browsers_refuse_is_told(check: CookieCheck, line: str, refused: bool) -> None:
    visit(check).answered([("Set-Cookie", line)])
    assert check.report()["refused"] == ("it has SameSite=None without Secure" if refused else "")


@pytest.mark.parametrize("word", ["begin", "end"])
def test_an_application_that_says_it_itself_is_not_doubted(check: CookieCheck, word: str) -> None:
    one = visit(check)
    getattr(one, word)()
    one.answered([("Set-Cookie", "a=1")])
    assert check.settled
