"""The snippets, included more than once in one Apache: each virtual host and mount has its own application."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
from cluster import SNIPPETS, TIMEOUT, Cluster, Site, eventually, running_cluster

from monitor.apacheconfig import fastlane
from monitor.demo import httpd

MODES = ["embedded-debian", "embedded-pypi", "daemon-debian", "daemon-pypi", "cgi-debian"]
APP = "trials:application"


@pytest.fixture(scope="module")
def clusters() -> Iterator[dict[str, Cluster]]:
    """Two applications, each with a monitor of its own."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                running_cluster(app=APP, appservers={"servers": 1, "slots": 2}, adaptor={"wait": 0.2})
            )
            for name in ("one", "two")
        }


def pid(cluster: Cluster) -> int:
    """Of its only AppServer."""
    [server] = cluster.status()["appservers"]
    return int(server["pid"])


def ask(site: Site, host: str, path: str, cookie: str = "") -> tuple[int, int, str]:
    """Status, the AppServer's pid where one answered, and Set-Cookie."""
    with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
        lines = (f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Cookie: {cookie}", "", "")
        visitor.sendall("\r\n".join(lines).encode())
        answer = b""
        while more := visitor.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    cookies = [line for line in head.decode().splitlines() if line.lower().startswith("set-cookie: __prt__=")]
    ticket = cookies[0].partition(": ")[2].partition(";")[0] if cookies else ""
    return status, int(json.loads(body)["pid"]) if status == 200 else 0, ticket


def included(clusters: dict[str, Cluster], mode: str, *hosts: tuple[str, list[tuple[str, str]]]) -> str:
    """Virtual hosts by name, each with (application, mount) in turn; an application without a name is not defined.

    Everything is said in the words of the snippets' comments.
    """
    lines = ["UnDefine LBADAPTOR_CONFIG"]  # the one that the test's httpd begins with
    for name, mounts in hosts:
        lines += ["<VirtualHost *>", f"ServerName {name}"]
        for application, mount in mounts:
            if application:
                lines.append(f"Define LBADAPTOR_CONFIG {clusters[application].config}")
            if mount:
                lines.append(f"Define LBADAPTOR_MOUNT {mount}")
            lines.append(f"Include {httpd.SHARE / SNIPPETS[mode.partition('-')[0]]}")
        lines.append("</VirtualHost>")
    return "\n".join([*lines, ""])


def site_of(clusters: dict[str, Cluster], mode: str, text: str, extra: str = "") -> Site:
    """An httpd with that in place of a snippet. Its files are in the folder of the first cluster."""
    snippet = clusters["one"].folder / "snippet.conf"
    snippet.write_text(text)
    site = clusters["one"].site(mode, extra=extra, lint=False, snippet=snippet)
    for cluster in clusters.values():  # Apache's processes may read the other application's files, too
        assert cluster.config.stat().st_mode & 0o004
    return site


@pytest.mark.parametrize("mode", MODES)
def test_each_host_and_mount_has_its_own_application(clusters: dict[str, Cluster], mode: str) -> None:
    text = included(
        clusters,
        mode,
        ("one.example", [("one", "")]),
        ("two.example", [("two", "")]),
        ("both.example", [("one", "/one"), ("two", "/two")]),
        ("within.example", [("two", "/within"), ("one", "")]),
        ("again.example", [("one", "/a"), ("one", "/b")]),
        ("same.example", [("one", "")]),
        ("none.example", [("", "")]),
    )
    site = site_of(clusters, mode, text)
    one, two = pid(clusters["one"]), pid(clusters["two"])
    for host, path, answers in (
        ("one.example", "/plain", one),
        ("two.example", "/plain", two),
        ("both.example", "/one/plain", one),
        ("both.example", "/two/plain", two),
        ("within.example", "/within/plain", two),
        ("within.example", "/plain", one),
        ("again.example", "/a/plain", one),
        ("again.example", "/b/plain", one),
        ("same.example", "/plain", one),
    ):
        assert ask(site, host, path)[:2] == (200, answers), f"{host}{path}"
    assert ask(site, "both.example", "/plain")[0] in (403, 404)
    # Nothing is said of a host's application: it is that of /etc/lbadaptor/lbadaptor.toml, and nobody else's.
    assert ask(site, "none.example", "/plain")[0] == 503
    assert "/etc/lbadaptor/lbadaptor.toml" in eventually("it is logged", site.log)


@pytest.mark.parametrize("mode", ["embedded-debian", "daemon-debian"])
def test_a_reload_defines_the_same_again(clusters: dict[str, Cluster], mode: str) -> None:
    text = included(clusters, mode, ("one.example", [("one", "")]), ("two.example", [("two", "/two"), ("one", "")]))
    site = site_of(clusters, mode, text)
    # In daemon mode the old processes may hang up on those who come meanwhile (mod_wsgi issue 383).
    site.reload()
    for host, path, name in (
        ("one.example", "/", "one"),
        ("two.example", "/two/", "two"),
        ("two.example", "/", "one"),
    ):
        assert ask(site, host, f"{path}plain")[:2] == (200, pid(clusters[name]))


def test_each_host_has_its_own_fast_lane(clusters: dict[str, Cluster]) -> None:
    mode = "embedded-debian"
    log = clusters["one"].folder / "snippets.log"
    hosts = []
    for host, mounts in (
        ("one.example", [("one", "")]),
        ("two.example", [("two", "")]),
        ("both.example", [("two", "/two"), ("one", "")]),
        ("same.example", [("one", "/a"), ("one", "/b")]),
    ):
        text = included(clusters, mode, (host, mounts)).removesuffix("</VirtualHost>\n")
        taken = [] if len(mounts) == 1 else [f"{mounts[0][1]}(?:/|$)"]  # as `lbctl apache-config` finds them
        lanes = "".join(
            fastlane.snippet(clusters[name].settings, 2, mount, str(httpd.SHARE), name, [] if mount else taken)
            for name, mount in mounts
        )
        hosts.append(f'{text}{lanes}CustomLog {log} "%U %{{LBADAPTOR_SESSION}}e"\n</VirtualHost>\n')
    modules = httpd.installed()[0].modules
    names = ("rewrite", "proxy", "proxy_http", "headers")
    loaded = "".join(f"LoadModule {name}_module {modules}/mod_{name}.so\n" for name in names)
    site = site_of(clusters, mode, loaded + "".join(hosts))
    asked = [
        ("one.example", "", "one"),
        ("two.example", "", "two"),
        ("both.example", "/two", "two"),
        ("both.example", "", "one"),
        ("same.example", "/a", "one"),
        ("same.example", "/b", "one"),
    ]
    for host, mount, name in asked:
        status, answered, ticket = ask(site, host, f"{mount}/count")
        assert (status, answered) == (200, pid(clusters[name])), f"{host}{mount}"
        assert ticket
        assert ask(site, host, f"{mount}/plain", ticket)[:2] == (200, answered), f"{host}{mount}"
        other = "two" if name == "one" else "one"
        foreign = f"__PRT__={clusters[other].table().entries[0].ticket}"
        assert ask(site, host, f"{mount}/empty", foreign)[0] == 204, f"{host}{mount}"

    def lines() -> set[tuple[str, ...]]:
        found = {tuple(line.split()) for line in log.read_text().splitlines()}
        return {(where, session) for where, session in found if where != "/"}  # that was asked as it started

    pages = {"count": "none", "plain": "held", "empty": "-"}
    wanted = {(f"{mount}/{page}", session) for _, mount, _ in asked for page, session in pages.items()}
    eventually("all are logged", lambda: wanted <= lines())
    assert lines() == wanted
