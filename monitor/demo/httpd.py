"""A private Apache httpd with the adaptor inside: for the demo and the tests.

It listens on a loopback address, and writes nothing outside its own folder. `python -m monitor.demo.httpd` tells
whether there is an Apache that can be used.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import requests

from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.settings import load
from monitor.apacheconfig import fastlane, front, lanes
from monitor.apacheconfig.apache_check import NEEDED
from monitor.contract.installed import SHARE

PACKAGES = ("lbadaptor", "itsdangerous", "msgspec", "tomli")
"""What the adaptor imports."""
STOP_TIMEOUT = 15.0
"""Seconds; httpd itself gives its children 10 before it kills them."""

_MODULES = ("mpm_event", "unixd", "authz_core", "alias", "env", "setenvif")


class NoApache(LbadaptorError):
    """There is no Apache httpd with a mod_wsgi for this Python, or it does not start."""


@dataclass(frozen=True)
class Apache:
    """An installed httpd, and a mod_wsgi for this Python."""

    binary: Path
    modules: Path
    mod_wsgi: Path
    libraries: str = ""
    """LD_LIBRARY_PATH that it needs"""

    def __str__(self) -> str:
        return f"{self.binary} with {self.mod_wsgi}"

    def no_fast_lane(self) -> str:
        """Why it cannot have the fast lane; empty if it can."""
        missing = [f"mod_{name}" for name in NEEDED if not (self.modules / f"mod_{name}.so").exists()]
        return f"{self.modules} has no {', '.join(missing)}" if missing else ""


def installed() -> list[Apache]:
    """Every usable pair of httpd and mod_wsgi: Debian's module first, then PyPI's."""
    found = []
    system = Path("/usr/sbin/apache2"), Path("/usr/lib/apache2/modules")
    debian = system[1] / "mod_wsgi.so"
    if system[0].exists() and debian.exists() and _fits(debian):
        found.append(Apache(*system, debian))
    site = Path(sysconfig.get_path("platlib"))
    for module in sorted(site.glob("mod_wsgi/server/mod_wsgi-py*.so")):
        own = site / "mod_wsgi_packages" / "httpd"
        if (own / "bin" / "httpd").exists():
            found.append(Apache(own / "bin" / "httpd", own / "modules", module, str(own / "lib")))
        elif system[0].exists():
            found.append(Apache(*system, module))
    return found


def find() -> Apache:
    """The first usable one. Raises NoApache, with what to do."""
    found = installed()
    if found:
        return found[0]
    raise NoApache(
        f"Apache httpd with a mod_wsgi for this Python ({sys.executable}) is missing; for Debian's Python, as root: "
        "apt-get install libapache2-mod-wsgi-py3; else, with a compiler: pip install mod_wsgi-standalone"
    )


def _fits(module: Path) -> bool:
    """Whether a mod_wsgi is linked to the very Python that runs us."""
    name = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so".encode()
    return sys.base_prefix == "/usr" and name in module.read_bytes()


class Httpd:
    """One httpd on `address`:`port`, with its files in `folder`. `start`, then `stop`.

    `snippet` is one of the installed ones, or the path of another, included as it is. `extra` is configuration that
    comes after it. `fast_lane`: so many slots are in it, 0 for none. `more_modules`: what Apache loads besides.
    """

    def __init__(
        self,
        apache: Apache,
        folder: Path,
        port: int,
        snippet: str | Path,
        config: Path,
        mount: str = "",
        extra: str = "",
        fast_lane: int = 0,
        more_modules: Sequence[str] = (),
        address: str = "127.0.0.1",
    ) -> None:
        self.apache = apache
        self.folder = folder
        self.address = address
        self.port = port
        self.error_log = folder / "error.log"
        self.user = _user()
        self._config_file = folder / "httpd.conf"
        self._process: subprocess.Popen[bytes] | None = None
        share = self._share()
        modules = [*_MODULES, "cgid", *more_modules]
        settings = load(config)
        python = lanes.PythonLane.of(settings, snippet, share, config, mount)
        if settings.machine.front:
            modules += (name for name in front.NEEDED if name not in modules)
        if fast_lane:
            modules += (name for name in NEEDED if name not in modules)
            name = re.sub(r"\W+", "-", mount) or "site"
            text = lanes.both(python, fastlane.snippet(settings, fast_lane, mount, str(share), name), __name__)
        else:
            text = lanes.python_alone(python, "as asked for", __name__)
        self._config_file.write_text(self._configuration(modules, f"{text}{extra}\n"))

    def start(self, timeout: float = 20.0) -> None:
        """Start, and wait until it answers. Raises NoApache with httpd's own words."""
        command = [*dies_with_us(), str(self.apache.binary), "-DFOREGROUND", "-f", str(self._config_file)]
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
        if "TZ" in os.environ:  # the times in its logs are those of the other processes
            environment["TZ"] = os.environ["TZ"]
        if self.apache.libraries:
            environment["LD_LIBRARY_PATH"] = self.apache.libraries
        output = self.folder / "httpd.out"
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = "\n".join(
                    file.read_text(errors="replace") for file in (output, self.error_log) if file.exists()
                )
                self.stop()
                raise NoApache(f"Apache httpd does not start:\n{words[-3000:]}")

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def reload(self) -> None:
        """A graceful restart."""
        os.kill(self.pid, signal.SIGUSR1)

    def stop(self) -> None:
        """End it and all that it started. Blocks for 15 seconds at most."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        """Whether it answers. Raises NoApache if another program does."""
        try:
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(f"http://{self.address}:{self.port}/", timeout=1.0, allow_redirects=False)
                server = answer.headers.get("Server", "")
        except requests.ReadTimeout:
            return True
        except requests.RequestException:
            time.sleep(0.02)
            return False
        if not server.startswith("Apache"):
            self.stop()
            raise NoApache(f"another program answers at {self.address}:{self.port}")
        return True

    def _configuration(self, modules: Sequence[str], more: str) -> str:
        folder = self.apache.modules
        load_modules = [
            f"LoadModule {name}_module {folder}/mod_{name}.so"
            for name in modules
            if (folder / f"mod_{name}.so").exists()
        ]
        as_root = [f"User {self.user.pw_name}", f"Group #{self.user.pw_gid}"] if self.user else []
        return "\n".join(
            [
                f"ServerRoot {self.folder}",
                f"DefaultRuntimeDir {self.folder}",
                f"PidFile {self.folder}/httpd.pid",
                f"DocumentRoot {self.folder}",
                f"Listen {self.address}:{self.port}",
                f"ServerName {self.address}:{self.port}",
                *load_modules,
                f"LoadModule wsgi_module {self.apache.mod_wsgi}",
                *as_root,
                f"Mutex file:{self.folder} default",
                f"<IfModule cgid_module>\n    ScriptSock {self.folder}/cgid.sock\n</IfModule>",
                f"WSGISocketPrefix {self.folder}/wsgi",
                f"WSGIPythonHome {sys.base_prefix}",
                f"ErrorLog {self.error_log}",
                "LogLevel warn",
                # Two processes, and more when these are at work: each one starts a Python and imports the adaptor.
                "StartServers 2",
                "ThreadsPerChild 25",
                "MinSpareThreads 25",
                "MaxSpareThreads 75",
                "MaxRequestWorkers 100",
                "Timeout 60",
                "<Directory />\n    AllowOverride None\n    Require all denied\n</Directory>",
                more,
            ]
        )

    def _share(self) -> Path:
        """The installed scripts, or a copy of them and of their packages where Apache's user cannot read them."""
        if not (SHARE / "lbadaptor.wsgi").exists():
            raise NoApache(f"{SHARE} is missing: install lbadaptor as a wheel, not in editable mode")
        if self.user is None:
            return SHARE
        if not _readable(Path(sys.base_prefix, "lib"), self.user):
            raise NoApache(
                f"Apache's user {self.user.pw_name} cannot read this Python, {sys.base_prefix}; use one that "
                "everybody can read, such as PYTHON=/usr/bin/python3"
            )
        if not _readable(self.folder, self.user, stat.S_IXOTH):
            raise NoApache(f"Apache's user {self.user.pw_name} cannot enter {self.folder}")
        site = sysconfig.get_path("purelib")
        if _readable(SHARE / "lbadaptor.wsgi", self.user) and _readable(Path(site), self.user):
            return SHARE
        prefix = self.folder / "readable"
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        shutil.copytree(SHARE, prefix / "share" / "lbadaptor")
        for package in PACKAGES:
            spec = find_spec(package)
            if spec is not None and spec.origin is not None:
                source = Path(spec.origin).parent
                shutil.copytree(source, prefix / "lib" / version / "site-packages" / package)
        return prefix / "share" / "lbadaptor"


def dies_with_us() -> Sequence[str]:
    """A prefix that ends the command when this process is killed, where util-linux is there."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


def apache_group() -> str:
    """The group that its processes run in; empty: ours."""
    user = _user()
    return grp.getgrgid(user.pw_gid).gr_name if user else ""


def _user() -> pwd.struct_passwd | None:
    """The user that Apache's processes run as when root starts them; None: the current user."""
    if os.geteuid() != 0:
        return None
    for name in ("www-data", "apache", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoApache("there is no user www-data, apache or nobody for Apache to run as")


def _readable(path: Path, user: pwd.struct_passwd, needed: int = stat.S_IROTH) -> bool:
    """Whether a user may read a file and pass all folders above it."""
    for place in (*reversed(path.resolve().parents), path.resolve()):
        mode = place.stat()
        bits = stat.S_IXOTH if place != path.resolve() else needed
        if mode.st_uid == user.pw_uid:
            bits <<= 6
        elif mode.st_gid == user.pw_gid:
            bits <<= 3
        if not mode.st_mode & bits:
            return False
    return True


if __name__ == "__main__":
    try:
        print(find())
    except NoApache as error:
        sys.exit(f"{error}")
