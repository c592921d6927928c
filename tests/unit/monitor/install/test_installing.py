"""`lbctl install` and `lbctl uninstall` on a root folder of their own, with commands that only note their calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from monitor.apacheconfig import ask_apache
from monitor.install import checks, doing, facts, taking_back
from monitor.install.machine import Done, Machine, run
from monitor.install.prepare import Prepared, prepare
from monitor.install.records import Records
from monitor.install.wanted import Refused, Wanted

UNITS = Path(__file__).parents[4] / "monitor" / "units"
SHOP = Wanted("shop", "shop:application", "/srv/shop", "session")
BOARD = Wanted("board", "board:application", "/srv/board", "sid", path="/board")
SITE = "/etc/apache2/sites-available/000-default.conf"
HOST = "shop.example.com"
HOSTS_SITE = f"/etc/apache2/sites-available/lbadaptor-{HOST}.conf"
TABLE = ((0, 9015, "0A"), (1, 9101, "01"))
"""In the second row somebody is connected, and nobody listens."""
DEFAULT_SITE = "<VirtualHost *:80>\n\tDocumentRoot /var/www/html\n</VirtualHost>\n"


class Debian:
    """A root folder as Debian's Apache leaves it, and its commands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.fails: dict[str, str] = {}
        """by a command's beginning, what it says"""
        self.active: set[str] = {"apache2"}
        self.machine = Machine(root, self.run)
        for name in ("sites-enabled", "conf-enabled", "mods-enabled"):
            (root / "etc/apache2" / name).mkdir(parents=True)
        for path in ("usr/sbin/a2enmod", "usr/sbin/apache2ctl", "etc/apache2/mods-available/wsgi.load"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        (root / "run/systemd/system").mkdir(parents=True)
        (root / "etc/apache2/mods-enabled/headers.load").touch()
        (root / SITE[1:]).parent.mkdir()
        (root / SITE[1:]).write_text(DEFAULT_SITE)
        (root / "etc/apache2/sites-enabled/000-default.conf").symlink_to("../sites-available/000-default.conf")

    def run(self, words: Sequence[str]) -> Done:
        call = " ".join(words)
        self.calls.append(call)
        if failing := next((said for begin, said in self.fails.items() if call.startswith(begin)), ""):
            return Done(1, failing)
        apache = self.root / "etc/apache2"
        names = [word for word in words[1:] if not word.startswith("-")]
        for program, kind, suffix in (("mod", "mods", "load"), ("site", "sites", "conf"), ("conf", "conf", "conf")):
            for name in names:
                link = apache / f"{kind}-enabled" / f"{name}.{suffix}"
                if words[0] == f"a2en{program}":
                    link.symlink_to(f"../{kind}-available/{link.name}")
                elif words[0] == f"a2dis{program}":
                    link.unlink(missing_ok=True)
        if words[:2] in (("systemctl", "is-active"), ("systemctl", "is-enabled")):
            return Done(int(words[2] not in self.active), "")
        if words[:3] == ("systemctl", "enable", "--now"):
            self.active.add(words[3].removesuffix(".service"))
        elif words[:3] == ("systemctl", "disable", "--now"):
            self.active.discard(words[3].removesuffix(".service"))
        return Done(0, "")

    def dump(self, command: str) -> str:
        """Apache's configuration: the default site, and what it includes."""
        text = f"# In file: /etc/apache2/sites-enabled/000-default.conf\n{DEFAULT_SITE}"
        for file in sorted((self.root / "etc/apache2/sites-enabled").iterdir()):
            site = file.read_text()
            if file.name != "000-default.conf":
                text += f"# In file: /etc/apache2/sites-enabled/{file.name}\n{site}"
            text += "".join(f"# In file: {line.split()[1]}\n" for line in site.splitlines() if "Include" in line)
        return text + "".join(f" {name}_module (shared)\n" for name in facts.MODULES)

    def tree(self) -> dict[str, str]:
        """All files of /etc."""
        etc = self.root / "etc"
        return {
            str(path): path.read_text() if path.is_file() and not path.is_symlink() else str(path.is_symlink())
            for path in etc.rglob("*")
        }

    def prepare(self, wanted: Wanted, force: bool = False) -> Prepared:
        return prepare(self.machine, Records(self.machine), wanted, force)

    def install(self, wanted: Wanted, force: bool = False) -> bool:
        self.calls.clear()
        prepared = self.prepare(wanted, force)
        return doing.install(self.machine, Records(self.machine), prepared, lambda _: None, lambda: None)

    def uninstall(self, name: str, force: bool = False) -> list[str]:
        self.calls.clear()
        records = Records(self.machine)
        leaving = taking_back.prepare_leaving(self.machine, records, name, force)
        list(taking_back.steps(leaving))
        return taking_back.take_back(self.machine, records, leaving, lambda _: None)

    def read(self, path: str) -> str:
        return (self.root / path[1:]).read_text()


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    machine = Debian(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(ask_apache, "dump", machine.dump)
    monkeypatch.setattr(facts.Facts, "share", str(UNITS))
    monkeypatch.setattr("monitor.install.facts.SHARE", UNITS)
    return machine


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


@pytest.mark.parametrize("host", ["", HOST])
@pytest.mark.parametrize("first", ["shop", "board"])
def test_two_applications_are_taken_back_in_any_order(debian: Debian, first: str, host: str) -> None:
    before = debian.tree()
    shop, board = replace(SHOP, host=host), replace(BOARD, host=host)
    debian.install(shop)
    alone = debian.tree()
    debian.install(board)
    assert "base_port = 9100" in debian.read("/etc/lbadaptor/board.toml")
    lines = [line.strip() for line in debian.read(HOSTS_SITE if host else SITE).splitlines()]
    assert lines.index("Include /etc/apache2/lbadaptor-board.conf") < lines.index(
        "Include /etc/apache2/lbadaptor-shop.conf"
    )
    assert "--keep-out /board" in debian.read("/etc/apache2/lbadaptor-shop.conf")
    assert not debian.install(shop)
    assert not debian.install(board)

    assert debian.uninstall(first) == []
    assert not any(call.startswith("a2dissite") for call in debian.calls)
    assert not any(call.startswith("a2dismod") for call in debian.calls)
    if first == "board":
        assert debian.tree() == alone
    assert (debian.root / "etc/systemd/system/lbadaptor@.service").exists()
    assert debian.uninstall({"shop": "board", "board": "shop"}[first]) == []
    assert debian.tree() == before


def test_a_host_of_its_own_gets_a_virtual_host(debian: Debian) -> None:
    before = debian.tree()
    assert debian.install(replace(SHOP, host=HOST))
    assert f"a2ensite --quiet lbadaptor-{HOST}" in debian.calls
    assert f"ServerName {HOST}" in debian.read(HOSTS_SITE)
    assert debian.read(SITE) == DEFAULT_SITE
    assert debian.uninstall("shop") == []
    assert f"a2dissite --quiet lbadaptor-{HOST}" in debian.calls
    assert debian.tree() == before


@pytest.mark.parametrize("first", ["shop", "board"])
def test_a_virtual_host_that_was_changed_by_hand_gets_and_loses_lines_and_no_more(debian: Debian, first: str) -> None:
    """Also with one for TLS beside it, as certbot makes it: a copy."""
    shop, board = replace(SHOP, host=HOST), replace(BOARD, host=HOST)
    debian.install(shop)
    site, secure = (debian.root / path[1:] for path in (HOSTS_SITE, "/etc/apache2/sites-available/tls.conf"))
    site.write_text(site.read_text().replace("    Include", "    ServerAdmin shop@example.com\n    Include"))
    secure.write_text(site.read_text().replace("*:80", "*:443"))
    (debian.root / "etc/apache2/sites-enabled/tls.conf").symlink_to("../sites-available/tls.conf")
    site.with_name("folder").mkdir()
    site.with_name("latin-1.conf").write_bytes(b"# caf\xe9\n")
    assert not debian.install(shop)
    alone = site.read_text(), secure.read_text()
    assert debian.install(board)
    assert not debian.install(board)
    with_both = site.read_text(), secure.read_text()
    for text in with_both:
        assert text.index("lbadaptor-board.conf") < text.index("lbadaptor-shop.conf")
        assert "ServerAdmin" in text

    assert debian.uninstall(first) == []
    assert f"a2dissite --quiet lbadaptor-{HOST}" not in debian.calls
    if first == "board":
        assert (site.read_text(), secure.read_text()) == alone
    assert debian.uninstall("shop" if first == "board" else "board") == []
    for text in (site.read_text(), secure.read_text()):
        assert "Include" not in text
        assert "ServerAdmin" in text


def test_the_virtual_host_of_a_host_is_replaced_by_force_with_its_applications(debian: Debian) -> None:
    debian.install(replace(SHOP, host=HOST))
    debian.install(replace(BOARD, host=HOST))
    written = debian.read(HOSTS_SITE)
    (debian.root / HOSTS_SITE[1:]).write_text(written.replace("    ServerName", "    # by hand\n    ServerName"))
    assert debian.install(replace(SHOP, host=HOST), force=True)
    assert debian.read(HOSTS_SITE) == written


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


def test_a_path_of_another_host_changes_nothing_for_an_application(
    debian: Debian, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "<VirtualHost *:81>\nAlias /board /srv/other\n</VirtualHost>\n"
    debian.install(SHOP)
    monkeypatch.setattr(ask_apache, "dump", lambda _: other + debian.dump(""))
    assert not debian.install(SHOP)
    monkeypatch.setattr(
        ask_apache, "dump", lambda _: debian.dump("").replace("</Virt", "Alias /x /y\n</Virt") + other
    )
    assert debian.install(SHOP)
    assert "(?!/x(?:/|$))" in debian.read("/etc/apache2/lbadaptor-shop.conf")


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
