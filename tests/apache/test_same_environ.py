"""The application sees behind the adaptor what mod_wsgi itself would show it, but for docs/reference/environ.md."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest
from cluster import INSTALLATIONS, SITES, Cluster, running_cluster
from corpus import CASES, MOUNTS, SETTINGS, Case, Place, prepare

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "environ.md"
COLUMNS = ("keys", "mod_wsgi", "embedded", "daemon", "cgi", "requests", "why")
VERSIONS = {"4.9": ["debian"], "6.1": ["pypi"], "both": list(INSTALLATIONS)}

SLOW = {
    *("GET with body", "no host", "UTF-8 query", "not UTF-8 query"),
    *("TE", "upgrade", "named by Connection", "a ticket", "keep-alive", "HTTP/1.0"),
}
"""Not for the fast lane, though GET or HEAD."""
SLOW_WITH_A_TICKET = {"cookies", "repeated cookies"}
"""A ticket is not in the first Cookie header then."""


class Row(NamedTuple):
    """A row of the table: how the keys differ, for whom, and in which requests (none named: in any)."""

    keys: list[str]
    installations: list[str]
    kinds: dict[str, str]
    requests: list[str]

    def covers(self, key: str, kind: str, mode: str, request: str) -> bool:
        return (
            any(fnmatchcase(key, pattern) for pattern in self.keys)
            and kind == self.kinds[mode]
            and (not self.requests or request in self.requests)
        )


def table() -> list[Row]:
    """The first table of the page."""
    rows = []
    for line in PAGE.read_text().partition("\n| keys |")[2].partition("\n\n")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `"):
            continue
        assert len(cells) == len(COLUMNS), line
        named = dict(zip(COLUMNS, cells, strict=True))
        requests = [] if named["requests"] == "any" else named["requests"].split("; ")
        kinds = {mode: named[mode] for mode in ("embedded", "daemon", "cgi")}
        assert set(kinds.values()) <= {"same", "missing", "added", "other"}, line
        assert set(requests) <= set(CASES), line
        assert named["why"], line
        rows.append(Row(re.findall("`(.+?)`", named["keys"]), VERSIONS[named["mod_wsgi"]], kinds, requests))
    return rows


def expected_lane(case: Case, ticket: str) -> str:
    """By which lane a case comes to the application, with its ticket, if any, in a Cookie header of its own."""
    slow = SLOW | SLOW_WITH_A_TICKET if ticket else SLOW
    if case.method not in (b"GET", b"HEAD") or case.name in slow:
        return "slow"
    return "back" if case.listener == "tls" else "fast"  # SSLOptions +StdEnvVars: more than the fast lane hands on


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(app="seen:application", appservers={"servers": 1}, adaptor=SETTINGS) as made:
        prepare(made.folder)
        yield made


@pytest.fixture(scope="module")
def directly(cluster: Cluster) -> dict[str, Place]:
    return {name: Place(cluster, f"direct-{name}") for name in INSTALLATIONS}


@pytest.mark.parametrize("name", [*SITES, "fast-debian", "fast-pypi", "first-debian"])
def test_what_the_application_sees_differs_only_as_the_table_says(
    cluster: Cluster, directly: dict[str, Place], name: str
) -> None:
    mode, _, installation = name.partition("-")
    place = Place(cluster, name)
    ticket = cluster.table().entries[0].ticket if mode == "fast" else ""
    differences: dict[tuple[str, str], set[str]] = defaultdict(set)
    examples = {}
    asked = [(case, mount) for case in CASES.values() for mount in MOUNTS]

    def see(one: tuple[Case, str]) -> tuple[str, dict[str, str], dict[str, str]]:
        case, mount = one
        return case.name, directly[installation].see(case, mount, ticket), place.see(case, mount, ticket)

    with ThreadPoolExecutor(4) as visitors:  # as CGI each request starts a Python
        for request, own, through in visitors.map(see, asked):
            for key in own.keys() | through.keys():
                if own.get(key) != through.get(key):
                    kind = "missing" if key not in through else "other" if key in own else "added"
                    differences[key, kind].add(request)
                    examples[key, kind, request] = f"{own.get(key)} → {through.get(key)}"
    if mode in ("fast", "first"):
        mode = "embedded"  # the same but for its speed
        for name_at_mount, lane in place.lanes().items():
            case = CASES[name_at_mount.partition(" at ")[0]]
            assert lane == expected_lane(case, ticket), name_at_mount
    rows = [row for row in table() if installation in row.installations and row.kinds[mode] != "same"]
    untold = {
        example: examples[example]
        for (key, kind), requests in differences.items()
        for request in requests
        if not any(row.covers(key, kind, mode, request) for row in rows)
        for example in [(key, kind, request)]
    }
    assert untold == {}
    for row in rows:
        seen = {
            pattern: {
                request
                for (key, kind), requests in differences.items()
                for request in requests
                if fnmatchcase(key, pattern) and kind == row.kinds[mode]
            }
            for pattern in row.keys
        }
        assert all(seen.values()), f"no longer so: {seen}"
        assert set(row.requests) <= set().union(*seen.values()), f"no longer so: {row}"


OF_ITSELF = [
    "REQUEST_SCHEME",
    "SERVER_ADDR",
    "SERVER_ADMIN",
    "SERVER_SOFTWARE",
    "DOCUMENT_ROOT",
    "CONTEXT_*",
    "NOT_NAMED",
]


def test_what_apache_knows_of_itself_is_passed_where_it_is_named() -> None:
    settings = {"pass_variables": OF_ITSELF}
    with running_cluster(app="seen:application", appservers={"servers": 1}, adaptor=settings) as cluster:
        prepare(cluster.folder)
        for name in ("embedded-debian", "daemon-debian"):
            own, through = (Place(cluster, place).see(CASES["path"], "") for place in ("direct-debian", name))
            named = {key for key in own if any(fnmatchcase(key, pattern) for pattern in OF_ITSELF)}
            assert len(named) == len(OF_ITSELF) + 1
            assert {key: own[key] for key in named} == {key: through[key] for key in named}
