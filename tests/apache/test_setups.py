"""The whole under a real Apache httpd: what an administrator may do wrong, and what is possible besides."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from cluster import INSTALLATIONS, Cluster, apache

from monitor.demo import httpd
from tests.apache.resources import kill
from tests.apache.visitors import raw

NewCluster = Callable[..., Cluster]


def test_a_bad_lbadaptor_toml_is_a_503_with_the_reason_in_apaches_log(new_cluster: NewCluster) -> None:
    cluster = new_cluster(appservers={"servers": 1})
    good = cluster.config.read_text()
    cluster.order_to_stop()
    cluster.await_end()  # and with the monitor goes what it had accepted
    site = cluster.site("embedded-debian")
    site.httpd.stop()
    cluster.config.write_text(good.replace("[adaptor]", "[adaptor]\npolcy = 1"))
    site.httpd.start()
    status, headers, _ = raw(site, "/plain")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "unknown setting [adaptor] polcy; did you mean policy?" in site.log()
    cluster.config.write_text(good)
    cluster.start()
    assert raw(site, "/plain")[0] == 200


def test_a_key_file_that_apache_may_not_read_is_a_503_with_the_reason_in_apaches_log(new_cluster: NewCluster) -> None:
    cluster = new_cluster(appservers={"servers": 1})
    cluster.settings.key_file.chmod(0)
    site = cluster.site("embedded-debian")
    status, headers, _ = raw(site, "/plain")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert f"key file {cluster.settings.key_file}: Permission denied" in site.log()
    cluster.settings.key_file.chmod(0o640)
    assert raw(site, "/plain")[0] == 200


def test_another_program_at_the_demos_port_is_not_taken_for_its_httpd(new_cluster: NewCluster) -> None:
    cluster = new_cluster(appservers={"servers": 1})
    (entry,) = cluster.table().entries
    folder = cluster.folder / "httpd"
    folder.mkdir()
    site = httpd.Httpd(apache("debian"), folder, entry.address.port, "lbadaptor.conf", cluster.config)
    with pytest.raises(httpd.NoApache, match=r"another program answers at|Address already in use"):
        site.start()


def test_two_applications_share_one_httpd(new_cluster: NewCluster) -> None:
    first, second = (new_cluster(appservers={"servers": 2}) for _ in range(2))
    # The second one's lbadaptor.toml is to be read by Apache's user too.
    again = f"Define LBADAPTOR_CONFIG {second.config}\nDefine LBADAPTOR_MOUNT /two\n"
    for name in INSTALLATIONS:
        site = first.site(f"embedded-{name}", "/one", f"{again}Include {httpd.SHARE}/lbadaptor.conf\n")
        visitors = [site.visitor(), site.visitor()]
        visitors[1].url = visitors[0].url.replace("/one", "/two")
        pids = [visitor.count()["pid"] for visitor in visitors]
        for _ in range(3):
            assert [visitor.count()["pid"] for visitor in visitors] == pids
        for visitor, cluster in zip(visitors, (first, second), strict=True):
            assert cluster.entry(visitor.ticket)
            visitor.close()


@pytest.mark.parametrize("name", ["embedded-pypi", "fast-debian"])
def test_webwares_example_counts_the_visits_of_each_visitor_over_three_appservers(
    new_cluster: NewCluster, name: str
) -> None:
    cluster = new_cluster(
        appservers={"servers": 3},
        application={
            "app": "lbadaptor.examples.webware_site:application",
            "session_cookie": "_SID_",
            "session_count": "webware",
        },
    )
    site = cluster.site(name)

    def visit(visitor: Any) -> tuple[str, int]:
        answer = visitor.get("CountVisits")
        assert answer.status_code == 200
        found = re.search(r"<strong[^>]*>&nbsp;(\d+)&nbsp;</strong>", answer.text)
        assert found is not None
        return answer.headers["X-AppServer"], int(found[1])

    homes: dict[str, Any] = {}
    for _ in range(200):
        visitor = site.visitor()
        where, count = visit(visitor)
        assert count == 1
        if where in homes:
            visitor.close()
        homes.setdefault(where, visitor)
        if len(homes) == 3:
            break
    for count in (2, 3, 4):
        assert [visit(visitor) for visitor in homes.values()] == [(where, count) for where in homes]
    where, unlucky = homes.popitem()
    slot = int(str(unlucky.ticket).partition(".")[0])
    (pid,) = [server["pid"] for server in cluster.status()["appservers"] if server["slot"] == slot]
    kill(pid)
    assert visit(unlucky)[1] == 1
    cluster.await_said("a visitor's session is lost: the process that held it has ended")
    assert [visit(visitor) for visitor in homes.values()] == [(where, 5) for where in homes]
    for visitor in (unlucky, *homes.values()):
        visitor.close()
    cluster.await_ok()
