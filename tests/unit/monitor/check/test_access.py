"""Who may read what: the adaptor as Apache's user, the monitor as its own, and everybody else."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from fake import APACHE, CONFIG, MONITOR, dump, facts, host, inodes, said, settings

from monitor.check import readable
from monitor.check.access import ENTER, READ, WRITE, Inode, Who, may, obstacle
from monitor.check.finding import CannotCheck

ROOT = Who("root", 0, frozenset((0,)))


@pytest.mark.parametrize(
    ("who", "mode", "allowed"),
    [
        (MONITOR, 0o640, READ | WRITE),
        (MONITOR, 0o040, 0),  # of the owner the owner's bits alone count
        (APACHE, 0o640, READ),
        (APACHE, 0o604, 0),  # of the group the group's
        (Who("nobody", 7, frozenset((7,))), 0o641, ENTER),
        (ROOT, 0o000, READ | WRITE | ENTER),
    ],
)
def test_what_is_allowed(who: Who, mode: int, allowed: int) -> None:
    inode = Inode(Path("/keys"), MONITOR.uid, 33, stat.S_IFREG | mode)
    assert sum(bit for bit in (READ, WRITE, ENTER) if may(who, inode, bit)) == allowed


def test_a_file_with_an_access_control_list_counts_as_readable() -> None:
    assert may(APACHE, Inode(Path("/keys"), 0, 0, stat.S_IFREG, has_acl=True), READ)


def test_the_outermost_obstacle_is_named_with_its_cure() -> None:
    way = [*inodes(("/root/venv/", 0, 0, 0o755), ("/root/", 0, 0, 0o700)).values()]
    way.sort(key=lambda inode: len(str(inode.path)))
    what, cure = obstacle(APACHE, way, ENTER)
    assert what == "www-data may not enter /root (mode 0700)"
    assert cure.startswith("`chmod o+x /root`, or move ")
    assert obstacle(ROOT, way, ENTER) == ("", "")


@pytest.mark.parametrize(
    ("gid", "mode", "cure"),
    [
        (0, 0o640, "`chgrp www-data /keys && chmod g+r /keys`"),
        (33, 0o600, "`chmod g+r /keys`"),
    ],
)
def test_the_cure_goes_by_what_is_missing(gid: int, mode: int, cure: str) -> None:
    assert obstacle(APACHE, [Inode(Path("/keys"), 0, gid, stat.S_IFREG | mode)], READ)[1] == cure


# Checks.


def test_a_python_that_the_monitors_user_cannot_enter() -> None:
    python = str(Path(sys.executable).absolute().parent)
    rows = inodes(("/", 0, 0, 0o755), (f"{python}/", 0, 0, 0o700))
    (found,) = said(readable.python_of_monitor(facts(inodes=rows)))
    assert f"lbadaptor may not enter {python} (mode 0700)" in found
    assert "cannot start" in found


def test_settings_that_the_monitors_user_cannot_read() -> None:
    rows = inodes((str(CONFIG), 0, 0, 0o600))
    (found,) = said(readable.settings_of_monitor(facts(inodes=rows)))
    assert found == (
        f"the monitor cannot start: lbadaptor may not read {CONFIG} (mode 0600); "
        f"`chgrp lbadaptor {CONFIG} && chmod g+r {CONFIG}`"
    )


def test_settings_that_neither_the_monitors_user_nor_apaches_can_read_have_one_cure() -> None:
    given = settings(files={"apache_group": "www-data"})
    one = facts(given, inodes=inodes((str(CONFIG), 0, 0, 0o600)), dump=dump(*host()))
    cure = f"`chgrp www-data {CONFIG} && chmod g+r {CONFIG}`"
    assert [found.rpartition("; ")[2] for found in said(readable.settings_of_monitor(one))] == [cure]
    assert said(readable.files_of_apache(one))[0].endswith(cure)


def test_a_python_that_apaches_user_cannot_enter() -> None:
    script = "/root/venv/share/lbadaptor/lbadaptor.wsgi"
    text = dump(*(line.replace("/opt/lbadaptor/share/lbadaptor/lbadaptor.wsgi", script) for line in host()))
    rows = inodes((script, 0, 0, 0o644), ("/root/", 0, 0, 0o700))
    (found,) = said(readable.python_of_apache(facts(dump=text, inodes=rows)))
    assert "every request fails: www-data may not enter /root (mode 0700)" in found


def test_pythonhome_is_looked_at() -> None:
    text = dump('WSGIPythonHome "/home/me/venv"', *host())
    rows = inodes(("/home/me/venv/", 0, 0, 0o755), ("/home/me/", 1000, 1000, 0o750))
    found = said(readable.python_of_apache(facts(dump=text, inodes=rows)))
    assert ["may not enter /home/me " in one for one in found] == [True]


RUN = "/run/lbadaptor-shop"
GOOD = [
    (str(CONFIG), 0, 0, 0o644),
    (f"{RUN}/", 990, 990, 0o755),
    *((f"{RUN}/{name}", 990, 33, 0o640) for name in ("settings.json", "address.text", "callerkeys.text")),
    (f"{RUN}/available.text", 990, 33, 0o640),
    ("/var/lib/lbadaptor-shop/", 990, 990, 0o755),
    ("/var/lib/lbadaptor-shop/keys", 990, 33, 0o640),
]


def wrong(path: str, gid: int, mode: int) -> list[tuple[str, int, int, int]]:
    return [(path, 990, gid, mode) if row[0] == path else row for row in GOOD]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (GOOD, ""),
        (wrong(str(CONFIG), 990, 0o640), f"www-data may not read {CONFIG}"),
        (wrong(f"{RUN}/address.text", 990, 0o640), f"Apache finds no AppServer: www-data may not read {RUN}/address"),
        (wrong(f"{RUN}/callerkeys.text", 33, 0o600), f"www-data may not read {RUN}/callerkeys.text"),
        (wrong(f"{RUN}/settings.json", 990, 0o640), f"www-data may not read {RUN}/settings.json"),
        (wrong("/var/lib/lbadaptor-shop/keys", 990, 0o640), "takes every ticket for forged: www-data may not read"),
        (wrong("/var/lib/lbadaptor-shop/", 990, 0o700), "takes every ticket for forged: www-data may not enter"),
        (wrong(f"{RUN}/", 990, 0o750), f"www-data may not enter {RUN}"),
    ],
)
def test_what_apache_has_to_read(rows: list[tuple[str, int, int, int]], what: str) -> None:
    found = said(readable.files_of_apache(facts(dump=dump(*host()), inodes=inodes(*rows))))
    assert what in "".join(found)
    assert len(found) == bool(what)


def test_without_the_adaptor_in_its_configuration_apaches_user_needs_nothing() -> None:
    for check in (readable.files_of_apache, readable.python_of_apache):
        with pytest.raises(CannotCheck, match="nothing in Apache's configuration leads"):
            list(check(facts(dump=dump("Listen 80"))))


def test_what_everybody_can_read() -> None:
    rows = [(path, uid, gid, mode | 0o004) for path, uid, gid, mode in GOOD if not path.endswith("/")]
    rows += [row for row in GOOD if row[0].endswith("/")]
    found = said(readable.open_to_all(facts(inodes=inodes(*rows))))
    assert [one.split(" in ")[1].split(" ")[0] for one in found] == [
        f"{RUN}/{name}.text" for name in ("address", "callerkeys", "available")
    ]
    assert "`chmod 0640 /run/lbadaptor-shop/address.text`" in found[0]
    assert said(readable.open_to_all(facts(inodes=inodes(*GOOD)))) == []
