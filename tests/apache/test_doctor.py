"""`lbctl doctor` reads what a real httpd says of its configuration."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import LBCTL, TIMEOUT, Cluster, apache, eventually

from monitor.contract.installed import SHARE

MODULES = [
    "mpm_event",
    "authn_core",
    "authz_core",
    "alias",
    "env",
    "setenvif",
    "rewrite",
    "proxy",
    "proxy_http",
    "headers",
]
TOML = '[application]\napp = "json:loads"\nsession_cookie = "sid"\n[files]\nrun_folder = "run"\nkey_file = "keys"\n'


class Installation:
    """An httpd's configuration, and one of lbadaptor's. None is started."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.config = folder / "shop.toml"
        self.config.write_text(TOML)
        self.included = folder / "lbadaptor-shop.conf"
        self.write()
        self.lbctl("apache-config", "--slots", "2", "--write", str(self.included))

    def write(self, *lines: str, wsgi: bool = True) -> None:
        httpd = apache("debian")
        modules = [f"LoadModule {name}_module {httpd.modules}/mod_{name}.so" for name in MODULES]
        load = [f"LoadModule wsgi_module {httpd.mod_wsgi}"] if wsgi else []
        log = f'ErrorLog "{self.folder}/error.log"'
        text = [
            f'ServerRoot "{self.folder}"',
            "ServerName shop.example",
            "Listen 127.0.0.1:9999",
            log,
            *modules,
            *load,
        ]
        (self.folder / "httpd.conf").write_text("\n".join((*text, *lines)) + "\n")

    def lbctl(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        program = f"{apache('debian').binary} -f {self.folder}/httpd.conf"
        return subprocess.run(
            [LBCTL, "--config", self.config, command, "--apache", program, *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def doctor(self) -> dict[str, Any]:
        """What it says of Apache: findings by check, and what is well."""
        told = json.loads(self.lbctl("doctor", "--json").stdout)
        found = {one["check"]: one["what"] for one in told["findings"] if one["subject"] == "Apache"}
        return {"found": found, "well": {*told["well"]}, "not_checked": told["not_checked"]}


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_what_lbctl_writes_is_well(installation: Installation) -> None:
    installation.write(f"Include {installation.included}")
    told = installation.doctor()
    assert {name: why for name, why in told["found"].items() if not name.endswith("of-apache")} == {
        "apache-runs": "Apache does not run: nobody listens on port 9999"
    }
    names = ["configuration", "include", "defines", "file"]
    assert {*(f"apache-{name}" for name in names), "mod-wsgi", "main-interpreter", "passed-on"} <= told["well"]
    assert {"ticket-cookie", "mod-wsgi-python"} <= told["well"]


def test_what_has_changed_since_is_found(installation: Installation) -> None:
    installation.config.write_text(TOML.replace('"sid"', '"sid"\nticket_cookie = "__SHOP__"'))
    snippet = f"Include {SHARE}/lbadaptor.conf"
    other = ["<VirtualHost *:9999>", "ServerName other.example", snippet, "</VirtualHost>"]
    old = [f"WSGIScriptAlias /old {SHARE}/lbadaptor.wsgi", "WSGIPassAuthorization Off"]
    installation.write(f"Include {installation.included}", *old, *other)
    found = installation.doctor()["found"]
    assert "looks for the ticket cookie `__PRT__`, and AppServers hand out `__SHOP__`" in found["ticket-cookie"]
    assert f"{installation.included} is older than the settings" in found["apache-file"]
    assert "without `WSGIPassAuthorization On`" in found["passed-on"]
    assert "the adaptor runs in a sub-interpreter" in found["main-interpreter"]
    assert "this Include has no `Define LBADAPTOR_CONFIG` of its own" in found["apache-defines"]


def test_an_apache_without_mod_wsgi(installation: Installation) -> None:
    installation.write(f"Include {installation.included}", wsgi=False)
    told = installation.doctor()
    assert "Apache has not loaded mod_wsgi" in told["found"]["apache-configuration"]
    assert "mod-wsgi" in told["not_checked"]


def test_an_apache_that_was_not_reloaded(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(appservers={"servers": 1})
    site = cluster.site("embedded-debian")
    configuration = site.httpd.folder / "httpd.conf"
    program = f"{apache('debian').binary} -f {configuration}"
    command = [LBCTL, "--config", cluster.config, "doctor", "--json", "--apache", program]

    def reloaded() -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        told = json.loads(done.stdout)
        found = [one["what"] for one in told["findings"] if one["check"] == "apache-reload"]
        return "well" if "apache-reload" in told["well"] else str(found)

    assert reloaded() == "well"
    with configuration.open("a") as file:
        file.write("# changed\n")
    assert f"changed since it was started or reloaded: {configuration}" in reloaded()
    site.httpd.reload()
    eventually("it goes by its files", lambda: reloaded() == "well")
