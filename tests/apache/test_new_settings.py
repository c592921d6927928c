"""Changes of lbadaptor.toml under a running Apache: they count when the monitor has accepted them, everywhere, and
without a reload; a broken file harms nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from cluster import Cluster, Site, Visitor, eventually
from fast_site import available

NewCluster = Callable[..., Cluster]
MODES = ["embedded-debian", "daemon-debian", "cgi-debian", "fast-debian"]


def change(cluster: Cluster, old: str, new: str) -> None:
    """Edit lbadaptor.toml."""
    text = cluster.config.read_text()
    assert text.count(old) == 1
    cluster.config.write_text(text.replace(old, new))


def release(cluster: Cluster) -> None:
    """Order one, and wait until every AppServer has been replaced."""
    before = {entry.identity for entry in cluster.table().ok}
    cluster.lbctl("restart", "--no-wait")

    def replaced() -> bool:
        ok = {entry.identity for entry in cluster.table().ok}
        return len(ok) == cluster.settings.appservers.servers and not ok & before

    eventually("all are replaced", replaced)


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Cluster:
    return new_cluster(appservers={"servers": 2, "slots": 12}, adaptor={"sorry_page": ""})


@pytest.mark.parametrize("mode", MODES)
def test_a_typo_and_a_graceful_restart_cost_no_request(cluster: Cluster, mode: str) -> None:
    site = cluster.site(mode)
    visitor = site.visitor()
    visitor.count()
    change(cluster, "[adaptor]", "[adapter]")
    visitor.count()
    visitor.http.close()  # Apache closes kept connections, and a request may be on its way there
    site.reload()

    def said() -> bool:
        visitor.count(method="POST")  # the adaptor is not asked for what takes the fast lane
        visitor.count()
        return "unknown section [adapter]" in site.log()

    eventually("a new process has read the file", said)
    assert "going by" in site.log()
    with pytest.raises(AssertionError, match="unknown section"):
        cluster.lbctl("restart")
    visitor.count()
    assert visitor.tell("logout")["known"]
    visitor.close()


def names_of(site: Site) -> set[str]:
    """The cookies that a new visitor gets; their session is ended."""
    visitor = site.visitor()
    visitor.count()
    names = set(visitor.http.cookies.keys())
    visitor.tell("logout")
    visitor.close()
    return names


def often(visitors: Sequence[tuple[str, Visitor]], turn: int) -> list[Visitor]:
    """Those who come in a turn, of visitors with their site's mode: all of them; behind CGI in the first four turns.

    As CGI the adaptor begins anew with every request, and further turns show nothing else.
    """
    return [visitor for mode, visitor in visitors if turn < 4 or mode != "cgi"]


def test_a_new_ticket_cookie_loses_no_session_and_needs_no_reload(cluster: Cluster) -> None:
    sites = [cluster.site(mode) for mode in MODES]
    visitors = [(site.mode, visitor) for site in sites for visitor in site.visitors(2)]
    assert all(visitor.ticket for _, visitor in visitors)
    change(cluster, 'session_cookie = "sid"', 'session_cookie = "sid"\nticket_cookie = "__SHOP__"')
    assert {name for site in sites for name in names_of(site)} == {"sid", "__PRT__"}, "nobody has accepted it yet"
    release(cluster)
    for turn in range(10):
        for visitor in often(visitors, turn):
            told = visitor.count()
            assert not told["lost"]
            assert "__SHOP__" not in visitor.http.cookies
    newcomers = [(site.mode, visitor) for site in sites for visitor in site.visitors(2)]
    assert all(set(visitor.http.cookies.keys()) == {"sid", "__SHOP__"} for _, visitor in newcomers)
    for turn in range(10):
        for visitor in often(newcomers, turn):
            assert not visitor.count()["lost"]
    for _, visitor in (*visitors, *newcomers):
        assert visitor.tell("logout")["known"]
        visitor.close()
    assert not any("forged" in site.log() for site in sites)


@pytest.mark.parametrize("mode", MODES)
def test_a_setting_of_the_adaptors_counts_with_the_release(cluster: Cluster, mode: str) -> None:
    site = cluster.site(mode)
    page = cluster.folder / "sorry.html"
    page.write_text("be patient")
    page.chmod(0o644)
    change(cluster, 'sorry_page = ""', 'sorry_page = "sorry.html"\nwait = 0.1')

    def sorry() -> str:
        with available(cluster, ""):
            good = cluster.address_file.read_text()
            cluster.write_addresses(good.splitlines()[0].rpartition(" · entries")[0] + "\n")
            answer = site.visitor().get("plain")
            cluster.write_addresses(good)
        assert answer.status_code == 503
        return answer.text

    assert "be patient" not in sorry()
    release(cluster)
    assert sorry() == "be patient"
