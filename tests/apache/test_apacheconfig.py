"""`lbctl apache-config` reads what httpd says of its own configuration, and writes both lanes or says why not."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from cluster import INSTALLATIONS, LBCTL, TIMEOUT, apache

from monitor.contract.installed import SHARE
from monitor.ctl import main as lbctl

TOML = '[application]\napp = "shop:application"\nsession_cookie = "sid"\n[files]\nrun_folder = "run"\n'
MODULES = ("mpm_event", "unixd", "authn_core", "authz_core", "authz_user", "auth_basic")
ALIAS = ("alias", "env", "setenvif")
FAST_LANE = ("rewrite", "proxy", "proxy_http", "headers")


@dataclass
class Place:
    """A configuration of httpd's, and one of lbadaptor's."""

    folder: Path
    name: str

    def write(self, *lines: str, without: str = "") -> None:
        httpd = apache(self.name)
        text = [
            f'ServerRoot "{self.folder}"',
            "ServerName 127.0.0.1:9999",
            "Listen 127.0.0.1:9999",
            f'ErrorLog "{self.folder}/error.log"',
            *(
                f"LoadModule {name}_module {httpd.modules}/mod_{name}.so"
                for name in (*MODULES, *FAST_LANE, *ALIAS)
                if name != without and (httpd.modules / f"mod_{name}.so").exists()
            ),
            "<Directory />",
            "    AllowOverride None",
            "    Require all denied",
            "</Directory>",
            *lines,
        ]
        (self.folder / "httpd.conf").write_text("\n".join(text) + "\n")

    def _words(self, *words: str, config: str = "shop.toml") -> list[str]:
        program = f"{apache(self.name).binary} -f {self.folder}/httpd.conf"
        command = ["--config", str(self.folder / config), "apache-config", "--apache", program]
        return [*command, "--share", str(self.folder / "share"), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`lbctl apache-config`, as people call it."""
        return subprocess.run(
            [str(LBCTL), *self._words(*words)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={"LD_LIBRARY_PATH": apache(self.name).libraries},
        )

    def ask(self, *words: str, config: str = "shop.toml") -> subprocess.CompletedProcess[str]:
        """The same in this process: two thirds of what `run` takes is the start of Python."""
        asked = self._words(*words, config=config)
        with redirect_stdout(StringIO()) as told, redirect_stderr(StringIO()) as said:
            try:
                status = lbctl.main(asked)
            except SystemExit as end:
                status = int(str(end.code))
        return subprocess.CompletedProcess(asked, status, told.getvalue(), said.getvalue())

    def reason(self, *words: str) -> str:
        """Why there is the Python lane alone."""
        done = self.ask(*words)
        assert done.returncode == 0
        assert "Define LBADAPTOR_CONFIG " in done.stdout
        assert f"Include {self.folder}/share/lbadaptor.conf" in done.stdout
        assert "Rewrite" not in done.stdout.replace("\n# ", "")
        told = done.stderr.removeprefix("lbctl: no fast lane, all requests take the Python lane: ")
        assert told != done.stderr
        assert "".join(f"\n# {line}".rstrip() for line in told.splitlines()) in done.stdout
        return told

    def refusal(self, *words: str, config: str = "shop.toml") -> str:
        done = self.ask(*words, config=config)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr


@pytest.fixture(params=INSTALLATIONS)
def place(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("LD_LIBRARY_PATH", apache(request.param).libraries)
    (tmp_path / "shop.toml").write_text(TOML)
    (tmp_path / "share").mkdir()
    return Place(tmp_path, request.param)


@pytest.fixture
def debian(tmp_path: Path) -> Place:
    (tmp_path / "shop.toml").write_text(TOML)
    (tmp_path / "share").mkdir()
    return Place(tmp_path, "debian")


def test_where_nothing_is_in_its_way_it_is_written(place: Place) -> None:
    place.write("<Location /private>", "Require valid-user", "</Location>")
    done = place.run("--slots", "3", "--mount", "/shop/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("<Proxy ") == 3
    assert 'RewriteRule "^/shop(?:/|$)"' in done.stdout
    assert done.stdout == place.ask("--lanes", "both", "--slots", "3", "--mount", "/shop/").stdout.replace(
        " --lanes both", ""
    )
    assert "lbadaptor-address-shop" in done.stdout


@pytest.mark.parametrize("opening", ['<Directory "{folder}">', "<Files lbadaptor.wsgi>", "<Directory />"])
def test_authorisation_by_folder_or_file_is_reported_and_leaves_the_python_lane(place: Place, opening: str) -> None:
    opening = opening.format(folder=place.folder / "share")
    place.write(opening, "    Require valid-user", f"</{opening[1:].split()[0].rstrip('>')}>")
    told = place.reason()
    assert told.startswith("authorisation stands where Apache's own proxy does not look for it")
    assert f"{place.folder}/httpd.conf, line " in told
    assert f"{opening} Require valid-user" in told
    assert "Put it into a <Location>" in told
    assert place.ask("--unchecked").stdout.count("<Proxy ") == 16


def test_authorisation_in_a_file_of_the_folder_is_found(place: Place) -> None:
    place.write(f'<Directory "{place.folder}">', "AllowOverride AuthConfig", "</Directory>")
    assert place.ask().returncode == 0
    (place.folder / "share" / ".htaccess").write_text("# who may come\nRequire user somebody\n")
    assert f"{place.folder}/share/.htaccess, line 2: Require user somebody" in place.reason()


def test_what_would_break_the_way_back_is_reported(place: Place) -> None:
    place.write("<Location /shop>", "ErrorDocument 503 /sorry.html", "</Location>")
    done = place.ask()
    assert done.returncode == 0
    assert "<Location /shop> ErrorDocument 503 /sorry.html" in done.stderr
    place.write("MergeSlashes Off")
    assert "MergeSlashes Off" in place.reason()
    assert "no fast lane: " in place.refusal("--lanes", "both")


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
    place.write(f'Alias "/shop/static" "{place.folder}"')
    said = check(1)
    assert "is not what is to be written now" in said
    assert "\n  +RewriteRule " in said
    assert "/shop/static" in said
    command = (
        f"lbctl --config {place.folder}/shop.toml apache-config --slots 3 --mount /shop --share {place.folder}/share"
    )
    assert f"`{command} --keep-out '/shop/a b' --write {file}`" in said
    assert f"\n# {command} --keep-out '/shop/a b'\n" in file.read_text()
    place.write(f'Alias "/elsewhere" "{place.folder}"')
    check(0)
    place.write("<Directory />", "Require valid-user", "</Directory>")
    said = check(1)
    assert "no fast lane, all requests take the Python lane: authorisation stands" in said
    assert "\n  -RewriteRule " in said or "… lines not shown" in said
    place.write("NoSuchDirective On")
    assert "no fast lane: Apache's configuration cannot be read" in place.refusal("--check", str(file))
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
    for name in ("lbadaptor.conf", "lbadaptor-fastlane.conf", "lbadaptor-log.conf"):
        (place.folder / "share" / name).write_text((SHARE / name).read_text())
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
        place.write(f"LoadModule wsgi_module {httpd.mod_wsgi}", f"Include {place.folder}/lane.conf")
        for lane in (done.stdout, done.stdout.replace("<IfFile ", "<IfFile !")):
            if "<IfFile !" in lane and where == "run_folder":
                continue  # there is no such file
            maps = place.folder / "maps"
            maps.touch()
            (place.folder / "lane.conf").write_text(re.sub(r'"(txt|rnd):.*"', rf'"\1:{maps}"', lane))
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


def test_a_path_that_is_not_utf_8_is_kept_out(place: Place) -> None:
    place.write(
        "Alias /caf\u00e9 /tmp", "RedirectMatch 410 secret", "<Location /st?tus>", "SetHandler x", "</Location>"
    )
    text = (place.folder / "httpd.conf").read_text()
    (place.folder / "httpd.conf").write_text(text, "latin-1")
    done = place.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert r'RewriteRule "^(?!/caf\xe9(?:/|$)|[\s\S]*?(?:secret)|/st[^/]tus$)"' in done.stdout
    file = place.folder / "lane.conf"
    file.write_text(done.stdout)
    assert place.run("--check", str(file)).stdout == f"{file}: good\n"
    place.write("<Directory />", "Require user caf\u00e9", "</Directory>")
    (place.folder / "httpd.conf").write_text((place.folder / "httpd.conf").read_text(), "latin-1")
    assert "Require user caf" in place.run().stdout


def test_what_cannot_be_done_is_said(debian: Place) -> None:
    debian.write()
    assert "--slots 17: there are 16" in debian.refusal("--slots", "17")
    assert "--mount shop: a path is needed" in debian.refusal("--mount", "shop")
    assert "--keep-out static: a path below / is needed" in debian.refusal("--keep-out", "static")
    assert "it has a quote or a backslash" in debian.refusal("--share", "/a'\"b")
    (debian.folder / "shop.toml").write_text(TOML + '[adaptor]\npass_variables = ["GEO"')
    assert "shop.toml" in debian.refusal()


def test_what_speaks_against_the_fast_lane_is_said(debian: Place) -> None:
    debian.write("NoSuchDirective On")
    assert "Invalid command 'NoSuchDirective'" in debian.reason()
    debian.write()
    assert "No such file" in debian.reason("--apache", "/no/such/apachectl")
    (debian.folder / "shop.toml").write_text(TOML + '[adaptor]\npass_variables = ["GEO_*"]\n')
    assert "name each" in debian.reason()


@pytest.mark.parametrize("module", ["rewrite", "proxy_http", "headers"])
def test_a_module_that_is_not_loaded_is_named(debian: Place, module: str) -> None:
    debian.write(without=module)
    assert f"Apache has not loaded mod_{module}: a2enmod {module}\n" in debian.reason()


def test_a_file_whose_reason_no_longer_holds_does_not_fit(debian: Place) -> None:
    debian.write("MergeSlashes Off")
    file = debian.folder / "lane.conf"
    file.write_text(debian.ask("--mode", "daemon").stdout)
    assert "lbadaptor-daemon.conf" in file.read_text()
    done = debian.ask("--check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: good\n")
    assert "MergeSlashes Off" in done.stderr
    debian.write()
    done = debian.ask("--check", str(file))
    assert done.returncode == 1
    assert "apache-config --mode daemon --share" in done.stderr
    assert "\n  +RewriteMap " in done.stderr or "\n  +<IfFile " in done.stderr
    # On purpose it stays so.
    file.write_text(debian.ask("--lanes", "python").stdout)
    assert "--lanes python" in file.read_text()
    done = debian.ask("--check", str(file))
    assert done.returncode == 0
    assert re.fullmatch(r"lbctl: Apache's configuration has no Include of \S+: nothing in it holds\n", done.stderr)


def test_a_file_of_an_earlier_release_works_and_is_to_be_written_anew(debian: Place) -> None:
    debian.write()
    file = debian.folder / "lane.conf"
    written = debian.ask("--slots", "2").stdout
    earlier = written[written.index("# The fast lane") :]
    file.write_text(
        f"# The fast lane to slots 0 to 1, for the whole site; written by\n# lbctl apache-config --slots 2\n{earlier}"
    )
    done = debian.ask("--check", str(file))
    assert done.returncode == 1
    assert "was written by an earlier release" in done.stderr
    assert "apache-config --slots 2 --share" in done.stderr
    assert "remove the other Include, of lbadaptor.conf" in done.stderr


def included(place: Place, *words: str, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> Path:
    """Apache includes what is written, with the installed snippets, in a virtual host."""
    place.write()
    file = place.folder / "lane.conf"
    file.write_text(place.ask("--share", str(SHARE), *words).stdout)
    place.write(
        f"LoadModule wsgi_module {apache(place.name).mod_wsgi}",
        *("<VirtualHost *:9999>", *before, f"Include {file}", *after, "</VirtualHost>"),
        *("<VirtualHost *:9998>", "Redirect / http://127.0.0.1:9999/", 'RewriteRule "^/x" "/y"', "</VirtualHost>"),
    )
    return file


@pytest.mark.parametrize("mount", ["", "/shop"])
@pytest.mark.parametrize("mode", ["embedded", "daemon"])
def test_what_is_included_already_is_not_in_its_own_way(debian: Place, mount: str, mode: str) -> None:
    words = ("--mode", mode, *(("--mount", mount) if mount else ()))
    file = included(debian, *words, before=("RewriteEngine On", 'RewriteRule "^/old" "/new"'))
    done = debian.ask("--check", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: good\n", "")
    assert debian.ask("--share", str(SHARE), *words).stdout == file.read_text()


def test_what_was_added_where_the_fast_lane_does_not_meet_it_is_told(debian: Place) -> None:
    later = (
        'RewriteRule "^/old" "/new"',
        'RewriteRule "\\.php$" "-" [F]',
        "Redirect 503 /",
        f"Include {SHARE}/lbadaptor.conf",
    )
    file = included(debian, after=later)
    done = debian.ask("--check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: good\n")
    told = done.stderr
    for directive in later[:3]:
        assert re.search(
            rf"{debian.folder}/httpd.conf, line \d+: <VirtualHost \*:9999> {re.escape(directive)}\n", told
        )
    assert told.count("put it before the Include") == 2
    assert told.count("a rewrite rule before the Include of lbadaptor's file takes all") == 1
    assert told.count("includes lbadaptor twice") == 1
    # In the Python lane alone, what the fast lane does not meet is met.
    for settings, words in (("", ("--lanes", "python")), ('[adaptor]\npass_variables = ["GEO_*"]\n', ())):
        (debian.folder / "shop.toml").write_text(TOML + settings)
        told = debian.ask("--share", str(SHARE), *words).stderr
        assert told.count("includes lbadaptor twice") == 1
        assert "put it before the Include" not in told
        assert "takes all" not in told
    (debian.folder / "shop.toml").write_text(TOML)
    # What is not about the mount does not matter to it.
    file = included(debian, "--mount", "/shop", after=('RewriteRule "^/old/" "/new"', "Redirect /old /new"))
    assert debian.ask("--check", str(file)).stderr == ""


def test_a_file_is_written_in_one_moment_or_not_at_all(debian: Place) -> None:
    """The shell's `>` would empty the file that Apache includes before anything of Apache's is read."""
    file = included(debian, after=('RewriteRule "^/old" "/new"',))
    before = file.read_text()
    link = debian.folder / "enabled.conf"
    link.symlink_to(file)
    file.chmod(0o640)
    inode = file.stat().st_ino
    # Apache reads the old file meanwhile: so it is known what comes after it.
    done = debian.run("--share", str(SHARE), "--write", str(link))
    assert done.returncode == 0
    assert done.stdout == (
        f"{link}: written, with both lanes\n"
        "Include it in Apache's configuration, and then: apache2ctl configtest && systemctl reload apache2\n"
    )
    assert 'RewriteRule "^/old" "/new"' in done.stderr
    assert link.is_symlink()
    assert file.read_text() == before
    assert file.stat().st_ino != inode
    assert file.stat().st_mode & 0o777 == 0o640
    # Nothing can be written.
    (debian.folder / "shop.toml").write_text(TOML + "[adaptor]\nanswer_timeout = -1\n")
    assert "answer_timeout" in debian.refusal("--write", str(file))
    assert file.read_text() == before
    (debian.folder / "shop.toml").write_text(TOML)
    names = {place.name for place in debian.folder.iterdir()}
    assert "No such file" in debian.refusal("--write", str(debian.folder / "none" / "lane.conf"))
    for place in (debian.folder, Path("/dev/null")):
        assert f"{place} is no file that can be replaced" in debian.refusal("--write", str(place))
    assert {place.name for place in debian.folder.iterdir()} == names
    # A new one, with one lane.
    new = debian.folder / "new.conf"
    done = debian.ask("--lanes", "python", "--write", str(new))
    assert f"{new}: written, with the Python lane alone\n" in done.stdout
    assert new.stat().st_mode & 0o777 == 0o644
    assert "Rewrite" not in new.read_text()


def test_the_file_of_another_application_is_not_checked(debian: Place) -> None:
    debian.write()
    (debian.folder / "the board.toml").write_text(TOML.replace('"run"', '"run-board"'))
    file = debian.folder / "board.conf"
    debian.ask("--write", str(file), config="the board.toml")
    board = debian.folder / "the board.toml"
    assert f"\n# lbctl --config '{board}' apache-config --share" in file.read_text()
    assert debian.ask("--check", str(file), config="the board.toml").stdout == f"{file}: good\n"
    told = debian.refusal("--check", str(file))
    assert told == (
        f"lbctl: {file}: this file is of {board}; say lbctl --config '{board}' apache-config --check {file}\n"
    )
    # It is the same file by another name.
    link = debian.folder / "link.toml"
    link.symlink_to(board)
    assert debian.ask("--check", str(file), config="link.toml").returncode == 1


def test_a_file_that_apache_does_not_include_is_told(debian: Place) -> None:
    file = included(debian)
    other = debian.folder / "other.conf"
    other.write_text(file.read_text())
    done = debian.ask("--check", str(other))
    assert (done.returncode, done.stdout) == (0, f"{other}: good\n")
    assert f"Apache's configuration has no Include of {other}: nothing in it holds" in done.stderr
    link = debian.folder / "link.conf"
    link.symlink_to(file)
    assert debian.ask("--check", str(link)).stderr == ""


def test_without_a_fast_lane_it_is_the_snippet_that_apache_includes(debian: Place) -> None:
    debian.write("MergeSlashes Off")
    file = debian.folder / "lane.conf"
    file.write_text(debian.ask("--share", str(SHARE)).stdout)
    assert "has no Include of" in debian.ask("--check", str(file)).stderr
    debian.write("MergeSlashes Off", f"LoadModule wsgi_module {apache(debian.name).mod_wsgi}", f"Include {file}")
    done = debian.ask("--check", str(file))
    assert (done.returncode, "has no Include of" in done.stderr) == (0, False)


def test_what_holds_in_the_python_lane_alone_is_told(debian: Place) -> None:
    file = included(debian, after=(f"<Directory {SHARE}>", "Header set X y", "Options None", "</Directory>"))
    told = debian.ask("--check", str(file)).stderr
    assert re.search(
        rf"{debian.folder}/httpd.conf, line \d+: .*<Directory {SHARE}> Header set X y\n  this holds", told
    )
    assert told.count("this holds in the Python lane only: put it into a <Location>") == 1
    debian.write(f'<Directory "{debian.folder}">', "AllowOverride FileInfo", "</Directory>")
    (debian.folder / "share" / ".htaccess").write_text(
        "# mine\n<IfModule x>\nSetEnv A b\n</IfModule>\nOptions None\n"
    )
    done = debian.ask()
    assert (done.returncode, done.stderr.count("\n")) == (0, 2)
    assert f"lbctl: {debian.folder}/share/.htaccess, line 3: SetEnv A b\n" in done.stderr
