"""Several applications on one machine, and the virtual hosts that include them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from install_machine import BOARD, DEFAULT_SITE, SHOP, SITE, Debian

from monitor.apacheconfig import ask_apache

HOST = "shop.example.com"
HOSTS_SITE = f"/etc/apache2/sites-available/lbadaptor-{HOST}.conf"


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
    assert not any(call.startswith("a2dissite") for call in debian.calls)
    for text in (site.read_text(), secure.read_text()):
        assert "Include" not in text
        assert "ServerAdmin" in text


def test_a_virtual_host_with_another_application_stays(debian: Debian) -> None:
    """One that came by another name of the host, and one that was installed by hand."""
    debian.install(replace(SHOP, host=HOST))
    site, by_hand = debian.root / HOSTS_SITE[1:], "    Include /etc/apache2/lbadaptor-by-hand.conf\n"
    site.write_text(site.read_text().replace("    Include", f"    ServerAlias www.{HOST}\n    Include"))
    debian.install(replace(BOARD, host=f"www.{HOST}"))
    assert debian.uninstall("shop", force=True) == []
    assert "lbadaptor-shop.conf" not in site.read_text()
    assert "lbadaptor-board.conf" in site.read_text()
    site.write_text(site.read_text().replace("</VirtualHost>", f"{by_hand}</VirtualHost>"))
    assert debian.uninstall("board", force=True) == []
    assert by_hand in site.read_text()
    assert "lbadaptor-board.conf" not in site.read_text()
    assert (debian.root / f"etc/apache2/sites-enabled/lbadaptor-{HOST}.conf").exists()


def test_a_virtual_host_goes_with_its_last_application_though_another_has_made_it(debian: Debian) -> None:
    before = debian.tree()
    debian.install(replace(SHOP, host=HOST))
    site = debian.root / HOSTS_SITE[1:]
    made = site.read_text()
    site.write_text(made.replace("    Include", "    # by hand\n    Include"))
    debian.install(replace(BOARD, host=HOST))
    site.write_text(site.read_text().replace("    # by hand\n", ""))
    assert debian.uninstall("shop") == []
    assert debian.uninstall("board") == []
    assert debian.tree() == before


def test_apache_is_never_left_with_an_include_of_a_file_that_is_gone(debian: Debian) -> None:
    """It would not start any more."""
    debian.install(SHOP)
    site = debian.root / SITE[1:]
    site.write_text(
        site.read_text().replace("</VirtualHost>", 'Include "/etc/apache2/lbadaptor-shop.conf"\n</VirtualHost>')
    )
    [failed] = debian.uninstall("shop")
    assert "is still in Apache's configuration: take it out by hand" in failed
    assert (debian.root / "etc/apache2/lbadaptor-shop.conf").exists()
    assert "lbadaptor@shop" in debian.active
    site.write_text(DEFAULT_SITE)
    assert debian.uninstall("shop") == []
    assert not (debian.root / "etc/apache2/lbadaptor-shop.conf").exists()


def test_the_virtual_host_of_a_host_is_replaced_by_force_with_its_applications(debian: Debian) -> None:
    debian.install(replace(SHOP, host=HOST))
    debian.install(replace(BOARD, host=HOST))
    written = debian.read(HOSTS_SITE)
    changed = written.replace("    ServerName", "    # by hand\n    ServerName")
    (debian.root / HOSTS_SITE[1:]).write_text(f"{changed}\n{changed.replace('*:80', '*:81')}")
    [warning] = debian.prepare(replace(SHOP, host=HOST)).warnings
    assert f"{HOSTS_SITE} was changed by hand and stays so" in warning
    assert debian.install(replace(SHOP, host=HOST), force=True)
    assert debian.read(HOSTS_SITE) == written


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
