"""Facts as a test gives them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import msgspec

from lbadaptor.contract.settings import Settings
from monitor.check.access import Inode, Who
from monitor.check.facts import Facts
from monitor.check.finding import Finding

CONFIG = Path("/etc/lbadaptor/shop.toml")
SHARE = "/opt/lbadaptor/share/lbadaptor"
MONITOR = Who("lbadaptor", 990, frozenset((990, 33)), "lbadaptor")
APACHE = Who("www-data", 33, frozenset((33,)), "www-data")
ALL = "core so http mpm_event rewrite proxy proxy_http headers wsgi"


def settings(**sections: dict[str, Any]) -> Settings:
    """Valid ones, with these rows besides."""
    rows: dict[str, Any] = {
        "application": {"app": "shop:app", "session_cookie": "sid"},
        "files": {"run_folder": "/run/lbadaptor-shop", "key_file": "/var/lib/lbadaptor-shop/keys"},
    }
    for section, values in sections.items():
        rows[section] = {**rows.get(section, {}), **values}
    return msgspec.convert({**rows, "folder": "/etc/lbadaptor"}, Settings)


def facts(given: Settings | None = None, **known: Any) -> Facts:
    """What is not given may be asked of this machine."""
    basics: dict[str, Any] = {"monitor_user": MONITOR, "apache_user": APACHE, "unit": None, "apache_unit": None}
    return Facts(given or settings(), CONFIG, **{**basics, **known})


def inodes(*rows: tuple[str, int, int, int]) -> dict[Path, Inode]:
    """Path, owner, group and mode; a path that ends with a slash is a folder. The folders above are root's."""
    found: dict[Path, Inode] = {}
    for text, uid, gid, mode in rows:
        path = Path(text)
        for above in path.parents:
            found.setdefault(above, Inode(above, 0, 0, stat.S_IFDIR | 0o755))
        kind = stat.S_IFDIR if text.endswith("/") else stat.S_IFREG
        found[path] = Inode(path, uid, gid, kind | mode)
    return found


def dump(*lines: str, modules: str = ALL) -> str:
    """As httpd shows it: a comment with the line's number before each, but for what ends a section."""
    shown = ["# In file: /etc/apache2/apache2.conf"]
    for number, line in enumerate(lines, 1):
        shown += [line] if line.lstrip().startswith("</") else [f"# {number:3}:", line]
    return "\n".join((*shown, "Loaded Modules:", *(f" {name}_module (shared)" for name in modules.split()))) + "\n"


def host(*lines: str, config: Path | str = CONFIG, name: str = "shop.example", group: bool = True) -> list[str]:
    """A virtual host with the adaptor."""
    main = " process-group=%{GLOBAL} application-group=%{GLOBAL}" if group else ""
    return [
        "<VirtualHost *:80>",
        f"ServerName {name}",
        f'WSGIScriptAliasMatch "^/[\\s\\S]*$" "{SHARE}/lbadaptor.wsgi"{main}',
        f'SetEnv LBADAPTOR_CONFIG "{config}"',
        "WSGIPassAuthorization On",
        "WSGIChunkedRequest On",
        "WSGIMapHEADToGET Off",
        *lines,
        "</VirtualHost>",
    ]


def said(findings: Any) -> list[str]:
    """What was found, each with its cure."""
    found = list(findings)
    assert all(isinstance(one, Finding) and one.what and one.cure for one in found)
    return [str(one) for one in found]
