"""What is wrong in Apache's configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake import ALL, CONFIG, SHARE, dump, facts, host, said, settings

from lbadaptor.contract.settings import snapshot
from monitor.apacheconfig import fastlane
from monitor.apacheconfig.compare import Examined
from monitor.apacheconfig.compose import Composed, lane_name
from monitor.check import apache
from monitor.check.facts import ApacheRefuses, ModWsgi, linked
from monitor.check.finding import CannotCheck
from monitor.check.listeners import Listener

SNIPPET = f"{SHARE}/lbadaptor.conf"


def test_what_is_written_is_well() -> None:
    one = facts(dump=dump(*host()), sources={})
    for check in (apache.configuration, apache.defines, apache.module_wsgi, apache.interpreter, apache.passed_on):
        assert said(check(one)) == []


@pytest.mark.parametrize(
    ("httpd_said", "what"),
    [
        (
            "AH00526: Syntax error on line 1 of /etc/b.conf:\nInvalid command 'WSGIScriptAliasMatch', perhaps",
            "Apache has not loaded mod_wsgi, and refuses its configuration (WSGIScriptAliasMatch); `a2enmod wsgi`",
        ),
        (
            "AH00526: Syntax error on line 7 of /etc/b.conf:\nInvalid command 'Foo', perhaps",
            "Apache refuses its configuration: AH00526: Syntax error on line 7 of /etc/b.conf: Invalid command 'Foo'",
        ),
    ],
)
def test_a_configuration_that_apache_refuses(httpd_said: str, what: str) -> None:
    (found,) = said(apache.configuration(facts(dump=ApacheRefuses(httpd_said))))
    assert found.startswith(what)


@pytest.mark.parametrize(
    ("httpd_said", "user", "what"),
    [
        ("apache2: AH02291: Cannot access directory '/x' for main error log", 0, "Cannot access directory '/x'"),
        ("apache2: AH02291: Cannot access directory '/x' for main error log", 1000, ""),
        ("apache2: AH00558: Could not reliably determine the server's name", 0, ""),
        ("no program tells Apache's configuration", 0, ""),
    ],
)
def test_an_apache_that_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, httpd_said: str, user: int, what: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    check = apache.configuration(facts(dump=ApacheRefuses(httpd_said)))
    if not what:
        with pytest.raises(CannotCheck):
            list(check)
    else:
        assert what in "".join(said(check))


def test_a_module_that_is_not_loaded() -> None:
    without = " ".join(set(ALL.split()) - {"wsgi"})
    (found,) = said(apache.module_wsgi(facts(dump=dump(*host(), modules=without))))
    assert found.startswith("Apache has not loaded mod_wsgi, in which the adaptor runs; `a2enmod wsgi`")
    cgi = dump(f"SetEnv LBADAPTOR_CONFIG {CONFIG}", f"ScriptAlias / {SHARE}/lbadaptor.cgi/", modules=without)
    assert said(apache.module_wsgi(facts(dump=cgi))) == []


def test_an_application_that_nothing_leads_to(tmp_path: Path) -> None:
    config = tmp_path / "blog.toml"
    config.touch()
    (found,) = said(apache.included(facts(dump=dump(*host(config=config)))))
    assert found.startswith(
        f"nothing in Apache's configuration leads to {CONFIG}; `lbctl --config {CONFIG} apache-config"
    )


def test_settings_that_are_not_there() -> None:
    found = said(apache.included(facts(dump=dump(*host(), *host(config="/no/such.toml")))))
    assert ["there is no /no/such.toml, which the adaptor is to go by" in one for one in found].count(True) == 1


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (host(group=False), True),
        ([*host(group=False), "WSGIApplicationGroup %{GLOBAL}"], False),
        (host("WSGIApplicationGroup %{GLOBAL}", group=False), False),
        (host("WSGIApplicationGroup shop", group=False), True),
        ([*host(group=False), *host("WSGIApplicationGroup %{GLOBAL}")], True),  # of another host
    ],
)
def test_the_main_interpreter(lines: list[str], wrong: bool) -> None:
    found = said(apache.interpreter(facts(dump=dump(*lines))))
    assert [("sub-interpreter" in one, "application-group=%{GLOBAL}" in one) for one in found] == [
        (True, True)
    ] * wrong


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("WSGIPassAuthorization Off", "without `WSGIPassAuthorization On` Authorization does not reach"),
        ("WSGIChunkedRequest Off", "without `WSGIChunkedRequest On`"),
        ("WSGIMapHEADToGET Auto", "without `WSGIMapHEADToGET Off`"),
    ],
)
def test_what_mod_wsgi_keeps_back(line: str, what: str) -> None:
    (found,) = said(apache.passed_on(facts(dump=dump(*host(line)))))
    assert "/etc/apache2/apache2.conf, line 8: " in found
    assert what in found
    assert said(apache.passed_on(facts(dump=dump(line, *host())))) == []  # the host's own wins


def test_what_mod_wsgi_keeps_back_by_default() -> None:
    bare = [line for line in host() if not line.startswith(("WSGIPass", "WSGIChunked", "WSGIMap"))]
    assert len(said(apache.passed_on(facts(dump=dump(*bare))))) == 3


# Defines.


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (
            ["Define LBADAPTOR_CONFIG /a", f"Include {SNIPPET}", "Define LBADAPTOR_CONFIG /b", f"Include {SNIPPET}"],
            [],
        ),
        (["Define LBADAPTOR_CONFIG /a", f"Include {SNIPPET}", f'  Include "{SNIPPET}"'], [3]),
        (
            [f"Include {SNIPPET}", "Define LBADAPTOR_CONFIG /b", "Include ${LBADAPTOR_SHARE}/lbadaptor-daemon.conf"],
            [1],
        ),
        ([f"Include {SNIPPET}"], []),  # the default
        (["Define LBADAPTOR_CONFIG /a", "Include /etc/other.conf", f"Include {SNIPPET}"], []),
        (["# Define LBADAPTOR_CONFIG /a", f"Include {SNIPPET}", f"Include {SNIPPET}"], []),
    ],
)
def test_virtual_hosts_that_share_a_define(lines: list[str], wrong: list[int]) -> None:
    sources = {"/etc/a.conf": "\n".join(lines), SNIPPET: "<IfDefine !LBADAPTOR_CONFIG>\n"}
    found = said(apache.defines(facts(sources=sources)))
    assert [one.partition(":")[0] for one in found] == [f"/etc/a.conf, line {number}" for number in wrong]


def test_a_define_may_stand_in_a_file_before() -> None:
    sources = {
        "/etc/a.conf": f"Define LBADAPTOR_CONFIG /a\nInclude {SNIPPET}",
        SNIPPET: "<IfDefine !LBADAPTOR_CONFIG>\n",
        "/etc/b.conf": f"Include {SNIPPET}",
    }
    (found,) = said(apache.defines(facts(sources=sources)))
    assert found.startswith("/etc/b.conf, line 1: this Include has no `Define LBADAPTOR_CONFIG` of its own")


# The ticket cookie.


@pytest.mark.parametrize("with_maps", [True, False])
@pytest.mark.parametrize(("cookie", "handed_out"), [("__PRT__", "__PRT__"), ("__PRT__", "__SHOP__"), ("a.b", "a.b")])
def test_the_ticket_cookie_that_apache_looks_for(
    tmp_path: Path, cookie: str, handed_out: str, with_maps: bool
) -> None:
    given = settings(files={"run_folder": str(tmp_path)}, application={"ticket_cookie": cookie})
    text = fastlane.snippet(given, 2, "", SHARE, lane_name(CONFIG))
    within = text.partition("<IfDefine LBADAPTOR_MAPS_" if with_maps else "<IfDefine !LBADAPTOR_MAPS_")[2]
    lines = within.partition("\n")[2].partition("</IfDefine>")[0].splitlines()
    lines = [line for line in lines if not line.strip().startswith("#")]
    (tmp_path / "settings.json").write_bytes(snapshot.encode(given, [handed_out, "__OLD__"], CONFIG))
    found = said(apache.ticket_cookie(facts(given, dump=dump(*host(*lines)))))
    assert len(found) == (cookie != handed_out)
    if found:
        assert "the fast lane looks for the ticket cookie `__PRT__`, and AppServers hand out `__SHOP__`" in found[0]


def test_rules_of_another_application_do_not_count(tmp_path: Path) -> None:
    given = settings(files={"run_folder": str(tmp_path)}, application={"ticket_cookie": "__SHOP__"})
    blog = settings(files={"run_folder": "/run/blog"})
    lines = [
        *fastlane.snippet(given, 2, "", SHARE, lane_name(CONFIG)).splitlines(),
        *fastlane.snippet(blog, 2, "", SHARE, "blog-1").splitlines(),
    ]
    lines = [line for line in lines if line.strip().startswith("Rewrite")]
    assert said(apache.ticket_cookie(facts(given, dump=dump(*host(*lines))))) == []


# mod_wsgi's Python.

LIBRARY = "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0"


@pytest.mark.parametrize(
    ("module", "home", "base", "installed", "what"),
    [
        (ModWsgi("m.so", LIBRARY), "", "", ["python3.11"], ""),
        (
            ModWsgi("m.so", LIBRARY),
            "",
            "",
            ["python3.13"],
            "mod_wsgi has Python 3.11 (m.so), and lbadaptor is in python3.13",
        ),
        (ModWsgi("m.so", LIBRARY), "/opt/venv", "/usr", ["python3.11"], ""),
        (ModWsgi("m.so", LIBRARY), "/opt/venv", "/opt/python", ["python3.11"], "No module named '_socket'"),
        (ModWsgi("m.so", "", missing=True), "", "", [], "the Python library that it is linked to is not there"),
        (ModWsgi("m.so", ""), "/opt/venv", "/opt/python", ["python3.11"], ""),  # linked statically
    ],
)
def test_the_python_of_mod_wsgi(module: ModWsgi, home: str, base: str, installed: list[str], what: str) -> None:
    found = said(apache._python(module, home, base, installed))
    assert len(found) == bool(what)
    assert what in "".join(found)


def test_what_ldd_tells() -> None:
    told = "\tlinux-vdso.so.1 (0x1)\n\tlibpython3.11.so.1.0 => {} (0x2)\n\tlibc.so.6 => /lib/libc.so.6 (0x3)\n"
    assert linked("m.so", told.format("/no/such/libpython3.11.so.1.0")).libpython == "/no/such/libpython3.11.so.1.0"
    assert linked("m.so", told.format("not found").replace(" (0x2)", "")).missing
    assert linked("m.so", "\tlibc.so.6 => /lib/libc.so.6 (0x3)\n") == ModWsgi("m.so", "")


def test_an_apache_that_does_not_run() -> None:
    there = dump("Listen 80", "Listen 0.0.0.0:443 https", "Listen [::1]:8080")
    for port, found in ((80, 0), (443, 0), (8080, 0), (81, 1)):
        given = facts(dump=there, listeners=[Listener("0.0.0.0", port, 0, 1)])
        assert len(said(apache.runs(given))) == found
    (one,) = said(apache.runs(facts(dump=there, listeners=[])))
    assert "nobody listens on port 80 or 443 or 8080" in one
    assert "systemctl start apache2" in one


def test_files_that_apache_has_not_read_since_they_were_changed(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.conf" for number in range(5)]
    for path in paths:
        path.touch()
        os.utime(path, (1000, 1000))
    sources = dict.fromkeys(map(str, paths), "")
    assert said(apache.reloaded(facts(sources=sources, apache_read_at=1000.5))) == []
    os.utime(paths[3], (1001, 1001))
    (one,) = said(apache.reloaded(facts(sources=sources, apache_read_at=1000.5)))
    assert one == (
        "Apache does not go by its configuration as it is now; changed since it was started or reloaded: "
        f"{paths[3]}; `apache2ctl configtest && systemctl reload apache2`"
    )
    (one,) = said(apache.reloaded(facts(sources=sources, apache_read_at=999.5)))
    assert f"{paths[2]} and 2 more;" in one


def test_a_link_to_an_old_file_is_a_change(tmp_path: Path) -> None:
    """So `a2enmod` and `a2ensite` make them."""
    old, link = tmp_path / "old.conf", tmp_path / "link.conf"
    old.touch()
    os.utime(old, (1000, 1000))
    link.symlink_to(old)
    (one,) = said(apache.reloaded(facts(sources={str(link): ""}, apache_read_at=2000.0)))
    assert str(link) in one


@pytest.mark.parametrize("rows", [[], ["PidFile run/httpd.pid"]])
def test_without_a_pid_file_nobody_knows_when_apache_read_its_files(rows: list[str]) -> None:
    with pytest.raises(CannotCheck, match="no PidFile with a whole path"):
        said(apache.reloaded(facts(dump=dump(*rows), sources={__file__: ""})))


def test_a_fast_lane_that_is_to_be_none_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """That reason may be that visitors pass by an authorisation: it is not to be lost among lines that differ."""
    text = f'# lbctl --config {CONFIG} apache-config\nDefine LBADAPTOR_CONFIG "{CONFIG}"\n'
    composed = Composed("", "", "authorisation stands in\n  <Directory>")
    examined = Examined(['RewriteRule "^" "unix:x"'], [], composed, "lbctl apache-config --write /x.conf")
    monkeypatch.setattr(apache.compare, "examine", lambda *_: examined)
    (one,) = said(apache.written_files(facts(sources={"/x.conf": text})))
    assert "against which Apache's configuration speaks now: authorisation stands in <Directory>; `lbctl" in one
