"""Apache's access log tells which slot and lane served a request; one id is the same in all logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import Cluster, Site, eventually, running_cluster

from tests.apache.resources import kill

FAST = "fast-debian"
SITES = [FAST, "embedded-debian", "daemon-debian", "cgi-debian"]
_fields = re.compile(r"(\w+)=(\S+)").findall
OURS = {f"LB-{name}": "made-up" for name in ("Slot", "Lane", "Verdict", "Tries", "Time", "Request-Id", "Variables")}


class Logged:
    """A site whose Apache writes an access log."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.path = cluster.folder / f"{name}.log"
        log = f"CustomLog {self.path} lbadaptor"
        self.cluster = cluster
        self.fast = name == FAST
        self.site: Site = cluster.site(name, extra=log, modules=("unique_id", "headers", "log_config"))

    def line(self, answer: requests.Response, marked: str) -> dict[str, str]:
        """What Apache logs of the request with that mark in its query."""
        assert not any(name.startswith("LB-") for name in answer.headers), answer.headers
        return _line(self.path, marked)


def _line(log: Path, marked: str) -> dict[str, str]:
    def look() -> str:
        return next((line for line in log.read_text().splitlines() if f"?{marked} " in line), "")

    return dict(_fields(eventually(f"a line of {marked}", look)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two AppServers with an access log of their own. Apache trusts X-Request-Id."""
    servers = {"servers": 2, "access_log": "appservers.log"}
    monitor = {"probe_interval": 0.1, "backoff_limit": 0.1}
    with running_cluster(appservers=servers, adaptor={"trust_request_id": True}, monitor=monitor) as made:
        yield made


@pytest.fixture(scope="module", params=SITES)
def logged(request: pytest.FixtureRequest, cluster: Cluster) -> Logged:
    return Logged(cluster, request.param)


def seen(answer: requests.Response) -> dict[str, Any]:
    """The environ that the application was given."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["seen"]
    return found


def tells(line: dict[str, str], lane: str, verdict: str, tries: int) -> bool:
    return (line["lane"], line["verdict"], line["tries"]) == (lane, verdict, str(tries))


def test_the_log_tells_slot_lane_verdict_and_time(logged: Logged) -> None:
    visitor = logged.site.visitor()
    lane = "fast" if logged.fast else "python"
    answer = visitor.get("environ?first", headers=OURS)
    line = logged.line(answer, "first")
    assert tells(line, lane, "none", 1), line
    assert line["slot"] == str(seen(answer)["lbadaptor.slot"])
    visitor.count()
    answer = visitor.get("environ?again", headers=OURS)
    line = logged.line(answer, "again")
    assert tells(line, lane, "held", 1), line
    assert line["slot"] == str(seen(answer)["lbadaptor.slot"])
    assert 0 < int(line["app_us"]) <= int(line["us"])
    answer = visitor.get("environ?post", "POST", data=b"body")
    line = logged.line(answer, "post")
    assert tells(line, "python", "held", 1), line
    assert line["slot"] == str(seen(answer)["lbadaptor.slot"])
    assert visitor.tell("logout")["known"]
    visitor.close()


def test_one_id_is_in_all_logs_and_in_environ(logged: Logged) -> None:
    visitor = logged.site.visitor()
    given = {
        "own": (OURS, r"[\w@-]{20,}"),
        "trusted": ({"X-Request-Id": "from.the-proxy=1:2", **OURS}, "from.the-proxy=1:2"),
        "refused": ({"X-Request-Id": "two words"}, r"[\w@-]{20,}"),
    }
    for kind, (headers, pattern) in given.items():
        for method in ("GET", "POST"):
            mark = f"{kind}-{method}-{logged.path.name}"
            answer = visitor.get(f"environ?{mark}", method, headers=headers)
            found = seen(answer)["lbadaptor.request_id"]
            assert re.fullmatch(pattern, found)
            assert "Vary" not in answer.headers
            assert "HTTP_LB_REQUEST_ID" not in seen(answer)
            assert logged.line(answer, mark)["id"] == found
            own = _line(logged.cluster.folder / "appservers.log", mark)
            assert own["id"] == found
            assert own["slot"] == str(seen(answer)["lbadaptor.slot"])
    visitor.close()


def test_fail_over_is_told(logged: Logged) -> None:
    """The fast lane's AppServer is gone: the line comes by the Python lane, and says so."""
    visitor = logged.site.visitor()
    pid = visitor.count()["pid"]
    visitor.http.close()  # otherwise Apache only closes this connection, and the browser repeats the request
    with logged.cluster.stopped_monitor():
        kill(pid)
        answer = visitor.get("environ?over")
    line = logged.line(answer, "over")
    assert line["lane"] == ("fast+python" if logged.fast else "python"), line
    assert line["verdict"] == "lost"
    assert int(line["tries"]) >= (3 if logged.fast else 2)
    assert line["slot"] == str(seen(answer)["lbadaptor.slot"])
    logged.cluster.await_ok()
    visitor.close()


def test_an_answer_of_the_adaptors_own_is_told(logged: Logged) -> None:
    """A POST whose AppServer dies is not repeated. The adaptor's line in the error log has the id."""
    visitor = logged.site.visitor()
    visitor.count()
    slot = seen(visitor.get("environ"))["lbadaptor.slot"]
    given = f"crash-{logged.path.name}"
    answer = visitor.get("crash?dies", "POST", headers={"X-Request-Id": given, **OURS})
    assert answer.status_code == 502
    line = logged.line(answer, "dies")
    assert tells(line, "python", "held", 1), line
    assert line["id"] == given
    assert line["slot"] == str(slot)
    eventually("the adaptor's line", lambda: f"lbadaptor: 502 POST /crash ({given}): " in logged.site.log())
    logged.cluster.await_ok()
    visitor.close()
