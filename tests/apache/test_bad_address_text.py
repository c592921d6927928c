"""The whole under a real Apache httpd, when address.text is not as it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster import LANES, Cluster, Site, eventually, running_cluster

from lbadaptor.contract.address import Table, write
from tests.apache.visitors import raw

NewCluster = Callable[..., Cluster]
ONE_PROCESS = "StartServers 1\nServerLimit 1\nMaxRequestWorkers 25\n"


@pytest.mark.parametrize("state", ["missing", "empty", "malformed", "half written", "not text"])
@pytest.mark.parametrize("name", ["embedded-debian", "embedded-pypi", "fast-debian"])
def test_a_bad_address_text_changes_nothing_for_an_adaptor_that_has_read_a_good_one(
    broken: dict[str, Site], name: str, state: str
) -> None:
    site = broken[name]
    visitor = site.visitor()
    visitor.count()
    visitor.count(method="POST")  # by the adaptor, which has read none before
    with site.cluster.stopped_monitor():
        good = site.cluster.address_file.read_text()
        site.cluster.write_addresses(damaged(good)[state])
        try:
            for _ in range(3):
                visitor.count()
            assert raw(site, "/plain")[0] == 200
        finally:
            site.cluster.write_addresses(good)
        visitor.count()
    visitor.close()


@pytest.mark.parametrize("state", ["missing", "empty", "malformed", "half written", "not text", "no entries"])
def test_who_has_read_no_good_address_text_answers_503_until_it_is_mended(
    broken: dict[str, Site], state: str
) -> None:
    site = broken["cgi-debian"]  # a new process for each request has never read one
    visitor = site.visitor()
    visitor.count()
    with site.cluster.stopped_monitor():
        good = site.cluster.address_file.read_text()
        site.cluster.write_addresses(damaged(good)[state])
        try:
            answer = visitor.get("count")
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert "Set-Cookie" not in answer.headers
        finally:
            site.cluster.write_addresses(good)
        visitor.count()
    visitor.close()


@pytest.mark.parametrize("name", ["embedded-debian", "embedded-pypi", "fast-debian"])
def test_an_address_text_without_entries_is_a_503_until_the_next_one(broken: dict[str, Site], name: str) -> None:
    site = broken[name]
    visitor = site.visitor()
    visitor.count()
    with site.cluster.stopped_monitor():
        good = site.cluster.address_file.read_text()
        site.cluster.write_addresses(damaged(good)["no entries"])
        try:
            answer = visitor.get("count")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert visitor.ticket
        finally:
            site.cluster.write_addresses(good)
        visitor.count()
    visitor.close()


@pytest.mark.parametrize("name", LANES)
def test_who_waits_for_an_appserver_goes_to_their_holder_when_address_text_names_it(
    new_cluster: NewCluster, name: str
) -> None:
    cluster = new_cluster(appservers={"servers": 2}, adaptor={"wait": 25, "waiters": 1})
    site = cluster.site(name, extra=ONE_PROCESS)
    visitor = site.visitor()
    pid = visitor.count()["pid"]
    with cluster.stopped_monitor(), ThreadPoolExecutor() as pool:
        good = cluster.address_file.read_text()
        cluster.write_addresses(damaged(good)["no entries"])
        try:
            requests_ = [pool.submit(visitor.get, "plain") for _ in range(2)]
            eventually("one waits, the other may not", lambda: any(one.done() for one in requests_))
        finally:
            cluster.write_addresses(good)
        refused, served = sorted((one.result() for one in requests_), key=lambda answer: -answer.status_code)
    visitor.close()
    assert (refused.status_code, served.status_code) == (503, 200)
    assert (served.json()["pid"], served.json()["lost"]) == (pid, False)


def damaged(good: str) -> dict[str, str | bytes | None]:
    """What may become of an address.text."""
    lines = good.splitlines(keepends=True)
    return {
        "missing": None,
        "empty": "",
        "malformed": good.replace("127.0.0.1", "127.0.0.1 :"),
        "half written": good[: -len(lines[-1]) // 2],
        "not text": b"\xff\xfe\0" + good.encode(),
        "no entries": write(Table(10**9), "a test", "now"),
    }


@pytest.fixture(scope="module")
def broken() -> Iterator[dict[str, Site]]:
    """One process of each kind before the AppServers, so that it is known what it has read."""
    with running_cluster(appservers={"servers": 2}, adaptor={"wait": 0.2}) as cluster:
        names = ("embedded-debian", "embedded-pypi", "cgi-debian", "fast-debian")
        yield {name: cluster.site(name, extra=ONE_PROCESS) for name in names}
