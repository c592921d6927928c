"""The fast lane as `lbctl apache-config` writes it, before the monitor has run, and with and without Unix sockets."""

from __future__ import annotations

import functools
import re
import secrets
from pathlib import Path

import pytest
from cluster import Cluster, Visitor, eventually, running_cluster, short_folder
from corpus import prepare
from fast_site import APP, FastSite, available, callers_keys, gone

from monitor.demo import httpd

# Writing its configuration.


ALONGSIDE = """
LoadModule rewrite_module {modules}/mod_rewrite.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule status_module {modules}/mod_status.so
Alias /plain/static {folder}/static
<Directory {folder}/static>
    Require all granted
</Directory>
<Location /plain/status>
    SetHandler server-status
</Location>
CustomLog {folder}/lane.log "%{{X-Tag}}i %{{LBADAPTOR_GENERATION}}e"
IncludeOptional {folder}/lane.conf
"""


def test_what_lbctl_writes_leads_to_the_application_and_leaves_apache_its_own(cluster: Cluster) -> None:
    found = httpd.installed()[0]
    (cluster.folder / "static").mkdir()
    (cluster.folder / "static").chmod(0o755)
    (cluster.folder / "static" / "x.txt").write_text("a file\n")
    snippet = cluster.folder / "alongside.conf"
    snippet.write_text(ALONGSIDE.format(folder=cluster.folder, modules=found.modules))
    site = cluster.site("embedded-debian", lint=False, snippet=snippet)
    program = f"{found.binary} -f {site.httpd.folder}/httpd.conf"
    (cluster.folder / "lane.conf").write_text(cluster.lbctl("apache-config", "--apache", program))
    site.reload()
    visitor = site.visitor()
    visitor.count()
    log = cluster.folder / "lane.log"

    def is_fast() -> bool:
        tag = secrets.token_hex(8)
        visitor.get("plain", headers={"X-Tag": tag, "Connection": "close"})
        line = eventually("it is logged", lambda: re.search(f"^{tag} (.*)$", log.read_text(), re.MULTILINE))
        return str(line[1]) != "-"

    eventually("the fast lane is open", is_fast)
    assert cluster.lbctl("apache-config", "--apache", program, "--check", str(cluster.folder / "lane.conf"))
    assert visitor.get("plain/static/x.txt").text == "a file\n"
    assert "Apache Server Status" in visitor.get("plain/status").text
    assert visitor.count()["visits"] == 2
    visitor.close()


def test_an_appserver_beyond_its_slots_is_not_in_it(cluster: Cluster) -> None:
    fast = FastSite(cluster, "embedded-debian", slots=min(entry.identity.slot for entry in cluster.table().ok) + 1)
    lanes = {}
    for visitor in fast.site.visitors(2):
        answer, lane = fast.ask(visitor, "plain")
        lanes[answer.json()["slot"]] = lane
        visitor.close()
    first, second = sorted(lanes)
    assert (lanes[first], lanes[second]) == ("fast", "slow")


# Before the monitor has ever run, as after a boot.


def in_fast_lane(fast: FastSite, visitor: Visitor) -> bool:
    return fast.ask(visitor, "count", headers={"Connection": "close"})[1] == "fast"


@pytest.mark.parametrize(
    ("run_folder", "host"),
    [
        ("run", "127.0.0.1"),
        ("run", "::1"),
        ("run 'a' \"b\\c\" %{d}$e#", "::1"),  # no Unix sockets by such a path
    ],
)
def test_apache_starts_without_a_run_folder_and_needs_no_reload_when_there_is_one(run_folder: str, host: str) -> None:
    with short_folder() as folder:
        servers = {"servers": 2, "host": host}
        cluster = Cluster(
            folder, app=APP, appservers=servers, adaptor={"wait": 0.1}, files={"run_folder": run_folder}
        )
        try:
            prepare(folder)
            (folder / "run").rmdir()
            assert not cluster.settings.run_folder.exists()
            fast = FastSite(cluster, "embedded-debian")
            stranger = fast.site.visitor()
            assert stranger.get("plain").status_code == 503
            ticket = {"Cookie": f"__PRT__=0.1763805600123.{43 * 'x'}"}
            assert stranger.get("plain", headers=ticket).status_code == 503
            (folder / "run").mkdir()
            cluster.start()
            visitors = fast.site.visitors(2)
            for visitor in visitors:
                first = visitor.count()
                answer, lane = fast.ask(visitor, "count?a=%20b")
                assert (answer.json()["pid"], answer.json()["visits"]) == (first["pid"], 3)
                assert lane == ("slow" if " " in run_folder else "fast")
                # What the file does not hold is not looked for twice.
                forged = {"Cookie": f"__PRT__=0.1763805600123.{43 * 'x'}"}
                assert fast.ask(stranger, "plain", headers=forged)[1] == "slow"
            # A reload finds the maps.
            fast.site.httpd.reload()
            eventually("Apache has reloaded", lambda: fast.site.log().count("resuming normal") == 2)
            for one in visitors:
                assert eventually("Apache has reloaded", functools.partial(in_fast_lane, fast, one))
                one.close()
            stranger.close()
        finally:
            cluster.stop()


def test_without_maps_too_no_request_goes_to_an_appserver_that_is_gone() -> None:
    with short_folder() as folder:
        cluster = Cluster(folder, app=APP, appservers={"servers": 2}, adaptor={"wait": 10})
        try:
            prepare(folder)
            fast = FastSite(cluster, "embedded-debian")
            cluster.start()
            visitor = fast.visitor()
            assert fast.ask(visitor, "count")[1] == "fast"
            callers = callers_keys(cluster)
            with gone(cluster, visitor) as pid:
                told = [fast.ask(visitor, f"environ/told-{why}/x") for why in ("closed", "gone")]
                answer, lane = fast.ask(visitor, "count")
            assert [lane for _, lane in told] == ["back after 403", "back after 503"]
            assert not [key for key in callers for answer, _ in told if key in answer.text]
            assert (answer.json()["pid"] != pid, lane) == (True, "back after 503")
            robot = fast.site.visitor()
            keys = cluster.settings.caller_keys_file.read_text()
            answer, lane = fast.ask(robot, "environ/x", headers={"Cookie": f"__PRT__={visitor.ticket}; sid=x"})
            assert lane == "fast"
            assert not any(word in answer.text for word in keys.split() if len(word) > 30 and word != visitor.ticket)
            for one in (visitor, robot):
                one.close()
        finally:
            cluster.stop()


# By Unix socket, or by TCP.


def connections(cluster: Cluster) -> tuple[int, int]:
    """To AppServers, by Unix socket and by TCP (proc_net(5))."""
    folder = f"{cluster.settings.socket_folder}/"
    by_unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    by_tcp = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = {f":{entry.address.port:04X}" for entry in cluster.table().entries}
    return (
        sum(words[-1].startswith(folder) and words[5] == "03" for words in by_unix),
        sum(words[1][-5:] in ports and words[3] == "01" for words in by_tcp),
    )


def test_both_lanes_and_the_monitor_go_by_unix_sockets(cluster: Cluster) -> None:
    before = eventually(
        "the monitor has asked both", lambda: connections(cluster)[0] >= 2 and connections(cluster)[0]
    )
    with available(cluster, ""):  # or the request by which httpd shows that it is up would open a connection
        fast = FastSite(cluster, "embedded-debian")
    visitor = fast.site.visitor()
    assert fast.ask(visitor, "count", "POST")[1] == "slow"
    between, _ = connections(cluster)
    assert between > before
    assert fast.ask(visitor, "count")[1] == "fast"
    by_unix, by_tcp = connections(cluster)
    assert by_unix == between + 1
    assert by_tcp == 0
    visitor.close()


@pytest.mark.parametrize("name", ["embedded-debian", "daemon-debian"])
def test_where_the_sockets_were_deleted_all_goes_by_tcp(name: str) -> None:
    with running_cluster(app=APP, appservers={"servers": 2}) as cluster:
        for path in cluster.settings.socket_folder.iterdir():
            path.unlink()
        fast = FastSite(cluster, name)
        visitor = fast.visitor()
        pid = visitor.count()["pid"]
        answer, lane = fast.ask(visitor, "count")
        assert (answer.json()["pid"], lane) == (pid, "back after 503")
        assert connections(cluster)[1] > 0
        visitor.close()
