"""`lbctl apache-config` reads what httpd says of its own configuration, and writes the fast lane's, or refuses."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import INSTALLATIONS, LBCTL, TIMEOUT, apache

from monitor.contract.installed import SHARE

TOML = '[application]\napp = "shop:application"\nsession_cookie = "sid"\n[files]\nrun_folder = "run"\n'
MODULES = ("mpm_event", "unixd", "authn_core", "authz_core", "authz_user", "auth_basic")


@dataclass
class Place:
    """A configuration of httpd's, and one of lbadaptor's."""

    folder: Path
    name: str

    def write(self, *lines: str) -> None:
        httpd = apache(self.name)
        text = [
            f'ServerRoot "{self.folder}"',
            "ServerName 127.0.0.1:9999",
            "Listen 127.0.0.1:9999",
            f'ErrorLog "{self.folder}/error.log"',
            *(
                f"LoadModule {name}_module {httpd.modules}/mod_{name}.so"
                for name in MODULES
                if (httpd.modules / f"mod_{name}.so").exists()
            ),
            "<Directory />",
            "    AllowOverride None",
            "    Require all denied",
            "</Directory>",
            *lines,
        ]
        (self.folder / "httpd.conf").write_text("\n".join(text) + "\n")

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = f"{apache(self.name).binary} -f {self.folder}/httpd.conf"
        command = [str(LBCTL), "--config", str(self.folder / "shop.toml"), "apache-config", "--apache", program]
        return subprocess.run(
            [*command, "--share", str(self.folder / "share"), *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={"LD_LIBRARY_PATH": apache(self.name).libraries},
        )

    def refusal(self, *words: str) -> str:
        done = self.ask(*words)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr


@pytest.fixture(params=INSTALLATIONS)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    (tmp_path / "shop.toml").write_text(TOML)
    (tmp_path / "share").mkdir()
    return Place(tmp_path, request.param)


def test_where_nothing_is_in_its_way_it_is_written(place: Place) -> None:
    place.write("<Location /private>", "Require valid-user", "</Location>")
    done = place.ask("--slots", "3", "--mount", "/shop/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("<Proxy ") == 3
    assert 'RewriteRule "^/shop(?:/|$)"' in done.stdout
    assert "lbadaptor-address-shop" in done.stdout


@pytest.mark.parametrize("opening", ['<Directory "{folder}">', "<Files lbadaptor.wsgi>", "<Directory />"])
def test_authorisation_by_folder_or_file_is_reported_and_refused(place: Place, opening: str) -> None:
    opening = opening.format(folder=place.folder / "share")
    place.write(opening, "    Require valid-user", f"</{opening[1:].split()[0].rstrip('>')}>")
    told = place.refusal()
    assert "no fast lane: authorisation stands where Apache's own proxy does not look for it" in told
    assert f"{place.folder}/httpd.conf, line " in told
    assert f"{opening} Require valid-user" in told
    assert "Put it into a <Location>" in told
    assert place.ask("--unchecked").returncode == 0


def test_authorisation_in_a_file_of_the_folder_is_found(place: Place) -> None:
    place.write(f'<Directory "{place.folder}">', "AllowOverride AuthConfig", "</Directory>")
    assert place.ask().returncode == 0
    (place.folder / "share" / ".htaccess").write_text("# who may come\nRequire user somebody\n")
    assert f"{place.folder}/share/.htaccess, line 2: Require user somebody" in place.refusal()


def test_what_would_break_the_way_back_is_reported(place: Place) -> None:
    place.write("<Location /shop>", "ErrorDocument 503 /sorry.html", "</Location>")
    done = place.ask()
    assert done.returncode == 0
    assert "<Location /shop> ErrorDocument 503 /sorry.html" in done.stderr
    place.write("MergeSlashes Off")
    assert "MergeSlashes Off" in place.refusal()


def test_a_file_is_checked_against_what_came_later(place: Place) -> None:
    place.write()
    file = place.folder / "lane.conf"
    file.write_text(place.ask("--slots", "3", "--mount", "/shop", "--keep-out", "/shop/a b").stdout)

    def check(status: int) -> str:
        done = place.ask("--check", str(file))
        assert done.returncode == status, done.stderr
        assert done.stdout == ("" if status else f"{file}: good\n")
        return done.stderr

    check(0)
    file.write_text(f"# a remark\n{file.read_text()}\n\n")
    check(0)
    # Apache's configuration has changed.
    alias = f"LoadModule alias_module {apache(place.name).modules}/mod_alias.so"
    loaded = [alias] if (apache(place.name).modules / "mod_alias.so").exists() else []
    place.write(*loaded, f'Alias "/shop/static" "{place.folder}"')
    said = check(1)
    assert "is not what is to be written now" in said
    assert "\n  +RewriteRule " in said
    assert "/shop/static" in said
    assert "apache-config --slots 3 --mount /shop" in said
    place.write(*loaded, f'Alias "/elsewhere" "{place.folder}"')
    check(0)
    place.write("<Directory />", "Require valid-user", "</Directory>")
    assert "no fast lane: authorisation stands" in place.refusal("--check", str(file))
    # The settings have changed.
    place.write()
    (place.folder / "shop.toml").write_text(TOML + "[adaptor]\nanswer_timeout = 77\n")
    assert "timeout=77" in check(1)
    (place.folder / "shop.toml").write_text(TOML + "[appservers]\nservers = 1\nslots = 2\n")
    assert "--slots 3: there are 2" in place.refusal("--check", str(file))
    (place.folder / "shop.toml").write_text(TOML)
    check(0)
    assert "No such file" in place.refusal("--check", str(place.folder / "none.conf"))
    file.write_text("RewriteEngine On\n")
    assert "does not say by which options it was written" in place.refusal("--check", str(file))


ODD = [
    ("ticket_cookie", ["a.b", "$x", "^x", "a|b", "`x`", "!x", "x*+", "-", "'x'", "#x", "~x", "%{x%"]),
    ("mount", ["/a.b+c", "/a;b=c,d", "/a'b", "/(x)", "/*", "/a&b!c~d:e@f"]),
    ("run_folder", ["/run/a b", "/run/'a' \"b\"", "/run/a\\b\\\\", "/run/%{x}y$z", "/run/é", "/run/#a", "/run/<a>"]),
    ("host", ["::1", "localhost", "0.0.0.0", "::", "2001:DB8::1"]),
]


@pytest.mark.parametrize("where", [where for where, _ in ODD])
def test_what_is_written_is_apaches_language_whatever_the_settings_are(place: Place, where: str) -> None:
    httpd = apache(place.name)
    names = ("rewrite", "proxy", "proxy_http", "headers")
    loaded = [f"LoadModule {name}_module {httpd.modules}/mod_{name}.so" for name in names]
    (place.folder / "share" / "lbadaptor-fastlane.conf").write_text((SHARE / "lbadaptor-fastlane.conf").read_text())
    for value in dict(ODD)[where]:
        if where == "ticket_cookie" and "{" in value:
            continue  # not a token, so no cookie's name
        quoted = json.dumps(value)
        text = {
            "ticket_cookie": TOML.replace("[files]", f"ticket_cookie = {quoted}\n[files]"),
            "run_folder": TOML.replace('"run"', quoted),
            "host": f"{TOML}[appservers]\nhost = {quoted}\n",
        }.get(where, TOML)
        (place.folder / "shop.toml").write_text(text)
        done = place.ask("--unchecked", *(["--mount", value] if where == "mount" else []))
        assert (done.returncode, done.stderr) == (0, ""), value
        place.write(*loaded, f"Include {place.folder}/lane.conf")
        for lane in (done.stdout, done.stdout.replace("<IfFile ", "<IfFile !")):
            if "<IfFile !" in lane and where == "run_folder":
                continue  # there is no such file
            maps = place.folder / "maps"
            maps.touch()
            (place.folder / "lane.conf").write_text(re.sub(r'"txt:.*"', f'"txt:{maps}"', lane))
            tried = subprocess.run(
                [httpd.binary, "-t", "-f", place.folder / "httpd.conf"],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
                env={"LD_LIBRARY_PATH": httpd.libraries},
            )
            assert tried.returncode == 0, f"{value}: {tried.stderr}"


@pytest.mark.parametrize(
    "mount", ["shop", "/a%20b", "/a$b", "/a{b", "/a\\b", '/a"b', "/a b", "/é", "/a//b", "/a[b]", "/a^b"]
)
def test_mounts_that_mean_something_else_to_apache_are_refused(place: Place, mount: str) -> None:
    place.write()
    assert f"--mount {mount}: a path is needed" in place.refusal("--mount", mount)


def test_what_cannot_be_done_is_said(place: Place) -> None:
    place.write("NoSuchDirective On")
    assert "Invalid command 'NoSuchDirective'" in place.refusal()
    place.write()
    assert "--slots 17: there are 16" in place.refusal("--slots", "17")
    assert "--mount shop: a path is needed" in place.refusal("--mount", "shop")
    assert "No such file" in place.refusal("--apache", "/no/such/apachectl")
    (place.folder / "shop.toml").write_text(TOML + '[adaptor]\npass_variables = ["GEO_*"]\n')
    assert "name each" in place.refusal()
