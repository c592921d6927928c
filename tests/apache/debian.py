"""Debian's own Apache in a folder of a test's: its package's configuration, set up by a2enmod, run by apache2ctl.

`apache/install.sh test` has unpacked the package in the environment folder.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from cluster import LBCTL, TAKEN, TIMEOUT, Cluster, apache, eventually

from monitor.demo import httpd
from tests.ports import free_ports

PACKAGE = Path(sys.prefix) / "apache2"
MODULES = (
    *("authz_host", "auth_basic", "access_compat", "authn_file", "authz_user", "alias", "dir", "autoindex", "env"),
    *("mime", "negotiation", "setenvif", "filter", "deflate", "status", "reqtimeout"),
)
CONFIGURATIONS = ("charset", "localized-error-pages", "other-vhosts-access-log", "security", "serve-cgi-bin")
"""These and MODULES are what the package enables when it is installed (its postinst), but for the mpm. a2enmod adds
what a module depends on."""
OURS = ("wsgi", "rewrite", "proxy_http", "headers")
"""What lbadaptor needs besides (docs/howto/install-by-hand.md)."""


class DebianApache(httpd.Httpd):
    """An Apache with an mpm and a mod_wsgi (one of INSTALLATIONS).

    First its configuration (`file`, `host`, `enable`), then `start`.
    """

    def __init__(self, folder: Path, cluster: Cluster, mpm: str, installation: str) -> None:
        folder.mkdir()
        folder.chmod(0o711)
        self.mpm = mpm
        self.python_port = free_ports(2)
        """of virtual hosts without the fast lane, besides `port`"""
        super().__init__(apache(installation), folder, self.python_port + 1, "lbadaptor.conf", cluster.config)
        self.share = next((path for path in folder.glob("readable/share/*") if path.is_dir()), httpd.SHARE)
        self._etc = folder / "apache2"
        shutil.copytree(PACKAGE / "etc" / "apache2", self._etc, symlinks=True)
        (self._etc / "sites-enabled" / "000-default.conf").unlink(missing_ok=True)
        for name in ("run", "lock", "log", "state"):
            (folder / name).mkdir()
        self.error_log = folder / "log" / "error.log"
        user = self.user or pwd.getpwuid(os.geteuid())
        (self._etc / "envvars").write_text(
            "unset HOME\n"
            f"export APACHE_RUN_USER={user.pw_name} APACHE_RUN_GROUP='#{user.pw_gid}' LANG=C\n"
            f"export APACHE_RUN_DIR={folder}/run APACHE_PID_FILE={folder}/run/apache2.pid\n"
            f"export APACHE_LOCK_DIR={folder}/lock APACHE_LOG_DIR={folder}/log\n"
        )
        (self._etc / "ports.conf").write_text(
            f"ServerName localhost\nListen 127.0.0.1:{self.port}\nListen 127.0.0.1:{self.python_port}\n"
        )
        (self._etc / "mods-available" / "wsgi.load").write_text(
            f"LoadModule wsgi_module {self.apache.mod_wsgi}\nWSGISocketPrefix {folder}/run/wsgi\n"
        )
        self.run("a2enmod", f"mpm_{mpm}", *MODULES, *OURS)
        self.run("a2enconf", *CONFIGURATIONS)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{PACKAGE}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "APACHE_CONFDIR": str(self._etc),
            "APACHE_STATE_DIRECTORY": str(self.folder / "state"),
            "APACHE_ULIMIT_MAX_FILES": ":",
        }

    def run(self, *command: str) -> str:
        """What one of the administrator's commands says. Fails the test where it fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def file(self, cluster: Cluster, name: str, *options: str) -> Path:
        """The file that `lbctl apache-config` writes for a cluster, to be included in a virtual host."""
        file = self._etc / f"lbadaptor-{name}.conf"
        command = [str(LBCTL), "--config", str(cluster.config), "apache-config", "--share", str(self.share)]
        said = self.run(*command, *options, "--write", str(file))
        assert "python" in options or "no fast lane" not in said
        return file

    def enable(self, name: str, text: str) -> None:
        """Enable a piece of configuration that holds everywhere."""
        (self._etc / "conf-available" / f"{name}.conf").write_text(text)
        self.run("a2enconf", name)

    def host(self, name: str, port: int, *files: Path) -> None:
        """Enable a virtual host that includes these files. The first one gets requests with other names, too."""
        log = self.folder / "log" / f"lanes-{port}"
        lines = [f"<VirtualHost *:{port}>", f"ServerName {name}", *(f"Include {file}" for file in files)]
        lines.append(TAKEN.format(log=log))
        site = f"{len(list((self._etc / 'sites-enabled').iterdir())):03}-{name}"
        (self._etc / "sites-available" / f"{site}.conf").write_text("\n".join([*lines, "</VirtualHost>", ""]))
        self.run("a2ensite", site)

    def took_the_fast_lane(self, port: int) -> bool:
        """Whether any request did."""
        return bool(re.search(r"\d", (self.folder / "log" / f"lanes-{port}").read_text()))

    def start(self, timeout: float = TIMEOUT) -> None:
        """Start it, as its unit does but for its staying in the foreground; and wait until it answers."""
        self.run("apache2ctl", "configtest")
        etc = shlex.quote(str(self._etc))
        with (self.folder / "out").open("wb") as out:
            self._process = subprocess.Popen(
                [*httpd.dies_with_us(), "sh", "-c", f". {etc}/envvars; exec apache2 -d {etc} -DFOREGROUND"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        eventually("Apache answers", lambda: self._answers() or not self.alive(), timeout)
        assert self.alive(), (self.folder / "out").read_text() + self.error_log.read_text()

    def reload(self) -> None:
        self.run("apache2ctl", "graceful")

    def children(self) -> set[int]:
        """Its processes that serve visitors."""
        tasks = Path(f"/proc/{self.pid}/task")
        return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}
