"""The text of the fast lane's configuration. What it does is tried with a real httpd, in tests/apache."""

from __future__ import annotations

import random
import re

import pytest

from lbadaptor.contract.address import Identity
from lbadaptor.contract.cookies import values
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.headers import LONGEST_LINE
from lbadaptor.contract.settings import parse
from lbadaptor.contract.ticket import Keys
from monitor.apacheconfig.fastlane import snippet
from monitor.apacheconfig.rewrite_rules import SKIP

LEAST = '[application]\napp = "shop.wsgi:application"\nsession_cookie = "sid"\n'


def written(text: str = "", slots: int = 2, mount: str = "") -> str:
    return snippet(parse(LEAST + text), slots, mount, "/opt/lb", "shop")


def patterns(text: str) -> list[str]:
    """Those of the conditions, in order, where the maps' files are there."""
    return re.findall(r'RewriteCond .* "(\^.*)"', text[: text.index("</IfDefine>")])


def test_http_1_0_skips_the_rules() -> None:
    [(kinds, right)] = re.findall(
        r'RewriteCond (\S+) "!(.*)" \[NV\]\n(?:    #.*\n)?    RewriteRule "\^" - \[NS,S=2,E=!REDIRECT', written()
    )
    assert kinds.startswith("%{REQUEST_METHOD}|%{SERVER_PROTOCOL}|%{HTTP:Connection}|")
    for protocol in ("HTTP/1.1", "HTTP/2.0"):
        assert re.search(right, f"GET|{protocol}|||shop.example|a=b")
    for protocol in ("HTTP/1.0", "HTTP/0.9", "HTTP/1.10", ""):
        assert not re.search(right, f"GET|{protocol}|||shop.example|a=b")


def test_each_slot_has_a_section_of_its_own_and_no_other() -> None:
    text = written("[appservers]\nbase_port = 9100\n", slots=3)
    assert re.findall(r'<Proxy "(.*)"', text) == [
        f"unix:/run/lbadaptor/sockets/{slot}|http://127.0.0.1:{9100 + slot}/at/" for slot in range(3)
    ]
    assert text.count("    Include /opt/lb/lbadaptor-fastlane.conf\n") == 3
    address = patterns(text)[-2]
    assert re.search(r"\(127\\\.0\\\.0\\\.1:\(\?:9100\|9101\|9102\)\)", address)


def test_the_maps_are_the_monitors_files() -> None:
    text = written('[files]\nrun_folder = "/run/shop"\n')
    assert 'RewriteMap lbadaptor-address-shop "txt:/run/shop/address.text"' in text
    assert 'RewriteMap lbadaptor-key-shop "txt:/run/shop/callerkeys.text"' in text
    assert 'RewriteMap lbadaptor-available-shop "rnd:/run/shop/available.text"' in text
    # httpd does not start where a map's file is missing: as after every boot
    guarded = text[text.index('<IfFile "/run/shop/address.text">') : text.index("</IfFile>")]
    assert '<IfFile "/run/shop/callerkeys.text">' in guarded
    assert '<IfFile "/run/shop/available.text">' in guarded
    assert guarded.count("RewriteMap ") == text.count("RewriteMap ") - text.count("a RewriteMap ") == 3


def test_what_is_defined_for_it_is_not_for_what_comes_after() -> None:
    text = written()
    [name] = set(re.findall(r"\bDefine (\S+)", text))
    assert text.endswith(f"\nUnDefine {name}\n")


def test_the_ticket_that_is_looked_for_is_the_ticket_that_is_given() -> None:
    cookie, _, _ = patterns(written('ticket_cookie = "a.b"\n'))
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
    found = re.findall(r'RewriteRule "(.*?)" "unix:.*\[P', text[: text.index("</IfDefine>")])
    assert len(found) == 2
    for pattern in found:
        assert all(re.search(pattern, path) for path in within)
        assert not any(re.search(pattern, path) for path in without)
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


def test_apache_takes_the_lines_that_appservers_take_for_short_enough() -> None:
    assert f" responsefieldsize={LONGEST_LINE + 1} " in written()


def test_each_mount_has_proxies_of_its_own() -> None:
    texts = [written(mount=mount, slots=1) for mount in ("", "/a", "/a/b", "/a-b", "/a-2f-b")]
    folders = [re.findall(r'<Proxy ".*\|http://[^/]*(/[^"]*/)"', text) for text in texts]
    assert len(set(map(str, folders))) == len(texts)
    for [folder], text in zip(folders, texts, strict=True):
        assert f'|http://%1{folder}" [P' in text
        assert not any(other != [folder] and folder.startswith(other[0]) for other in folders)


def test_variables_go_by_name_and_no_visitor_can_add_one() -> None:
    text = written('[adaptor]\npass_variables = ["SSL_CLIENT_VERIFY", "GEO_COUNTRY"]\n', slots=1)
    assert 'LB-Variables "LB-Time SSL-CLIENT-VERIFY GEO-COUNTRY"' in text
    for name, variable in (("SSL-CLIENT-VERIFY", "SSL_CLIENT_VERIFY"), ("GEO-COUNTRY", "GEO_COUNTRY")):
        unset = f"RequestHeader unset LB-Var-{name}\n"
        told = f'RequestHeader set LB-Var-{name} "expr=%{{escape:%{{reqenv:{variable}}}}}" env={variable}\n'
        assert 0 < text.index(unset) < text.index(told)
    assert "unset LB-Path" not in text


def test_all_of_tls_is_the_adaptors_business_where_there_is_more_than_the_name() -> None:
    text = written('[adaptor]\npass_variables = ["SSL_*"]\n', slots=1)
    assert 'LB-Variables "LB-Time SSL-TLS-SNI"' in text
    assert "RequestHeader unset LB-Path env=SSL_VERSION_INTERFACE" in text


def test_nothing_is_asked_for_the_log_where_it_is_off() -> None:
    on, off = written(), written("[adaptor]\nlog_variables = false\n")
    assert re.findall(r"SetEnv LBADAPTOR_SLOT (\S+)", on) == ["0", "1"]
    assert 'LB-Variables "LB-Time SSL-TLS-SNI"' in on
    assert 'LB-Variables "SSL-TLS-SNI"' in off
    assert "LB-Time" not in off
    assert "SetEnv" not in off


def test_no_page_of_an_error_document_gets_the_callers_key_as_a_header() -> None:
    text = written()
    assert text.index("RequestHeader unset LB-Key early\n") < text.index("<Proxy ")


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


FIRST_VISIT = r'RewriteCond %\{HTTP_COOKIE\} "!(.*)" \[NV\]\n'
ODD = "=;, \t\n\x0b\x1f\x85\xa0\"'_x"


@pytest.mark.parametrize("cookie", ["__PRT__", "a.b", "aa"])
def test_who_has_a_ticket_as_the_adaptor_reads_cookies_is_no_first_visit_and_who_has_two_no_holder(
    cookie: str,
) -> None:
    text = written(f'ticket_cookie = "{cookie}"\n')
    [has_ticket] = re.findall(FIRST_VISIT, text)
    held, _, _ = patterns(text)
    ticket = Keys(["k" * 64]).ticket(Identity(12, 1763805600123))
    some = random.Random(1)
    parts = [*ODD, *[cookie, "=", ";"] * 6, ticket]
    headers = {f"{before}{cookie}{sign}=x" for before in ("", "a=b;", "; ") for sign in map(chr, range(256))}
    headers |= {"".join(some.choices(parts, k=some.randint(1, 9))) for _ in range(20_000)}
    tickets = {header: values(header, cookie, only_ascii=False) for header in headers}
    assert len([header for header in headers if tickets[header]]) > 1_000
    # As PCRE matches in Apache: bytes.
    assert not [
        header
        for header in headers
        if tickets[header] and not re.search(has_ticket.encode(), header.encode("latin-1"))
    ]
    for more in headers:
        header = f"{cookie}={ticket};{more}"
        if len(values(header, cookie, only_ascii=False)) > 1:
            assert not re.search(held.encode(), header.encode("latin-1")), header


@pytest.mark.parametrize("cookie", ["__PRT__", "__Host-shop", "a.b", "x1"])
def test_a_first_visit_is_one_without_the_cookie(cookie: str) -> None:
    text = written(f'ticket_cookie = "{cookie}"\n')
    assert f"{SKIP}2,E=!REDIRECT_LBADAPTOR_KEY]\n" in text
    assert len(re.findall(FIRST_VISIT, text)) == 1
    assert f"RewriteCond ${{lbadaptor-available-shop:${{lbadaptor-available-shop:{cookie}}}}};" in text
    assert text.count("E=LBADAPTOR_SESSION:none,") == 1


@pytest.mark.parametrize("cookie", ["#x", "a|b", "$1", "%1", "12", "a&b", "~x", "`x`"])
def test_a_name_that_cannot_be_the_key_of_a_map_leaves_first_visits_to_the_python_lane(cookie: str) -> None:
    text = written(f'ticket_cookie = "{cookie}"\n')
    assert f"{SKIP}1,E=!REDIRECT_LBADAPTOR_KEY]\n" in text
    assert "# First visits take the Python lane: " in text
    assert "LBADAPTOR_SESSION:none" not in text


MACHINE = "[machine]\nnumber = 3\n"


@pytest.mark.parametrize("mount", ["", "/shop"])
def test_the_health_page_of_one_of_several_machines_is_the_adaptors(mount: str) -> None:
    text = written(MACHINE, mount=mount)
    rules = re.findall(r'RewriteRule "(\^\(\?!\S*)" ', text)
    assert len(rules) == 3
    for rule in rules:
        for path in ("/__lb__/health", "/__lb__/health/holders"):
            assert not re.search(rule, mount + path)
        for path in ("/", "/__lb__/status", "/__lb__/health/", "/__lb__/health/more", "/a/__lb__/health"):
            assert re.search(rule, mount + path)


def test_of_a_machine_alone_nothing_is_kept_out() -> None:
    assert "__lb__" not in written()
