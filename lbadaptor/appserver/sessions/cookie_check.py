"""Whether the application sets the session cookie that the settings name. Pure, but for the log.

A wrong `session_cookie` raises no error anywhere: no session is ever counted, no ticket is set, and every visitor is
logged out by the next AppServer. What gives it away is that answers set cookies, and never that one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from lbadaptor.http1.lines import is_name
from lbadaptor.log import logs

log = logs.logger("lbadaptor.appserver")

ENOUGH = 20
"""Answers that set cookies, and none the session cookie, after which the log says so."""
MOST_ANSWERS = 5000
"""Answers that set cookies, after which only the session cookie is looked for: the others are known by then."""
MOST_NAMES = 16
LONGEST_NAME = 64
"""Characters. With MOST_NAMES, the bound of what is remembered of other cookies: 1 KiB. Values are not remembered."""


class CookieCheck:
    """Counts answers that set cookies, until one sets the session cookie. Any thread may use it.

    `framework`: the names under which the application's framework keeps its sessions, as far as it tells them.
    """

    def __init__(self, session_cookie: str, framework: Sequence[str] = ()) -> None:
        self.session_cookie = session_cookie
        self.framework = tuple(framework)[:MOST_NAMES]
        self.settled = not session_cookie
        """the session cookie was set, or the application tells which visitors have a session: the check is over"""
        self.answers = 0
        """number of answers that set cookies"""
        self.refused = ""
        """why browsers refuse the session cookie, as far as its first one tells"""
        self._others: dict[str, None] = {}
        self._lock = threading.Lock()

    def abandon(self) -> None:
        """In a forked child: a thread that does not exist here may hold the lock."""
        self._lock = threading.Lock()

    def saw(self, names: Iterable[str]) -> None:
        """An answer sets cookies of these names."""
        with self._lock:
            if self.settled:
                return
            names = list(names)
            if not names:
                return
            self.answers += 1
            if self.session_cookie in names:
                self.settled = True
                if self.answers > ENOUGH:
                    log.warning("the session cookie `%s` was set after all", self.session_cookie)
                return
            for name in names:
                if len(self._others) < MOST_NAMES and len(name) <= LONGEST_NAME and is_name(name):
                    self._others[name] = None
            if self.answers == ENOUGH:
                log.warning("%s", doubt(self.session_cookie, self.answers, self.others, self.framework))

    @property
    def knows_others(self) -> bool:
        """No more need be shown than the session cookie."""
        return self.answers >= MOST_ANSWERS

    def is_without_secure(self) -> None:
        """The session cookie has SameSite=None, and is not Secure (RFC 6265bis §5.7)."""
        self.refused = "it has SameSite=None without Secure"

    def declared(self) -> None:
        """The application tells itself which visitors have a session, so the name of its cookie does not matter."""
        self.settled = True

    @property
    def others(self) -> list[str]:
        """The names of the other cookies that were set."""
        return list(self._others)

    def report(self) -> dict[str, object]:
        """For the answer to a probe."""
        return {
            "name": self.session_cookie,
            "session": self.settled,
            "answers": self.answers,
            "others": self.others,
            "framework": list(self.framework),
            "refused": self.refused,
        }


def doubt(session_cookie: str, answers: int, others: Iterable[str], framework: Iterable[str]) -> str:
    """What to say where the session cookie was never set so far; empty where nothing speaks against its name.

    A likelihood: an application that sets a session only at the login may have set other cookies first.
    """
    said = []
    if framework := [name for name in framework if name]:
        said.append(f"its framework names its session cookie {_list(framework)}")
    if answers:
        said.append(
            f"in {answers} answer{'s' if answers > 1 else ''} that set cookies none was `{session_cookie}`; the "
            f"application sets: {', '.join(others) or 'cookies of odd names'}"
        )
    if not said:
        return ""
    return (
        f'session_cookie = "{session_cookie}" may be wrong, it was never set so far: {"; ".join(said)}. '
        "Without the right name no visitor stays with their session"
    )


def _list(names: Sequence[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)
