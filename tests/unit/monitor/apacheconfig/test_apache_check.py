"""What httpd shows of its configuration, and what the fast lane does not go along with."""

from __future__ import annotations

import re

import pytest

from monitor.apacheconfig.apache_check import by_folder, error_documents, other_paths, unmerged_slashes, with_htaccess

SHARE = "/opt/lbadaptor/share/lbadaptor"
SCRIPT = "lbadaptor.wsgi"


def dump(*lines: str) -> str:
    """As httpd shows it: a comment with the line's number before each, but for what ends a section."""
    shown = ["# In file: /etc/apache2/apache2.conf"]
    for number, line in enumerate(lines, 1):
        indent = line[: len(line) - len(line.lstrip())]
        shown += [line] if line.lstrip().startswith("</") else [f"{indent}# {number:3}:", line]
    return "\n".join(shown) + "\n"


def section(opening: str, *lines: str) -> str:
    return dump(opening, *(f"  {line}" for line in lines), f"</{opening[1:].split()[0]}>")


def found(text: str) -> list[str]:
    return [place.directive for place in by_folder(text, SHARE, SCRIPT)]


@pytest.mark.parametrize(
    "directive",
    [
        "Require valid-user",
        "Require ip 10.0.0.0/8",
        "Require not ip 10.0.0.1",
        "require group staff",
        "Require expr %{HTTP_USER_AGENT} != 'x'",
        "Allow from 10.0.0.0/8",
        "Deny from 10.0.0.1",
        "AuthType Basic",
        "SSLVerifyClient require",
        "SSLRequireSSL",
        "SSLRequire %{SSL_CIPHER_USEKEYSIZE} >= 128",
        "WSGIAccessScript /x.py",
    ],
)
def test_what_tells_visitors_apart_is_found(directive: str) -> None:
    assert found(section("<Directory />", directive)) == [directive]
    assert found(section("<Location />", directive)) == []


@pytest.mark.parametrize(
    "directive",
    [
        "Require all granted",
        "Require all denied",
        'Require "all" "granted"',
        "Order deny,allow",
        "Allow from all",
        "Deny from all",
        "AuthType None",
        "SSLVerifyClient none",
        "Options FollowSymLinks",
        "AllowOverride None",
    ],
)
def test_what_does_not_is_not(directive: str) -> None:
    assert found(section("<Directory />", directive)) == []


@pytest.mark.parametrize(
    ("opening", "covers"),
    [
        ("<Directory />", True),
        ("<Directory /opt>", True),
        ('<Directory "/opt/lbadaptor/">', True),
        ("<Directory /opt/*/share>", True),
        ("<Directory /opt/lbadaptor/share/lbadaptor>", True),
        ("<Directory /opt/lbadaptor/share/lbadaptor/deeper>", False),
        ("<Directory /opt/lb>", False),
        ("<Directory /var/www/>", False),
        ('<Directory ~ "^/opt/">', True),
        ('<Directory ~ "^/var/">', False),
        ('<DirectoryMatch "/lbadaptor/$">', True),
        ('<DirectoryMatch "^/srv">', False),
        ('<DirectoryMatch "(?<year>[0-9]{4})(?|a)">', True),  # not to be read here: rather once too often
        ("<Files lbadaptor.wsgi>", True),
        ("<Files *.wsgi>", True),
        ("<Files lbadaptor.cgi>", False),
        ('<Files ~ "\\.wsgi$">', True),
        ('<FilesMatch "\\.(wsgi|py)$">', True),
        ('<FilesMatch "^\\.ht">', False),
        ("<Location />", False),
        ("<VirtualHost *:80>", False),
    ],
)
def test_a_section_covers_the_adaptors_script_or_not(opening: str, covers: bool) -> None:
    assert found(section(opening, "Require valid-user")) == ["Require valid-user"] * covers


def test_sections_within_sections() -> None:
    text = dump(
        "<VirtualHost *:443>",
        "  <Directory /opt>",
        "    <Files *.wsgi>",
        "      <RequireAny >",
        "        Require ip 10.0.0.1",
        "      </RequireAny>",
        "    </Files>",
        "    <Files *.cgi>",
        "      Require ip 10.0.0.2",
        "    </Files>",
        "  </Directory>",
        "  <Proxy http://127.0.0.1:9000/>",
        "    Require ip 10.0.0.3",
        "  </Proxy>",
        "</VirtualHost>",
    )
    (place,) = by_folder(text, SHARE, SCRIPT)
    assert str(place) == (
        "/etc/apache2/apache2.conf, line 5: <VirtualHost *:443> <Directory /opt> <Files *.wsgi> <RequireAny> "
        "Require ip 10.0.0.1"
    )


def test_each_is_reported_with_its_own_file() -> None:
    first, second = dump("ServerName x"), section("<Directory />", "Require user x")
    text = first + second.replace("apache2.conf", "conf.d/own.conf")
    (place,) = by_folder(text, SHARE, SCRIPT)
    assert (place.file, place.line) == ("/etc/apache2/conf.d/own.conf", 2)


def test_a_deeper_folder_may_forbid_what_one_above_allows() -> None:
    text = section("<Directory />", "AllowOverride All") + section("<Directory /opt>", "AllowOverride None")
    assert with_htaccess(text, SHARE, SCRIPT) == ["/"]
    text = section("<Directory />", "AllowOverride None") + section(
        "<Directory /opt/lbadaptor/>", "AllowOverride AuthConfig"
    )
    assert with_htaccess(text, SHARE, SCRIPT) == ["/opt/lbadaptor", "/opt/lbadaptor/share", SHARE]
    assert with_htaccess(dump("ServerName x"), SHARE, SCRIPT) == []


def test_error_documents_of_places_are_in_the_way() -> None:
    document = "ErrorDocument 503 /sorry.html"
    assert [place.directive for place in error_documents(section("<Location /shop>", document))] == [document]
    assert error_documents(section("<LocationMatch ^/shop>", "ErrorDocument 404 /none.html")) == []
    assert error_documents(dump(document)) == []  # <Proxy> has the last word


def test_unmerged_slashes() -> None:
    assert len(unmerged_slashes(section("<VirtualHost *:80>", "MergeSlashes OFF"))) == 1
    assert unmerged_slashes(dump("MergeSlashes On")) == []


@pytest.mark.parametrize(
    ("directive", "theirs", "ours"),
    [
        ("Alias /static /var/www/static", ["/static", "/static/x"], ["/", "/statics", "/x/static"]),
        ('Alias "/static/" "/var/www/static/"', ["/static/x"], ["/static"]),
        ("AliasMatch ^/(?:css|js)/(.*)$ /var/www/$1", ["/css/x"], ["/cssx", "/x/css/"]),
        (r'AliasMatch "\.gif$" /var/www/x.gif', ["/x.gif", "/x/y.gif"], ["/gif"]),
        ("ScriptAlias /cgi-bin /usr/lib/cgi-bin", ["/cgi-bin/x"], ["/cgi"]),
        ("WSGIScriptAlias /other /srv/other.wsgi", ["/other/x"], ["/others"]),
        ("ProxyPass /api http://127.0.0.1:8080/", ["/api/x"], ["/x/api"]),
        ("ProxyPass /media !", ["/media/x"], ["/"]),
        ("ProxyPassMatch ^/a/(.*)$ http://127.0.0.1/$1", ["/a/x"], ["/a"]),
        ("Redirect permanent /old /new", ["/old", "/old/x"], ["/new"]),
        ("Redirect /gone http://elsewhere.example/", ["/gone"], ["/"]),
        ("RedirectMatch 301 ^/v[0-9]$ /", ["/v1"], ["/v"]),
        ("DocumentRoot /var/www", [], ["/var/www", "/"]),
        ("ServerAlias www.shop.example", [], ["/"]),
        # Our own, for the whole site, and for another application's mount.
        (r'WSGIScriptAliasMatch "^/[\s\S]*$" /opt/lb/lbadaptor.wsgi process-group=%{GLOBAL}', [], ["/", "/x"]),
        (r'WSGIScriptAliasMatch "^/[\s\S]*$" "/opt/l b/lbadaptor.wsgi" process-group=x', [], ["/", "/x"]),
        (r'WSGIScriptAliasMatch "^\Q/b\E(?:/[\s\S]*)?$" /opt/lb/lbadaptor.wsgi x=y', ["/b", "/b/x"], ["/", "/bx"]),
        ("ScriptAlias / /opt/lb/lbadaptor.cgi/", [], ["/", "/x"]),
        ("ScriptAlias /b /opt/lb/lbadaptor.cgi", ["/b/x"], ["/x"]),
    ],
)
def test_what_others_have_taken_is_not_the_applications(directive: str, theirs: list[str], ours: list[str]) -> None:
    patterns = other_paths(dump(directive), "")
    assert all(any(re.match(pattern, path) for pattern in patterns) for path in theirs)
    assert not [path for path in ours for pattern in patterns if re.match(pattern, path)]


@pytest.mark.parametrize(
    ("opening", "directive", "expected"),
    [
        ("<Location /server-status>", "SetHandler server-status", ["/server\\-status(?:/|$)"]),
        ("<Location /plain>", "SetHandler None", []),
        ("<Location /static>", "Alias /var/www/static", ["/static(?:/|$)"]),
        ("<Location /api>", "ProxyPass http://127.0.0.1:8080/", ["/api(?:/|$)"]),
        ("<Location /old>", "Redirect permanent /new", ["/old(?:/|$)"]),
        ('<Location "/doc*/x">', "SetHandler x", ["/doc(?:/|$)"]),
        ("<LocationMatch ^/x>", "SetHandler x", ["[\\s\\S]*?(?:^/x)"]),
        ('<Location ~ "^/x">', "SetHandler x", ["[\\s\\S]*?(?:^/x)"]),
        ("<Directory /var/www>", "SetHandler x", []),
    ],
)
def test_what_locations_have_taken(opening: str, directive: str, expected: list[str]) -> None:
    assert other_paths(section(opening, directive), "") == expected


def test_a_mount_gives_away_what_is_below_it_alone() -> None:
    text = dump("Alias /shop/static /x", "Alias /static /x", "Alias /shop /x", "Alias / /x", "Alias /shopping /x")
    assert other_paths(text, "/shop") == ["/shop/static(?:/|$)"]
