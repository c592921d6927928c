"""`lbctl install` and `lbctl uninstall`, on a machine with Debian's own Apache that systemd boots."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian import CONFIGURATIONS, MODULES, PACKAGE
from machine import APPLICATION, Machine, logged

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can boot a systemd")


LBCTL = "/opt/lbadaptor/bin/lbctl"
SHOP = ("shop", "--app", "shop:application", "--folder", "/srv/shop", "--session-cookie", "session")
BOARD = ("board", "--app", "board:application", "--folder", "/srv/board", "--session-cookie", "session")
SITE = """
<VirtualHost *:80>
    DocumentRoot /var/www/html
    CustomLog /var/log/lane.log "%U %{LBADAPTOR_SESSION}e"
</VirtualHost>
"""
INSTALL = f"""
rm -rf /etc/apache2/*-enabled /etc/apache2/sites-available
cp -R /package/etc /package/usr /
[ ! -d /package/lib ] || cp -R /package/lib/. /usr/lib/
mkdir -p /var/log/apache2 /var/cache/apache2/mod_cache_disk /var/www/html
cd /etc/apache2
mkdir -p conf-enabled mods-enabled sites-enabled
a2enmod --quiet mpm_event {" ".join(MODULES)}
a2enconf --quiet {" ".join(CONFIGURATIONS)}
a2ensite --quiet 000-default
"""


def debians_apache(files: Path) -> None:
    """As its package leaves it, which `apache/install.sh test` has unpacked; and two applications that are nowhere
    installed."""
    shutil.copytree(PACKAGE, files / "package", symlinks=True)
    for name in ("shop", "board"):
        folder = files / "srv" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(APPLICATION)
    (files / "install.sh").write_text(INSTALL)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"), debians_apache)
    try:
        yield machine
    finally:
        machine.end()


def etc(machine: Machine) -> str:
    """All of /etc but the users, which stay: the checksums of files, the targets of links, the modes of all."""
    users = "passwd|passwd-|group|group-|shadow|shadow-|gshadow|gshadow-|.pwd.lock|ld.so.cache"
    find = f"find /etc -regextype posix-extended -not -regex '/etc/({users})' -printf '%p %m %l\\n'"
    sums = "find /etc -type f -exec md5sum {} +"
    return machine.run("sh", "-euc", f"{find} | sort; {sums} | grep -Ev ' /etc/({users})$' | sort -k2")


def visits(machine: Machine, path: str, host: str = "localhost") -> int:
    """Of the one visitor of a path."""
    jar = f"/var/cookies-{host}" + path.replace("/", "-")
    there = ("--resolve", f"{host}:80:127.0.0.1")
    answer = machine.run("curl", "-sS", "-b", jar, "-c", jar, *there, f"http://{host}{path}/visit")
    count: int = json.loads(answer)["visits"]
    return count


def test_two_applications_are_installed_and_taken_back(machine: Machine) -> None:
    machine.write("/etc/apache2/sites-available/000-default.conf", SITE)
    before = etc(machine)
    said = machine.run(LBCTL, "install", *SHOP, "--servers", "1", "--yes")
    assert "http://localhost/ answers" in said
    assert "No fast lane" not in said
    assert [visits(machine, "") for _ in range(3)] == [1, 2, 3]

    shop = etc(machine)
    again = machine.run(LBCTL, "install", "shop")  # nobody is asked, since there is nothing to do
    assert "Nothing was to be changed." in again
    assert "http://localhost/ answers" in again
    assert etc(machine) == shop

    machine.run(LBCTL, "install", *BOARD, "--servers", "1", "--path", "/board", "--yes")
    assert [visits(machine, "/board") for _ in range(3)] == [1, 2, 3]
    assert visits(machine, "") == 4
    assert logged(machine, "/board/visit", 3) == ["none", "held", "held"]  # "-": the Python lane
    assert logged(machine, "/visit", 4) == ["none", "held", "held", "held"]

    machine.run(LBCTL, "uninstall", "board", "--yes")
    assert etc(machine) == shop
    assert visits(machine, "") == 5
    machine.run(LBCTL, "uninstall", "shop", "--yes")
    assert etc(machine) == before
    assert machine.run("sh", "-c", "ls /run | grep lbadaptor", check=False) == ""
    assert "/opt/lbadaptor/bin" not in machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert machine.run("curl", "-sSo", "/dev/null", "-w", "%{http_code}", "http://localhost/visit") == "404"


def test_two_applications_share_the_virtual_host_that_is_made_for_their_host(machine: Machine) -> None:
    before = etc(machine)
    host, options = "shop.example.com", ("--servers", "1", "--yes")
    machine.run(LBCTL, "install", *SHOP, "--host", host, *options)
    assert [visits(machine, "", host) for _ in range(2)] == [1, 2]
    machine.run(LBCTL, "install", *BOARD, "--host", host, "--path", "/board", *options)
    assert [visits(machine, "/board", host) for _ in range(2)] == [1, 2]
    assert visits(machine, "", host) == 3

    machine.run(LBCTL, "uninstall", "shop", "--yes")
    assert visits(machine, "/board", host) == 3
    machine.run(LBCTL, "uninstall", "board", "--yes")
    assert etc(machine) == before
