"""What an administrator wants to install. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lbadaptor.contract.errors import LbadaptorError

CONFIGS = "/etc/lbadaptor"
APACHE = "/etc/apache2"
USER = "lbadaptor"
"""Of the monitor, and of AppServers that get no user of their own."""
APACHE_GROUP = "www-data"
COOKIES = {
    "flask": "session",
    "django": "sessionid",
    "cherrypy": "session_id",
    "webware": "_SID_",
    "beaker": "beaker.session.id",
}
"""What frameworks call their session cookies by default."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}").fullmatch
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?").fullmatch
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*").fullmatch
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[0-9A-Za-z._~!&'()*+,;=:@-]+)*").fullmatch
"""What Apache's configuration can have for a mount, and no browser takes for another path."""
_IMPORTS = re.compile(r"^\s*(?:import|from)\s+(\w+)", re.MULTILINE).findall


class Refused(LbadaptorError):
    """It cannot be installed or taken back so."""


@dataclass(frozen=True)
class Wanted:
    """One application."""

    name: str
    app: str
    """`module:callable`"""
    folder: str
    """where its module is"""
    session_cookie: str
    host: str = ""
    """in whose virtual hosts it is; empty: in those of Debian's default site"""
    path: str = ""
    """where it is mounted, without a slash at its end; empty: at the root"""
    servers: int = 0
    """AppServers; 0: as many as lbadaptor has by default"""
    user: str = ""
    """of the AppServers; empty: the monitor's own"""

    @property
    def config(self) -> str:
        return f"{CONFIGS}/{self.name}.toml"

    @property
    def service(self) -> str:
        return f"lbadaptor@{self.name}"

    @property
    def run_folder(self) -> str:
        return f"/run/lbadaptor-{self.name}"

    @property
    def state_folder(self) -> str:
        return f"/var/lib/lbadaptor-{self.name}"

    @property
    def apache_file(self) -> str:
        """What `lbctl apache-config` writes."""
        return f"{APACHE}/lbadaptor-{self.name}.conf"

    @property
    def conf_name(self) -> str:
        """The name in conf-available, where no virtual host is there that could include it.

        Apache reads them by the alphabet, and takes the first path that fits: the whole site comes last.
        """
        return f"lbadaptor-{self.name}" if self.path else f"zz-lbadaptor-{self.name}"

    @property
    def site_name(self) -> str:
        """The name in sites-available of the virtual host that is made for all applications of a host."""
        return f"lbadaptor-{self.host}"

    @property
    def at(self) -> str:
        """For people."""
        return f"{self.path}/ of {self.host or 'the default site'}"


def check(wanted: Wanted) -> None:
    """Raise Refused for words that cannot be names. lbadaptor's settings check the others."""
    if not _NAME(wanted.name):
        raise Refused(f"{wanted.name!r} is no name: up to 32 letters, digits, - and _ are needed, such as shop")
    if wanted.host and not _HOST(wanted.host):
        raise Refused(f"--host {wanted.host}: the name of a host is needed, such as www.example.com")
    if not _PATH(wanted.path):
        raise Refused(
            f"--path {wanted.path}: a path is needed, such as /shop, of letters, digits and -._~!&'()*+,;=:@, and "
            "without . and .."
        )
    if wanted.user and not _USER(wanted.user):
        raise Refused(f"--user {wanted.user}: the name of a user is needed")
    if not wanted.folder.startswith("/"):
        raise Refused(f"--folder {wanted.folder}: a whole path is needed, such as /srv/shop")


def likely_cookie(source: str) -> tuple[str, str]:
    """The framework that an application's source imports, and what it calls its session cookie; empty: none that is
    known, or several."""
    found = {name.lower() for name in _IMPORTS(source)} & set(COOKIES)
    if len(found) != 1:
        return "", ""
    framework = found.pop()
    return framework, COOKIES[framework]
