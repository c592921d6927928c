"""`lbctl install` and `lbctl uninstall`: what is written, kept, enabled and taken back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from install_machine import BOARD, SHOP, SITE, Debian

from monitor.apacheconfig import ask_apache
from monitor.install import checks, doing, taking_back
from monitor.install.machine import run
from monitor.install.records import Records
from monitor.install.wanted import Refused, Wanted

TABLE = ((0, 9015, "0A"), (1, 9101, "01"))
"""In the second row somebody is connected, and nobody listens."""


def test_ports_that_somebody_listens_on_are_left_to_them(debian: Debian) -> None:
    table = debian.root / "proc/net/tcp"
    table.parent.mkdir(parents=True)
    rows = (f"{number}: 0100007F:{port:04X} 0 {state} 0 0 0 0 0 0\n" for number, port, state in TABLE)
    table.write_text("sl local_address rem_address st\n" + "".join(rows))
    assert debian.prepare(SHOP).settings.appservers.base_port == 9100


def test_what_an_installation_writes_and_runs_and_that_a_second_one_changes_nothing(debian: Debian) -> None:
    assert debian.install(SHOP)
    assert [call for call in debian.calls if not call.startswith("systemctl is-")][1:] == [
        "systemd-sysusers /etc/sysusers.d/lbadaptor.conf",
        "systemd-tmpfiles --create /etc/tmpfiles.d/lbadaptor-shop.conf",
        "systemctl daemon-reload",
        "systemctl enable --now lbadaptor@shop.service",
        "a2enmod --quiet wsgi rewrite proxy proxy_http unique_id",
        "apache2ctl configtest",
        "systemctl reload-or-restart apache2",
    ]
    assert "Include /etc/apache2/lbadaptor-shop.conf" in debian.read(SITE)
    assert "RewriteRule" in debian.read("/etc/apache2/lbadaptor-shop.conf")  # the fast lane
    record = json.loads(debian.read("/etc/lbadaptor/installed/shop.json"))
    assert record["modules"] == ["proxy", "proxy_http", "rewrite", "unique_id", "wsgi"]
    modes = {path.name: path.stat().st_mode & 0o777 for path in (debian.root / "etc/lbadaptor").iterdir()}
    assert modes == {"shop.toml": 0o644, "installed": 0o755}

    before = debian.tree()
    assert not debian.install(SHOP)
    assert debian.tree() == before
    assert [call for call in debian.calls if not call.startswith("systemctl is-")][1:] == []


def test_all_is_taken_back(debian: Debian) -> None:
    before = debian.tree()
    run_folder = debian.root / "run/lbadaptor-shop"
    debian.install(SHOP)
    run_folder.mkdir()
    assert debian.uninstall("shop") == []
    assert debian.tree() == before
    assert not run_folder.exists()
    assert "systemctl disable --now lbadaptor@shop.service" in debian.calls
    with pytest.raises(Refused, match="shop is not installed by `lbctl install`; nothing is"):
        debian.uninstall("shop")


def test_a_changed_file_is_kept_unless_by_force(debian: Debian) -> None:
    debian.install(SHOP)
    toml = debian.root / "etc/lbadaptor/shop.toml"
    edited = toml.read_text().replace("# survive", "survive")
    toml.write_text(edited)
    assert [change.path for change in debian.prepare(SHOP).changes if change.kept] == ["/etc/lbadaptor/shop.toml"]
    [warning] = debian.prepare(replace(SHOP, servers=2)).warnings
    assert "with servers = 4: change it there to 2" in warning
    assert debian.prepare(SHOP).warnings == []
    assert not debian.install(replace(SHOP, servers=2))
    assert toml.read_text() == edited
    assert debian.install(SHOP, force=True)
    assert "# survive" in toml.read_text()
    assert "systemctl reload lbadaptor@shop" in debian.calls  # a release

    toml.write_text(edited)
    leaving = taking_back.prepare_leaving(debian.machine, Records(debian.machine), "shop", False)
    assert "/etc/lbadaptor/shop.toml, which was changed: rm /etc/lbadaptor/shop.toml" in taking_back.left(
        leaving, Records(debian.machine)
    )
    assert debian.uninstall("shop") == []
    assert toml.read_text() == edited
    with pytest.raises(Refused, match="the name shop is taken"):
        debian.prepare(SHOP)


def test_what_was_there_before_is_neither_written_nor_removed(debian: Debian) -> None:
    unit = debian.root / "etc/systemd/system/lbadaptor@.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("mine")
    before = debian.tree()
    debian.install(SHOP)
    assert unit.read_text() == "mine"
    assert debian.uninstall("shop") == []
    assert debian.tree() == before


def test_an_interrupted_installation_can_be_taken_back(debian: Debian) -> None:
    before = debian.tree()
    for step in ("systemd-tmpfiles", "a2enmod", "apache2ctl configtest"):
        debian.fails = {step: "no"}
        with pytest.raises(Refused, match=f"`{step}.* failed .*: no"):
            debian.install(SHOP)
        debian.fails = {}
        assert debian.uninstall("shop") == []
        assert debian.tree() == before


@pytest.mark.parametrize(
    ("fails", "again"),
    [
        ("systemd-sysusers", "systemd-sysusers /etc/sysusers.d/lbadaptor.conf"),
        ("systemd-tmpfiles", "systemd-tmpfiles --create /etc/tmpfiles.d/lbadaptor-shop.conf"),
        ("systemctl daemon-reload", "systemctl daemon-reload"),
        ("systemctl enable", "systemctl enable --now lbadaptor@shop.service"),
        ("a2enmod", "a2enmod --quiet wsgi rewrite proxy proxy_http unique_id"),
        ("apache2ctl configtest", "apache2ctl configtest"),
        ("systemctl reload-or-restart", "systemctl reload-or-restart apache2"),
    ],
)
def test_an_interrupted_installation_goes_on_where_it_ended(debian: Debian, fails: str, again: str) -> None:
    debian.fails = {fails: "no"}
    with pytest.raises(Refused):
        debian.install(SHOP)
    debian.fails = {}
    assert debian.install(SHOP)
    assert again in debian.calls
    assert debian.calls[-1] == "systemctl reload-or-restart apache2"
    assert not debian.install(SHOP)
    assert again not in debian.calls


def test_an_apache_that_does_not_run_is_started(debian: Debian) -> None:
    debian.active.discard("apache2")
    debian.install(SHOP)
    debian.active.discard("apache2")
    debian.install(SHOP)
    assert "systemctl reload-or-restart apache2" in debian.calls


def test_modules_that_something_else_needs_stay(debian: Debian) -> None:
    debian.install(SHOP)
    debian.fails = {"a2dismod --quiet proxy": "another module needs it"}
    assert debian.uninstall("shop") == []
    left = {path.name for path in (debian.root / "etc/apache2/mods-enabled").iterdir()}
    assert left == {"headers.load", "proxy.load", "proxy_http.load"}


def test_a_service_that_cannot_be_stopped_leaves_the_record(debian: Debian) -> None:
    debian.install(SHOP)
    debian.fails = {"systemctl disable": "no"}
    [why] = debian.uninstall("shop")
    assert "systemctl disable --now lbadaptor@shop.service" in why
    debian.fails = {}
    assert debian.uninstall("shop") == []


def test_a_systemd_that_does_not_read_its_units_is_told_and_nothing_is_left(debian: Debian) -> None:
    before = debian.tree()
    debian.install(SHOP)
    debian.fails = {"systemctl daemon-reload": "no"}
    assert debian.uninstall("shop") == []
    assert debian.tree() == before


def test_apache_is_as_before_where_no_appserver_is_ready(debian: Debian) -> None:
    def none_is_ready() -> None:
        raise Refused("no module named 'shop'")

    before = {path: text for path, text in debian.tree().items() if "/apache2" in path}
    with pytest.raises(Refused, match="no module named"):
        doing.install(debian.machine, Records(debian.machine), debian.prepare(SHOP), lambda _: None, none_is_ready)
    assert {path: text for path, text in debian.tree().items() if "/apache2" in path} == before
    assert debian.install(SHOP)
    assert debian.uninstall("shop") == []


def test_a_monitor_that_does_not_start_is_said_with_its_log(debian: Debian) -> None:
    debian.fails = {"systemctl enable": "job failed", "journalctl": "lbmonitor: the key file cannot be read"}
    with pytest.raises(Refused, match=r"(?s)does not start: job failed.*the key file cannot be read"):
        debian.install(SHOP)


# What stands against it.


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("usr/sbin/a2enmod", "apt-get install apache2"),
        ("etc/apache2/mods-available/wsgi.load", "apt-get install libapache2-mod-wsgi-py3"),
    ],
)
def test_missing_packages_are_named(debian: Debian, missing: str, said: str) -> None:
    (debian.root / missing).unlink()
    with pytest.raises(Refused, match=said):
        debian.prepare(SHOP)


def test_words_that_cannot_be_settings_are_named_with_their_file(debian: Debian) -> None:
    with pytest.raises(Refused, match=r"shop\.toml, as it would be written: line \d+: .* session_cookie: expected"):
        debian.prepare(replace(SHOP, session_cookie="no cookie"))


@pytest.mark.parametrize("path", ["/a b", "/..", "/a/../b", "/.", "/a/.", "//a", "/a//b", '/a"', "/\u00e4", "a"])
def test_a_path_that_no_browser_asks_for_is_refused(debian: Debian, path: str) -> None:
    with pytest.raises(Refused, match="a path is needed, such as"):
        debian.prepare(replace(SHOP, path=path))
    debian.prepare(replace(SHOP, path="/a/...b/.well-known"))


def test_an_ordinary_user_is_refused(debian: Debian, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Refused, match="only root"):
        debian.prepare(SHOP)


def test_a_mod_wsgi_of_another_python_is_refused(debian: Debian) -> None:
    module = debian.root / "usr/lib/apache2/modules/mod_wsgi.so"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"\0libpython3.4m.so.1.0\0")
    with pytest.raises(Refused, match=r"runs Python 3\.4"):
        debian.prepare(SHOP)


def test_what_lbmonitor_finds_is_said_and_nothing_is_written(debian: Debian) -> None:
    before = debian.tree()
    debian.fails = {"runuser": "there is no module 'shop'\n/tmp/x: note: of no use\nbase_port: taken"}
    with pytest.raises(Refused) as refused:
        debian.prepare(SHOP)
    assert "there is no module 'shop'" in str(refused.value)
    assert "base_port: taken" in str(refused.value)
    assert debian.tree() == before


def test_what_is_to_be_known_of_a_neighbour(debian: Debian) -> None:
    debian.install(SHOP)
    assert debian.prepare(BOARD).warnings == []
    [warning] = debian.prepare(replace(BOARD, session_cookie="session")).warnings
    assert "shop, on the same host, has the same session cookie, session" in warning
    assert debian.prepare(replace(SHOP, name="other", host="other.example.com")).warnings == []


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (replace(SHOP, name="again"), "shop is installed at / of the default site already"),
        (replace(BOARD, name="again"), "board is installed at /board/ of the default site already"),
        (replace(BOARD, name="deep", path="/board/deep"), "neither path may lie within the other"),
        (replace(BOARD, path="/other"), "`lbctl uninstall board` first"),
    ],
)
def test_a_place_that_is_taken(debian: Debian, wanted: Wanted, said: str) -> None:
    debian.install(SHOP)
    debian.install(BOARD)
    with pytest.raises(Refused, match=said):
        debian.prepare(wanted)
    debian.prepare(replace(BOARD, name="boards", path="/boards"))


def test_an_application_that_was_installed_by_hand_is_not_covered(
    debian: Debian, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = 'WSGIScriptAliasMatch "^/[\\s\\S]*$" "/opt/lbadaptor/share/lbadaptor/lbadaptor.wsgi"\n</VirtualHost>'
    monkeypatch.setattr(ask_apache, "dump", lambda _: debian.dump("").replace("</VirtualHost>", alias))
    with pytest.raises(
        Refused, match="an application that `lbctl install` does not know is at / of the default site"
    ):
        debian.prepare(SHOP)
    debian.install(BOARD)
    with pytest.raises(Refused, match="does not know is at / of"):
        debian.prepare(SHOP)


def test_a_user_who_could_read_the_keys_is_refused(debian: Debian, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "APACHE_GROUP", "daemon")
    with pytest.raises(Refused, match="daemon is in Apache's group"):
        debian.prepare(replace(SHOP, user="daemon"))
    with pytest.raises(Refused, match="there is no user nobody-of-them"):
        debian.prepare(replace(SHOP, user="nobody-of-them"))


def test_root_is_no_user_for_an_application(debian: Debian) -> None:
    with pytest.raises(Refused, match="not to run as root"):
        debian.prepare(replace(SHOP, user="root"))


def test_programs_for_root_are_found_after_su(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(("ldconfig", "--version")).code == 0


def test_a_record_that_is_none_is_named(debian: Debian) -> None:
    debian.install(SHOP)
    (debian.root / "etc/lbadaptor/installed/shop.json").write_text("{")
    with pytest.raises(Refused, match=r"/etc/lbadaptor/installed/shop\.json is not what"):
        Records(debian.machine)
