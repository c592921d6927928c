"""Patterns of <Location> are matched as libapr does."""

from __future__ import annotations

import re

import pytest

from monitor.apacheconfig.url_patterns import is_wildcard, wildcard


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("/server-*", ["/server-", "/server-status"], ["/server", "/server-status/x", "/x/server-x"]),
        ("/st?tus", ["/status", "/st.tus"], ["/st/tus", "/sttus", "/status/"]),
        ("/*/status", ["/a/status", "//status"], ["/a/b/status", "/status", "/a/status/x"]),
        ("/[a-cx]", ["/a", "/b", "/x"], ["/d", "/-", "/ab"]),
        ("/[!a]*", ["/b", "/bc"], ["/a", "//", "/"]),
        ("/[^a]", ["/b"], ["/a", "//"]),
        ("/a[b/c]", ["/a[b/c]"], ["/ab", "/a/"]),
        ("/[+-0]", ["/."], ["//"]),
        ("/[]a]", ["/]", "/a"], ["/[", "/b"]),
        (r"/[\]]", ["/]"], ["/\\"]),
        ("/[a-]", ["/a", "/-"], ["/b"]),
        ("/[c-a]", [], ["/a", "/b", "/c", "/-"]),
        ("/[^c-a]", ["/a", "/-"], ["//"]),
        ("/[^]*", ["/[^]", "/[^]x"], ["/^", "/x"]),
        ("/.+*", ["/.+", "/.+x"], ["/xx"]),
        (r"/\*?", ["/*x"], ["/xx", "/*"]),
    ],
)
def test_a_wildcard_matches_as_in_apache(pattern: str, matches: list[str], others: list[str]) -> None:
    assert is_wildcard(pattern)
    found = re.compile(wildcard(pattern))
    assert all(map(found.match, matches))
    assert not any(map(found.match, others))


@pytest.mark.parametrize("path", ["/", "/a.b+c", r"/a\*", r"/a\?\[b]", "/a[b", "/a]b["])
def test_other_paths_are_as_they_are(path: str) -> None:
    assert not is_wildcard(path)
