"""A machine that systemd boots (boot.sh), with lbadaptor in /opt/lbadaptor, its units, and an Apache."""

from __future__ import annotations

import contextlib
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from monitor.contract.installed import SHARE
from monitor.demo.httpd import dies_with_us
from tests.apache.resources import eventually

UNITS = "etc/systemd/system"
BOOT = Path(__file__).with_name("boot.sh")
TIMEOUT = 60.0
"""Seconds that a boot or a command may take."""


class Site(NamedTuple):
    """An application on the machine."""

    name: str
    service: str
    folder: str
    """below /run and /var/lib"""
    config: str
    port: int
    """of Apache's virtual host"""
    appservers: str
    """more settings of [appservers]"""


SITES = (
    Site("shop", "lbadaptor", "lbadaptor", "lbadaptor.toml", 80, "base_port = 9000\npreload = true"),
    Site(
        "board", "lbadaptor@board", "lbadaptor-board", "board.toml", 81, 'base_port = 9100\nuser = "board"\nnice = -1'
    ),
)
TARGET = """
[Unit]
Requires=sysinit.target
Wants=apache2.service
After=sysinit.target
"""
APACHE = """
[Unit]
After=network.target
[Service]
ExecStart=/usr/sbin/apache2 -DFOREGROUND -f /etc/apache2.conf
KillMode=mixed
"""
MODULES = ("mpm_event", "authz_core", "alias", "env", "setenvif", "rewrite", "proxy", "proxy_http", "headers", "wsgi")
APACHE_CONF = f"""
PidFile /run/apache2.pid
DefaultRuntimeDir /run
ServerName localhost
User www-data
Group www-data
ErrorLog /var/log/apache2.log
LogLevel warn
{"".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" + chr(10) for name in MODULES)}
LogFormat "%U %{{LBADAPTOR_SESSION}}e" lane
CustomLog /var/log/lane.log lane
Listen 127.0.0.1:80
Listen 127.0.0.1:81
<Directory />
    Require all denied
</Directory>
"""
CONFIG = """
[application]
app = "shop:application"
session_cookie = "session"
ticket_cookie = "__{site.port}__"
[appservers]
servers = 1
working_folder = "/srv/{site.name}"
{site.appservers}
[adaptor]
wait = 0.2
[files]
apache_group = "www-data"
run_folder = "/run/{site.folder}"
key_file = "/var/lib/{site.folder}/keys"
[sessions]
survive = "anything"
folder = "/var/lib/{site.folder}/sessions"
save = "shop:save"
load = "shop:load"
"""
APPLICATION = '''
import ctypes, errno, json, mmap, multiprocessing, os, secrets, socket, subprocess, tempfile, threading
from urllib.parse import unquote

VISITS = {}

def save(session):
    return str(VISITS[session]).encode() if session in VISITS else None

def load(session, data):
    VISITS.pop(session, None)
    if data is not None:
        VISITS[session] = int(data)

def libc(name, *words):
    """A system call."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*words) < 0:
        raise OSError(ctypes.get_errno(), name)

def outcome(expression):
    try:
        return repr(eval(expression))
    except OSError as error:
        return errno.errorcode[error.errno]
    except Exception as error:
        return repr(error)

def application(environ, start_response):
    headers = [("Content-Type", "application/json")]
    if environ["PATH_INFO"] == "/visit":
        session = environ.get("HTTP_COOKIE", "").partition("session=")[2].partition(";")[0] or secrets.token_hex(8)
        VISITS[session] = VISITS.get(session, 0) + 1
        headers.append(("Set-Cookie", f"session={session}; Path=/"))
        answer = {"visits": VISITS[session], "pid": os.getpid()}
    else:
        answer = [outcome(expression) for expression in json.loads(unquote(environ["QUERY_STRING"]))]
    start_response("200 OK", headers)
    return [json.dumps(answer).encode()]
'''
INSTALL = """
mkdir -p /etc/systemd/system /etc/tmpfiles.d
share=/opt/lbadaptor/share/lbadaptor
systemd-sysusers $share/sysusers.d/lbadaptor.conf
cp $share/lbadaptor.service $share/lbadaptor@.service /etc/systemd/system/
cp $share/tmpfiles.d/lbadaptor.conf /etc/tmpfiles.d/
sed 's|/run/lbadaptor|&-board|' $share/tmpfiles.d/lbadaptor.conf > /etc/tmpfiles.d/lbadaptor-board.conf
useradd --system board
chown lbadaptor /srv/shop
chown board /srv/board
"""
WRITE = """
/opt/lbadaptor/bin/lbctl --config /etc/lbadaptor/{site.config} apache-config --unchecked --slots 2 --write {file}
"""


def drop_in(page: str) -> str:
    """The one that a page of docs/howto shows."""
    text = (Path(__file__).parents[2] / "docs" / "howto" / page).read_text()
    begin = text.index("    [Service]")
    return textwrap.dedent(text[begin : text.index("\n\n", begin)]) + "\n"


def logged(machine: Machine, page: str, count: int) -> list[str]:
    """What Apache's log says of the lanes of a page's requests, once there are so many: it logs after it answers."""

    def look() -> list[str] | None:
        lines = [line.split() for line in machine.run("cat", "/var/log/lane.log").splitlines()]
        found = [session for where, session in lines if where == page]
        return found if len(found) >= count else None

    found: list[str] = eventually(f"{count} requests for {page} are logged", look)
    return found


def two_sites(files: Path) -> None:
    """SITES, installed by hand, and an Apache that has these alone."""
    units = files / UNITS
    (units / "apache2.service").write_text(APACHE)
    (units / "lbadaptor@board.service.d").mkdir()
    (units / "lbadaptor@board.service.d" / "override.conf").write_text(drop_in("another-user.md"))
    install, hosts = INSTALL, ""
    for site in SITES:
        folder, config = files / "srv" / site.name, files / "etc" / "lbadaptor" / site.config
        for place in (folder, config.parent):
            place.mkdir(parents=True, exist_ok=True)
        (folder / "shop.py").write_text(APPLICATION)
        config.write_text(CONFIG.format(site=site))
        file = f"/etc/apache2-{site.name}.conf"
        install += WRITE.format(site=site, file=file)
        hosts += f"<VirtualHost *:{site.port}>\nInclude {file}\n</VirtualHost>\n"
    (files / "install.sh").write_text(install)
    (files / "etc" / "apache2.conf").write_text(APACHE_CONF + hosts)


class Machine:
    """Boots with the construction. `folder` has room for its files before they are copied; `fill` writes into one
    that is copied over the root folder, and that has an /install.sh.

    Raises AssertionError with what the boot said, if it does not come up.
    """

    def __init__(self, folder: Path, fill: Callable[[Path], None] = two_sites) -> None:
        self._stage = folder / "stage"
        self._stage.mkdir()
        files = folder / "stage.files"
        units = files / UNITS
        units.mkdir(parents=True)
        (units / "test.target").write_text(TARGET)
        fill(files)
        self._output = (folder / "boot.out").open("w+")
        self._process = subprocess.Popen(
            [*dies_with_us(), str(BOOT), str(self._stage), str(SHARE.parents[1])],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
        )
        self._init = 0
        try:
            self._wait_booted()
        except BaseException:
            self.end()
            raise

    def _wait_booted(self) -> None:
        """Wait for another boot than the last, and until all units that belong to it have been started."""
        before, deadline = self._init, time.monotonic() + TIMEOUT
        is_running = "systemctl", "is-system-running", "--wait"
        while self._init == before or self.run(*is_running, check=False) not in ("running", "degraded"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._output.seek(0)
                raise AssertionError(f"systemd does not boot: {self._output.read()}")
            time.sleep(0.02)
            self._init = self._find_init() or before

    def reboot(self) -> None:
        """An orderly one. The files stay, but those of /run and /tmp."""
        self.run("systemctl", "reboot", check=False)  # it may be killed, too
        self._wait_booted()

    def _find_init(self) -> int:
        """The pid of systemd, as this machine sees it; 0: it has none yet."""
        parents: dict[int, int] = {}
        commands: dict[int, str] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    pid = int(folder.name)
                    parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    commands[pid] = (folder / "comm").read_text().strip()
        pid = self._process.pid
        while commands.get(pid) not in (None, "systemd"):
            pid = next((child for child, parent in parents.items() if parent == pid), 0)
        return pid

    def run(self, *command: str, check: bool = True) -> str:
        """What a command says within. If it fails, and `check`: raises AssertionError with the end of the journal."""
        done = self._run(*command)
        if check and done.returncode != 0:
            journal = self._run("journalctl", "--no-pager", "--lines=100")
            raise AssertionError(f"{command}: exit status {done.returncode}: {done.stderr}\n{journal.stdout}")
        return done.stdout.strip()

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", "--target", str(self._init), "--all", "--root", "--wd", "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def write(self, path: str, text: str) -> None:
        """Write a file within, and make its folder."""
        self.run("sh", "-euc", 'mkdir -p "${1%/*}"; printf %s "$2" >"$1"', "sh", path, text)

    def end(self) -> None:
        """Nothing of it is left."""
        self._process.terminate()
        self._process.wait(TIMEOUT)
        self._output.close()
