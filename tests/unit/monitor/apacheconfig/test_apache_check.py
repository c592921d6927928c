"""What httpd shows of its configuration, and what the fast lane does not go along with."""

from __future__ import annotations

import re

import pytest

from monitor.apacheconfig.apache_check import (
    by_folder,
    error_documents,
    files,
    has_adaptor,
    hosts_of,
    included_twice,
    later_rules,
    missing_modules,
    only_by_folder,
    other_paths,
    unmerged_slashes,
    whole_mount_taken,
    with_htaccess,
)
from monitor.apacheconfig.rewrite_rules import SKIP

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


def only_there(*lines: str) -> list[str]:
    return [place.directive for place in only_by_folder(dump(*lines), "", SHARE, SCRIPT)]


@pytest.mark.parametrize(
    ("directive", "counts"),
    [
        ("Header set X-Frame-Options DENY", True),
        ('ExpiresDefault "access plus 1 day"', True),
        ("SetOutputFilter DEFLATE", True),
        ("AddOutputFilterByType DEFLATE text/html", True),
        ("AddDefaultCharset utf-8", True),
        ("SetEnv COUNTRY de", True),
        ("SSLOptions +StdEnvVars", True),
        ("RewriteRule ^x /y", True),
        ("Options FollowSymLinks", False),
        ("AllowOverride None", False),
        ("Require all granted", False),
        ("Require valid-user", False),  # `by_folder` has it
        ("DirectoryIndex index.html", False),
        ("AddType text/x .x", False),
    ],
)
def test_what_holds_in_the_python_lane_alone_is_found(directive: str, counts: bool) -> None:
    assert only_there("<Directory /opt>", directive, "</Directory>") == [directive] * counts
    assert only_there('<FilesMatch "^lb">', "<If true>", directive, "</If>", "</FilesMatch>") == [directive] * counts
    assert only_there("<Directory /var/www>", directive, "</Directory>") == []
    assert only_there("<Location />", directive, "</Location>") == []
    assert only_there(directive) == []
    other = ("<VirtualHost *:1>", "<Directory />", directive, "</Directory>", "</VirtualHost>")
    assert only_there(*other) == [directive] * counts
    assert only_there(*other, "<VirtualHost *:2>", ADAPTOR, "</VirtualHost>") == []


def test_the_snippets_own_directives_do_not_count() -> None:
    text = section(f"<Directory {SHARE}>", "Header set X y").replace("/etc/apache2/apache2.conf", f"{SHARE}/lb.conf")
    assert only_by_folder(text, "", SHARE, SCRIPT) == []


def test_which_files_apache_has_read() -> None:
    text = dump("ServerName x") + dump(AT_SHOP).replace("apache2.conf", "lb.conf")
    assert files(text) == ["/etc/apache2/apache2.conf", "/etc/apache2/lb.conf"]
    assert has_adaptor(text, "/shop")
    assert not has_adaptor(text, "")


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
        ("RedirectMatch 410 secret", ["/secret", "/a/secret/b"], ["/410"]),
        ("RedirectMatch permanent old /new", ["/old", "/x/old"], ["/permanent"]),
        ("RedirectMatch SeeOther ^/old /new", ["/old"], ["/SeeOther"]),
        ("RedirectMatch gone ^/a|^/b", ["/a", "/b"], ["/x/a"]),
        ("RedirectMatch old new", ["/old"], ["/new"]),
        ("AliasMatch secret /var/www/x", ["/secret"], ["/var/www/x"]),
        ("AliasMatch gone /var/www/x", ["/gone"], ["/var/www/x"]),
        (r"Alias '/it\'s a' '/var/www'", ["/it's a/x"], ["/it", "/var/www"]),
        (r'Alias /a\\b "/var/www"', [r"/a\b"], [r"/a\\b"]),
        ("ProxyPass ~ ^/a/[0-9] http://127.0.0.1/", ["/a/1"], ["/a"]),
        ("Alias /a\u2028b /var/www", ["/a\u2028b"], ["/a"]),
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
        ('<Location "/doc*/x">', "SetHandler x", ["/doc[^/]*/x$"]),
        ("<Location /st?tus>", "SetHandler x", ["/st[^/]tus$"]),
        (r"<Location /a\*b>", "SetHandler x", [r"/a\\\*b(?:/|$)"]),
        ("<LocationMatch ^/x>", "SetHandler x", ["[\\s\\S]*?(?:^/x)"]),
        ('<Location ~ "^/x">', "SetHandler x", ["[\\s\\S]*?(?:^/x)"]),
        ("<Directory /var/www>", "SetHandler x", []),
    ],
)
def test_what_locations_have_taken(opening: str, directive: str, expected: list[str]) -> None:
    assert other_paths(section(opening, directive), "") == expected


def test_what_is_not_utf_8_is_kept_out_by_its_bytes() -> None:
    text = dump("Alias /caf\udce9 /x", "RedirectMatch ^/(?:\\\udce9|[\udce8-\udcea]) /y", "AliasMatch ^/\u00e9 /z")
    patterns = other_paths(text, "")
    assert patterns == [
        r"/caf\xe9(?:/|$)",
        r"[\s\S]*?(?:^/(?:\xe9|[\xe8-\xea]))",
        "[\\s\\S]*?(?:^/\u00e9)",
    ]
    assert re.match(patterns[0].encode(), b"/caf\xe9/x")
    assert other_paths(dump("AliasMatch ^\\Q/\udce9\\E /x"), "") == ["[\\s\\S]*?(?:^\\Q/\udce9\\E)"]  # refused


def test_a_mount_gives_away_what_is_below_it_alone() -> None:
    text = dump("Alias /shop/static /x", "Alias /static /x", "Alias /shop /x", "Alias / /x", "Alias /shopping /x")
    assert other_paths(text, "/shop") == ["/shop/static(?:/|$)"]


def test_what_another_virtual_host_serves_is_of_no_concern() -> None:
    text = "\n".join(
        (
            "Alias /all /x",
            "<VirtualHost *:80>",
            "Alias /theirs /x",
            "SetEnv LBADAPTOR_CONFIG /etc/board.toml",
            "</VirtualHost>",
            "<VirtualHost *:80>",
            "Alias /ours /x",
            'SetEnv LBADAPTOR_CONFIG "/etc/./shop.toml"',
            "</VirtualHost>",
        )
    )
    ours = hosts_of(text, "/etc/shop.toml")
    assert other_paths(text, "", ours) == ["/all(?:/|$)", "/ours(?:/|$)"]
    assert hosts_of(text, "/etc/none.toml") == set()
    assert len(other_paths(text, "")) == 3


# What the fast lane's requests do not meet.

ADAPTOR = r'WSGIScriptAliasMatch "^/[\s\S]*$" /opt/lb/lbadaptor.wsgi process-group=x'
AT_SHOP = r'WSGIScriptAliasMatch "^\Q/shop\E(?:/[\s\S]*)?$" /opt/lb/lbadaptor.wsgi process-group=x'
RULES = (f"{SKIP}2]", 'RewriteRule "^" "unix:x" [P,NS,E=LBADAPTOR_SESSION:held]')


def host(*lines: str) -> str:
    return section("<VirtualHost *:80>", *lines)


@pytest.mark.parametrize(
    ("rule", "concerns_site", "concerns_shop"),
    [
        ('RewriteRule "^/shop/old" "/shop/new"', True, True),
        ('RewriteRule "^/blog/" "/news"', True, False),
        ("RewriteRule ^/blog$ /news", True, False),
        ('RewriteRule "^/sho?p" "/x"', True, True),
        ('RewriteRule "^/s" "/x"', True, True),
        (r'RewriteRule "\.php$" "-" [F]', True, True),
        ('RewriteRule "!^/blog" "-" [F]', True, True),
        ('RewriteCond %{REQUEST_URI} "x"', False, False),
    ],
)
def test_rules_after_the_fast_lanes_are_found(rule: str, concerns_site: bool, concerns_shop: bool) -> None:
    for mount, concerns in (("", concerns_site), ("/shop", concerns_shop)):
        assert [place.directive for place in later_rules(host(*RULES, rule), mount)] == [rule] * concerns
        assert later_rules(host(rule, *RULES), mount) == []
        assert later_rules(host(*RULES) + host(rule) + dump(rule), mount) == []
        assert later_rules(host(*RULES, "<Directory /x>", rule, "</Directory>"), mount) == []


def test_a_second_fast_lane_is_not_in_the_way_of_the_first() -> None:
    assert later_rules(host(*RULES, *RULES), "") == []


@pytest.mark.parametrize(
    ("directive", "of_site", "of_shop"),
    [
        ("Redirect 503 /", True, True),
        ("Redirect permanent / https://x/", True, True),
        ("Redirect /shop https://x/", False, True),
        ("Redirect /shop/old /shop/new", False, False),
        ("ProxyPass / http://127.0.0.1/", True, True),
        ("ProxyPass / !", False, False),
        ("Alias /shop/ /var/www/", False, True),
        ("RedirectMatch ^/x /y", False, False),  # kept out of the fast lane by its pattern
        ("DocumentRoot /var/www", False, False),
    ],
)
def test_what_takes_a_whole_mount_is_found(directive: str, of_site: bool, of_shop: bool) -> None:
    for mount, adaptor, takes in (("", ADAPTOR, of_site), ("/shop", AT_SHOP, of_shop)):
        expected = [directive] * takes
        assert [place.directive for place in whole_mount_taken(host(directive, adaptor), mount)] == expected
        assert [place.directive for place in whole_mount_taken(dump(directive) + host(adaptor), mount)] == expected
        assert whole_mount_taken(host(directive) + host(adaptor), mount) == []
        assert whole_mount_taken(host(directive), mount) == []  # not included yet: nobody knows where it will be


def test_a_mount_that_is_kept_from_a_proxy_is_not_taken() -> None:
    text = host("ProxyPass /shop !", "ProxyPass / http://127.0.0.1/", AT_SHOP)
    assert whole_mount_taken(text, "/shop") == []


@pytest.mark.parametrize(
    ("adaptor", "mount"),
    [
        (ADAPTOR, ""),
        (AT_SHOP, "/shop"),
        ("ScriptAlias / /opt/lb/lbadaptor.cgi/", ""),
        ("ScriptAlias /shop /opt/lb/lbadaptor.cgi", "/shop"),
    ],
)
def test_an_adaptor_that_is_included_twice_is_found(adaptor: str, mount: str) -> None:
    assert [place.directive for place in included_twice(host(adaptor, adaptor), mount)] == [adaptor]
    assert included_twice(host(adaptor) + host(adaptor) + dump(adaptor), mount) == []
    assert included_twice(host(adaptor, adaptor), "/other") == []
    assert whole_mount_taken(host(adaptor), mount) == []


def test_missing_modules() -> None:
    modules = "Loaded Modules:\n core_module (static)\n rewrite_module (shared)\n proxy_module (static)\n"
    assert missing_modules(dump("ServerName x") + modules) == ["proxy_http", "headers"]
    assert other_paths(dump("Alias /x /y") + modules, "") == ["/x(?:/|$)"]
