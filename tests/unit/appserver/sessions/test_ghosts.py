"""A browser with a session counts as one session, whatever it sends in parallel and whatever arrives first; and what
it has kept is always known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from lbadaptor.appserver.sessions.cookies import Sessions, Visit
from lbadaptor.appserver.sessions.table import MAX_VALUES_OF_SESSION, OVERLAP, SessionTable

IDLE = 3600.0
HOST = "www.example"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Browser:
    """It keeps cookies as RFC 6265 §5.3 has it, and gets an answer when the test says so."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.jar: dict[tuple[str, str], str] = {}

    def brought(self, uri: str = "/") -> list[str]:
        return [value for (_, path), value in self.jar.items() if uri.startswith(path)]

    def ask(self, *cookies: str, uri: str = "/") -> Callable[[], None]:
        """A request, and its answer at the AppServer; what is returned lets it arrive here."""
        visit = Visit(self._sessions, self.brought(uri), False, {"HTTP_HOST": HOST, "REQUEST_URI": uri})
        assert visit.known or not self.jar, "the session was forgotten"
        visit.answered([("Set-Cookie", cookie) for cookie in cookies])

        def arrive() -> None:
            for cookie in cookies:
                pair, *attributes = cookie.split("; ")
                value = pair.partition("=")[2]
                path = next((text[5:] for text in attributes if text.startswith("Path=")), "/")
                self.jar.pop((HOST, path), None)
                if "Max-Age=0" not in attributes:
                    self.jar[HOST, path] = value

        return arrive


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table() -> SessionTable:
    return SessionTable(IDLE)


@pytest.fixture
def sessions(table: SessionTable, clock: Clock) -> Sessions:
    return Sessions("sid", "__PRT__", "ticket", table, clock, lambda: 0.0)


@pytest.fixture
def fresh() -> Iterator[str]:
    """Set-Cookie, another value each time."""
    return (f"sid=v{number}; Path=/" for number in itertools.count())


LOGOUT = "sid=; Path=/; Max-Age=0"


@pytest.mark.parametrize("last", [0, 1, 2])
def test_three_requests_in_parallel_five_times_are_one_session(
    sessions: Sessions, table: SessionTable, clock: Clock, fresh: Iterator[str], last: int
) -> None:
    browser = Browser(sessions)
    browser.ask(next(fresh))()
    for _ in range(5):
        answers = [browser.ask(next(fresh)) for _ in range(3)]
        answers.append(answers.pop(last))
        for arrive in answers:
            arrive()
        assert table.count(clock()) == 1
        clock.now += 10 * OVERLAP
    browser.ask(LOGOUT)()
    assert table.count(clock()) == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_arrives_when_there_is_one_session_and_it_is_known(
    sessions: Sessions, table: SessionTable, clock: Clock, fresh: Iterator[str], seed: int
) -> None:
    chance = random.Random(seed)
    browser = Browser(sessions)
    browser.ask(next(fresh))()
    under_way: list[Callable[[], None]] = []
    for _ in range(300):
        if under_way and chance.random() < 0.5:
            under_way.pop(chance.randrange(len(under_way)))()
        elif len(under_way) < 6:
            under_way.append(browser.ask(*([next(fresh)] if chance.random() < 0.7 else [])))
        clock.now += 0.1
        if not under_way:
            clock.now += chance.choice((1.0, OVERLAP, IDLE - 100))
        assert table.count(clock()) == 1
    for arrive in under_way:
        arrive()
    browser.ask(LOGOUT)()
    assert table.count(clock()) == 0


def test_an_answer_that_never_arrives_costs_no_session(
    sessions: Sessions, table: SessionTable, clock: Clock, fresh: Iterator[str]
) -> None:
    browser = Browser(sessions)
    browser.ask(next(fresh))()
    browser.ask(next(fresh))
    clock.now += 2 * OVERLAP
    browser.ask()
    assert table.count(clock()) == 1


def test_a_login_is_followed_by_parallel_requests_with_the_value_before(
    sessions: Sessions, table: SessionTable, clock: Clock
) -> None:
    browser = Browser(sessions)
    browser.ask("sid=before; Path=/")()
    login = browser.ask("sid=after; Path=/")
    slow = [browser.ask() for _ in range(3)]
    login()
    browser.ask()
    for arrive in slow:
        arrive()
    assert table.count(clock()) == 1
    assert table.use(["before"], clock())
    clock.now += OVERLAP - 1
    browser.ask()
    assert table.use(["before"], clock())
    clock.now += OVERLAP
    browser.ask()
    assert not table.use(["before"], clock())
    browser.ask()


@pytest.mark.parametrize("others", [0, 1, 2, 5])
@pytest.mark.parametrize("deleted_last", [False, True])
def test_a_logout_in_one_of_several_parallel_requests(
    sessions: Sessions, table: SessionTable, clock: Clock, fresh: Iterator[str], others: int, deleted_last: bool
) -> None:
    """Whether the browser has a session left depends on what arrives last; it is never more than one."""
    browser = Browser(sessions)
    browser.ask(next(fresh))()
    tellers = [LOGOUT, *itertools.islice(fresh, others)]
    if deleted_last:
        tellers.reverse()
    visits = [Visit(sessions, ["v0"], False, {"HTTP_HOST": HOST, "REQUEST_URI": "/"}) for _ in tellers]
    for visit, cookie in zip(visits, tellers, strict=True):
        visit.answered([("Set-Cookie", cookie)])
    assert table.count(clock()) == (1 if others and not deleted_last else 0)
    clock.now += OVERLAP
    assert not table.use(["v0"], clock())


def test_two_browsers_are_two_sessions(
    sessions: Sessions, table: SessionTable, clock: Clock, fresh: Iterator[str]
) -> None:
    browsers = [Browser(sessions) for _ in range(2)]
    for _ in range(5):
        for browser in browsers:
            browser.ask(next(fresh))()
    assert table.count(clock()) == 2
    browsers[0].ask(LOGOUT)()
    assert table.count(clock()) == 1
    browsers[1].ask()


def test_visitors_who_are_given_the_same_value_at_first_are_not_one_session_later(
    sessions: Sessions, table: SessionTable, clock: Clock, fresh: Iterator[str]
) -> None:
    """A signed cookie of the same content and second is the same."""
    browsers = [Browser(sessions) for _ in range(3)]
    for browser in browsers:
        browser.ask("sid=guest; Path=/")()
    for browser in browsers:
        browser.ask(next(fresh))()
    for browser in browsers:
        clock.now += 2 * OVERLAP
        browser.ask()
    assert table.count(clock()) == 4, "each of them, and whoever may still come as a guest"
    browsers[0].ask(LOGOUT)()
    for browser in browsers[1:]:
        browser.ask()


def test_a_browser_that_goes_over_to_a_session_that_is_there_leaves_its_own(
    sessions: Sessions, table: SessionTable, clock: Clock
) -> None:
    one, other = Browser(sessions), Browser(sessions)
    one.ask("sid=a; Path=/")()
    other.ask("sid=b; Path=/")()
    assert table.count(clock()) == 2
    other.ask("sid=a; Path=/")()
    assert table.count(clock()) == 1
    assert table.use(["b"], clock()), "for requests in parallel"
    clock.now += 2 * OVERLAP
    one.ask()
    assert not table.use(["b"], clock())
    other.ask()


def test_values_that_are_unknown_here_join_nothing(sessions: Sessions, table: SessionTable, clock: Clock) -> None:
    for number in range(3):
        visit = Visit(sessions, ["of another process"], False, {})
        assert not visit.known
        visit.answered([("Set-Cookie", f"sid=v{number}; Path=/")])
    assert table.count(clock()) == 3
    assert not table.use(["of another process"], clock())


def test_a_browser_whose_process_is_gone_begins_one_session_with_its_parallel_requests(
    sessions: Sessions, table: SessionTable, clock: Clock
) -> None:
    for number in range(3):
        visit = Visit(sessions, ["of a dead process"], False, {}, lost=True)
        assert not visit.known
        visit.answered([("Set-Cookie", f"sid=v{number}; Path=/")])
    assert table.count(clock()) == 1
    for number in range(3):
        assert table.use([f"v{number}"], clock())
    clock.now += OVERLAP
    Visit(sessions, ["of a dead process"], False, {}, lost=True).answered([("Set-Cookie", "sid=later; Path=/")])
    assert table.count(clock()) == 2, "somebody who comes later is somebody else"


# An answer that reached nobody.


def test_a_session_that_began_with_an_undelivered_answer_is_none(
    sessions: Sessions, table: SessionTable, clock: Clock
) -> None:
    visit = Visit(sessions, [], False, {})
    visit.answered([("Set-Cookie", "sid=a; Path=/")])
    visit.undelivered()
    assert table.count(clock()) == 0
    visit = Visit(sessions, [], False, {})
    visit.begin()
    visit.answered([])
    assert table.count(clock()) == 1
    visit.undelivered()
    assert table.count(clock()) == 0


@pytest.mark.parametrize("value", ["a", "b"])
def test_the_session_that_was_there_before_stays(
    sessions: Sessions, table: SessionTable, clock: Clock, value: str
) -> None:
    browser = Browser(sessions)
    browser.ask("sid=a; Path=/")()
    visit = Visit(sessions, browser.brought(), False, {})
    visit.answered([("Set-Cookie", f"sid={value}; Path=/")])
    visit.undelivered()
    assert table.count(clock()) == 1
    browser.ask()


def test_what_was_used_or_set_again_meanwhile_is_not_taken_back(
    sessions: Sessions, table: SessionTable, clock: Clock
) -> None:
    visits = [Visit(sessions, [], False, {}) for _ in range(2)]
    for visit in visits:
        visit.answered([("Set-Cookie", "sid=a; Path=/")])
    visits[0].undelivered()
    assert table.use(["a"], clock())
    visit = Visit(sessions, [], False, {})
    visit.answered([("Set-Cookie", "sid=b; Path=/")])
    clock.now += 1
    assert table.use(["b"], clock())
    visit.undelivered()
    assert table.use(["b"], clock())


# The table's bounds.


def test_the_values_of_one_session_are_bounded_and_those_in_use_stay(table: SessionTable) -> None:
    table.assign("v0", [], 0.0)
    for number in range(1, 200):
        table.use(["v0"], 1.0)
        table.assign(f"v{number}", ["v0"], 1.0)
    assert table.count(1.0) == 1
    assert len(table._owners) == MAX_VALUES_OF_SESSION
    assert table.use(["v0"], 2.0)
    assert table.use(["v199"], 2.0)


def test_long_values_and_scopes_are_not_kept(table: SessionTable) -> None:
    long = "x" * 4000
    table.assign(f"{long}1", [], 0.0, f"www.example /{long}")
    assert table.use([f"{long}1"], 1.0)
    assert not table.use([f"{long}2"], 1.0)
    ((key, session),) = table._owners.items()
    assert len(key) < 64
    assert len(session.values[key]) < 64
    assert not table.use([key.lstrip("\0")], 1.0)
    table.assign(f"{long}3", [f"{long}1"], 1.0, f"www.example /{long}")
    assert table.count(1.0) == 1
    table.end([f"{long}3"], 1.0, f"www.example /{long}")
    assert table.count(1.0) == 0


def test_the_whole_is_bounded_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    table = SessionTable(IDLE, most=10)
    for number in range(100):
        table.assign(f"v{number}", [], float(number))
    assert table.count(100.0) == 10
    assert [number for number in range(100) if f"v{number}" in table._owners] == list(range(90, 100))
    assert len(caplog.records) == 1
    for number in range(100):
        table.end([f"v{number}"], 100.0)
    assert len(table._ended) <= 10


def test_nothing_is_left_of_what_is_over(
    sessions: Sessions, table: SessionTable, clock: Clock, fresh: Iterator[str]
) -> None:
    for number in range(50):
        browser = Browser(sessions)
        for _ in range(5):
            for arrive in [browser.ask(next(fresh)) for _ in range(3 if browser.jar else 1)]:
                arrive()
        if number % 2:
            browser.ask(LOGOUT)()
        clock.now += 1.0
    clock.now += IDLE
    assert table.count(clock()) == 0
    clock.now += OVERLAP
    assert table.count(clock()) == 0
    kept = (table._last_use, table._owners, table._shared, table._ended)
    assert [len(one) for one in kept] == [0] * 4
