"""From what is wanted and what is there to the files of an installation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.contract.settings import Settings, parse
from monitor.install import plan
from monitor.install.diff import change, shown
from monitor.install.facts import Facts
from monitor.install.plan import File
from monitor.install.records import digest
from monitor.install.wanted import Refused, Wanted, check, likely_cookie

UNITS = Path(__file__).parents[4] / "monitor" / "units"
SHARE = {name: (UNITS / name).read_text() for name in (plan.UNIT, plan.SYSUSERS, plan.TMPFILES)}
SHOP = Wanted("shop", "shop:application", "/srv/shop", "session")
BOARD = Wanted("board", "board:application", "/srv/board", "sid", path="/board")


def facts(**values: Any) -> Facts:
    nothing: dict[str, Any] = {
        "neighbours": {},
        "mine": None,
        "listening": frozenset(),
        "missing_modules": (),
        "dump": "",
        "prefix": "/opt/lbadaptor",
        "share": "/opt/lbadaptor/share/lbadaptor",
    }
    return Facts(**{**nothing, **values})


def settings(wanted: Wanted, **values: Any) -> Settings:
    return parse(plan.toml(wanted, facts(**values)), "/etc/lbadaptor")


def files(wanted: Wanted, **values: Any) -> dict[str, str]:
    made = plan.files(wanted, facts(**values), SHARE, "toml", "apache")
    return {file.path: file.text for file in made}


# lbadaptor.toml.


def test_the_settings_say_what_is_wanted() -> None:
    found = settings(replace(SHOP, servers=2, user="shop", folder='/srv/"shop"\\\x7f'))
    assert (found.application.app, found.application.session_cookie) == ("shop:application", "session")
    assert (found.appservers.servers, found.appservers.user) == (2, "shop")
    assert found.appservers.working_folder == '/srv/"shop"\\\x7f'
    assert (found.run_folder, found.key_file) == (Path("/run/lbadaptor-shop"), Path("/var/lib/lbadaptor-shop/keys"))
    assert (found.files.apache_group, str(found.session_folder)) == ("www-data", "/var/lib/lbadaptor-shop/sessions")


def test_a_second_application_gets_ports_folders_and_a_ticket_of_its_own() -> None:
    one = settings(SHOP)
    two = settings(BOARD, neighbours={"/etc/lbadaptor/shop.toml": one})
    assert (one.appservers.base_port, two.appservers.base_port) == (9000, 9100)
    assert (one.application.ticket_cookie, two.application.ticket_cookie) == ("__SHOP__", "__BOARD__")
    assert {one.run_folder, one.key_file, one.session_folder}.isdisjoint(
        {two.run_folder, two.key_file, two.session_folder}
    )


def test_names_that_come_to_one_ticket_get_two() -> None:
    one = settings(replace(SHOP, name="a-b"))
    two = settings(replace(SHOP, name="a_b"), neighbours={"one": one})
    assert (one.application.ticket_cookie, two.application.ticket_cookie) == ("__A_B__", "__A_B1__")


@pytest.mark.parametrize(
    ("neighbour", "taken", "servers", "first"),
    [
        ("", set(), 0, 9000),
        ("", {9015}, 0, 9100),
        ("", {9016}, 0, 9000),
        ("base_port = 9015\nslots = 100", set(), 0, 9200),  # up to 9114
        ("base_port = 8990\nslots = 10", set(), 0, 9000),
        ("base_port = 9050\nservers = 1", set(), 12, 9000),  # up to 9047
        ("base_port = 9050\nservers = 1", set(), 13, 9100),
    ],
)
def test_ports_meet_nobody_elses(neighbour: str, taken: set[int], servers: int, first: int) -> None:
    there = parse(f'[application]\napp = "a:b"\nsession_cookie = "c"\n[appservers]\n{neighbour}\n')
    neighbours = {"/etc/lbadaptor/lbadaptor.toml": there} if neighbour else {}
    found = settings(replace(SHOP, servers=servers), neighbours=neighbours, listening=frozenset(taken))
    assert found.appservers.base_port == first


def test_an_earlier_installation_keeps_its_ports_and_ticket() -> None:
    mine = parse(
        '[application]\napp = "a:b"\nsession_cookie = "c"\nticket_cookie = "T"\n[appservers]\nbase_port = 9300'
    )
    ours = frozenset(range(9300, 9304))  # AppServers listen
    found = settings(SHOP, mine=mine, listening=ours)
    assert (found.appservers.base_port, found.application.ticket_cookie) == (9300, "T")
    assert settings(replace(SHOP, servers=10), mine=mine, listening=ours | {9320}).appservers.base_port == 9000


def test_no_free_ports_are_said() -> None:
    with pytest.raises(Refused, match="no 16 ports in a row are free from 9000"):
        settings(SHOP, listening=frozenset(range(1, 65536)))


# Files.


def test_files_of_the_usual_installation() -> None:
    found = files(SHOP)
    assert list(found) == [
        "/etc/lbadaptor/shop.toml",
        "/etc/sysusers.d/lbadaptor.conf",
        "/etc/tmpfiles.d/lbadaptor-shop.conf",
        "/etc/systemd/system/lbadaptor@.service",
        "/etc/apache2/lbadaptor-shop.conf",
    ]
    rows = [row.split() for row in found["/etc/tmpfiles.d/lbadaptor-shop.conf"].splitlines() if row[0] in "df"]
    assert [row[1] for row in rows] == [
        "/run/lbadaptor-shop",
        *(f"/run/lbadaptor-shop/{name}.text" for name in ("address", "callerkeys", "available")),
    ]
    assert {row[3] for row in rows} == {"lbadaptor"}
    assert found["/etc/systemd/system/lbadaptor@.service"] == SHARE[plan.UNIT]


def test_a_host_without_a_virtual_host_gets_one_for_all_its_applications() -> None:
    host = "shop.example.com"
    shop, board = replace(SHOP, host=host), replace(BOARD, host=host)
    one = plan.site(shop, 8080, "", [])
    assert one.path == "/etc/apache2/sites-available/lbadaptor-shop.example.com.conf"
    assert one.text.splitlines()[1:] == [
        "<VirtualHost *:8080>",
        "    ServerName shop.example.com",
        "    Include /etc/apache2/lbadaptor-shop.conf",
        "</VirtualHost>",
    ]
    assert plan.site(shop, 8080, one.text, []) == one
    both = plan.site(board, 8080, one.text, ["Include /etc/apache2/lbadaptor-shop.conf"])
    assert both.path == one.path
    assert both.text.splitlines()[3:5] == [
        "    Include /etc/apache2/lbadaptor-board.conf",
        "    Include /etc/apache2/lbadaptor-shop.conf",
    ]
    assert plan.site(shop, 8080, both.text, []) == both
    assert digest(both.text) == digest(one.text) != digest(f"{one.text}#\n")


def test_an_apache_without_virtual_hosts_includes_it_in_the_server() -> None:
    found = plan.conf(BOARD)
    assert found.path == "/etc/apache2/conf-available/lbadaptor-board.conf"
    assert found.text.splitlines()[1:] == ["Include /etc/apache2/lbadaptor-board.conf"]


def test_another_python_is_named_in_a_drop_in() -> None:
    drop_in = files(SHOP, prefix="/srv/shop/venv")["/etc/systemd/system/lbadaptor@shop.service.d/install.conf"]
    rows = drop_in.splitlines()
    assert rows[:3] == [
        "[Service]",
        "ExecStart=",
        "ExecStart=/srv/shop/venv/bin/lbmonitor --config /etc/lbadaptor/%i.toml",
    ]
    assert rows[3] == "ExecStopPost="
    assert "/srv/shop/venv/bin/lbctl --config /etc/lbadaptor/%i.toml stop --all" in rows[4]
    assert "/opt/lbadaptor/bin" not in drop_in
    with pytest.raises(Refused, match="cannot stand in a unit"):
        files(SHOP, prefix="/srv/my shop")


def test_another_user_makes_the_monitor_root_as_the_howto_says() -> None:
    drop_in = files(replace(SHOP, user="shop"))["/etc/systemd/system/lbadaptor@shop.service.d/install.conf"]
    page = (UNITS.parents[1] / "docs" / "howto" / "another-user.md").read_text()
    assert drop_in.splitlines() == [
        line.strip() for line in page[page.index("    [Service]") :].split("\n\n")[0].splitlines()
    ]
    assert not [path for path in files(replace(SHOP, user="lbadaptor")) if path.endswith("install.conf")]


# Words.


@pytest.mark.parametrize(
    "values",
    [
        {"name": "my shop"},
        {"name": "../shop"},
        {"name": ""},
        {"host": "www example"},
        {"user": "a\nb"},
        {"folder": "srv"},
    ],
)
def test_words_that_are_no_names_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(Refused):
        check(replace(SHOP, **values))  # type: ignore[arg-type]
    check(SHOP)


@pytest.mark.parametrize(
    ("source", "framework", "cookie"),
    [
        ("import os\nfrom flask import Flask\n", "flask", "session"),
        ("from django.core.wsgi import get_wsgi_application", "django", "sessionid"),
        ("def main():\n    import cherrypy\n", "cherrypy", "session_id"),
        ("import flask\nimport beaker\n", "", ""),
        ("text = 'import flask'\n# import flask", "", ""),
    ],
)
def test_a_cookie_is_suggested_only_where_one_framework_is_plain_to_see(
    source: str, framework: str, cookie: str
) -> None:
    assert likely_cookie(source) == (framework, cookie)


# What is shown.


@pytest.mark.parametrize(
    ("there", "written", "force", "due", "kept"),
    [
        (None, [], False, True, False),
        ("new\n", [], False, False, False),
        ("old\n", [digest("old\n")], False, True, False),
        ("edited\n", [digest("old\n")], False, False, True),
        ("edited\n", [digest("old\n")], True, True, False),
        ("somebody's\n", [], False, False, True),
        ("somebody's\n", [], True, True, False),
    ],
)
def test_what_somebody_else_wrote_is_kept(
    there: str | None, written: list[str], force: bool, due: bool, kept: bool
) -> None:
    found = change(File("/a", "new\n"), there, written, force)
    assert (found.is_due, found.kept) == (due, kept)


def test_a_diff_of_everything() -> None:
    changes = [
        change(File("/new", "1\n2\n"), None, [], False),
        change(File("/same", "1\n"), "1\n", [], False),
        change(File("/kept", "1\n"), "2\n", [], False),
        change(File("/long", "x\n" * 500), "y\n", [], True),
    ]
    lines = list(shown(changes, whole=False))
    assert lines[:5] == ["--- /dev/null", "+++ /new", "@@ -0,0 +1,2 @@", "+1", "+2"]
    assert lines[5] == "/same: as it is to be"
    assert lines[6].startswith("/kept: kept as it is")
    assert lines[-1] == "… 429 lines more: --dry-run shows all"
    assert len(list(shown(changes, whole=True))) == 511
