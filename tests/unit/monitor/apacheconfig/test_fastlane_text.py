"""The text of the fast lane's configuration. What it does is tried with a real httpd, in tests/apache."""

from __future__ import annotations

import re

import pytest

from lbadaptor.contract.address import Identity
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import parse
from lbadaptor.contract.ticket import Keys
from monitor.apacheconfig.fastlane import snippet

LEAST = '[application]\napp = "shop.wsgi:application"\nsession_cookie = "sid"\n'


def written(text: str = "", slots: int = 2, mount: str = "") -> str:
    return snippet(parse(LEAST + text), slots, mount, "/opt/lb", "shop")


def patterns(text: str) -> list[str]:
    """Those of the conditions, in order, where the maps' files are there."""
    return re.findall(r'RewriteCond .* "(\^.*)"', text[: text.index("</IfDefine>")])


def test_each_slot_has_a_section_of_its_own_and_no_other() -> None:
    text = written("[appservers]\nbase_port = 9100\n", slots=3)
    assert re.findall(r'<Proxy "(.*)"', text) == [
        f"unix:/run/lbadaptor/sockets/{slot}|http://127.0.0.1:{9100 + slot}/at/" for slot in range(3)
    ]
    assert text.count("    Include /opt/lb/lbadaptor-fastlane.conf\n") == 3
    *_, address = patterns(text)
    assert re.search(r"\(127\\\.0\\\.0\\\.1:\(\?:9100\|9101\|9102\)\)", address)


def test_the_maps_are_the_monitors_files() -> None:
    text = written('[files]\nrun_folder = "/run/shop"\n')
    assert 'RewriteMap lbadaptor-address-shop "txt:/run/shop/address.text"' in text
    assert 'RewriteMap lbadaptor-key-shop "txt:/run/shop/callerkeys.text"' in text
    # httpd does not start where a map's file is missing: as after every boot
    guarded = text[text.index('<IfFile "/run/shop/address.text">') : text.index("</IfFile>")]
    assert '<IfFile "/run/shop/callerkeys.text">' in guarded
    assert guarded.count("RewriteMap ") == text.count("RewriteMap ") - text.count("a RewriteMap ") == 2


def test_what_is_defined_for_it_is_not_for_what_comes_after() -> None:
    text = written()
    [name] = set(re.findall(r"\bDefine (\S+)", text))
    assert text.endswith(f"\nUnDefine {name}\n")


def test_the_ticket_that_is_looked_for_is_the_ticket_that_is_given() -> None:
    _, cookie, _ = patterns(written('ticket_cookie = "a.b"\n'))
    ticket = Keys(["k" * 64]).ticket(Identity(12, 1763805600123))
    cookies = (f"a.b={ticket}", f"x=1; a.b={ticket}; y=2", f"x=1;a.b={ticket}", f"aa.b; a=a.a; a.b={ticket};a.a=a.c")
    for header in cookies:
        found = re.search(cookie, header)
        assert found
        assert found[1] == ticket
    for header in (
        *("", f"a.b={ticket}x", f"a.b={ticket[:-1]}", f'a.b="{ticket}"', f"axb={ticket}", f"xa.b={ticket}"),
        *(f"x=1 a.b={ticket}", f"x=1,a.b={ticket}", f"x=1;  a.b={ticket}"),
    ):
        assert not re.search(cookie, header)
    for other in (f"a.b={ticket}", "a.b=", "xa.b=1"):
        assert not re.search(cookie, f"a.b={ticket}; {other}")
        assert not re.search(cookie, f"{other}; a.b={ticket}")


@pytest.mark.parametrize(
    ("mount", "within", "without"),
    [
        ("", ["/", "/x", "/x/y"], []),
        ("/shop", ["/shop", "/shop/", "/shop/x"], ["/", "/shopping", "/x/shop"]),
        ("/a.b/c+d", ["/a.b/c+d/x"], ["/axb/c+d/x", "/a.b/ccd/x"]),
    ],
)
def test_a_mount_takes_what_is_below_it(mount: str, within: list[str], without: list[str]) -> None:
    text = written(mount=mount)
    found = re.search(r'RewriteRule "(.*?)" ', text)
    assert found
    assert all(re.search(found[1], path) for path in within)
    assert not any(re.search(found[1], path) for path in without)
    assert f'LB-Script-Name "{mount}"' in text


def test_a_mount_with_a_percent_sign_is_no_variable_of_apaches() -> None:
    assert 'LB-Script-Name "/a%%20b"' in written(mount="/a b")


def test_times_are_those_of_the_adaptor() -> None:
    text = written("[adaptor]\nconnect_timeout = 0.25\nanswer_timeout = 90\n")
    assert " connectiontimeout=250ms timeout=90>" in text
    # never shorter than what was set, nor none at all
    short = "fall = 1\nprobe_interval = 0.5\nprobe_timeout = 0.5\nfailing_limit = 0.5\n"
    text = written(f"[adaptor]\nconnect_timeout = 0.001\nanswer_timeout = 2.5\n[monitor]\n{short}")
    assert " connectiontimeout=1ms timeout=3>" in text


def test_each_mount_has_proxies_of_its_own() -> None:
    texts = [written(mount=mount, slots=1) for mount in ("", "/a", "/a/b", "/a-b", "/a-2f-b")]
    folders = [re.findall(r'<Proxy ".*\|http://[^/]*(/[^"]*/)"', text) for text in texts]
    assert len(set(map(str, folders))) == len(texts)
    for [folder], text in zip(folders, texts, strict=True):
        assert f'|http://%1{folder}" [P' in text
        assert not any(other != [folder] and folder.startswith(other[0]) for other in folders)


def test_variables_go_by_name_and_no_visitor_can_add_one() -> None:
    text = written('[adaptor]\npass_variables = ["SSL_CLIENT_VERIFY", "GEO_COUNTRY"]\n', slots=1)
    assert 'LB-Variables "SSL-CLIENT-VERIFY GEO-COUNTRY"' in text
    for name, variable in (("SSL-CLIENT-VERIFY", "SSL_CLIENT_VERIFY"), ("GEO-COUNTRY", "GEO_COUNTRY")):
        unset = f"RequestHeader unset LB-Var-{name}\n"
        told = f'RequestHeader set LB-Var-{name} "expr=%{{escape:%{{reqenv:{variable}}}}}" env={variable}\n'
        assert 0 < text.index(unset) < text.index(told)
    assert "unset LB-Path" not in text


def test_all_of_tls_is_the_adaptors_business_where_there_is_more_than_the_name() -> None:
    text = written('[adaptor]\npass_variables = ["SSL_*"]\n', slots=1)
    assert 'LB-Variables "SSL-TLS-SNI"' in text
    assert "RequestHeader unset LB-Path env=SSL_VERSION_INTERFACE" in text


def test_other_patterns_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"pass_variables = \"GEO_\*\": .* name each"):
        written('[adaptor]\npass_variables = ["GEO_*"]\n')


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ('[files]\nrun_folder = "/run/${HOME}"', "cannot stand in Apache's configuration"),
        ('[files]\nrun_folder = "/run/a\\nLoadModule x"', "cannot stand in Apache's configuration"),
        ('[appservers]\nhost = "a|b"', "the fast lane needs a plain address or name"),
        ('[appservers]\nhost = "fe80::1%eth0"', "the fast lane needs a plain address or name"),
    ],
)
def test_what_apaches_configuration_cannot_hold_is_refused(rows: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        written(rows)


@pytest.mark.parametrize("folder", ["/run/a b", "/run/a%b", "/run/a|b", f"/run/{'x' * 100}"])
def test_where_apache_cannot_go_by_unix_sockets_it_goes_by_tcp(folder: str) -> None:
    text = written(f'[files]\nrun_folder = "{folder}"\n', slots=1)
    assert '<Proxy "http://127.0.0.1:9000/at/"' in text
    assert ' "http://%1/at/" [P' in text
