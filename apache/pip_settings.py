"""Prints the user's pip settings that hold for the set-up: those that tell where packages come from.

`apache/install.sh` runs it with the Python of the environment folder, and exports what it prints. Other settings
(`user`, `target`, `prefix`, `constraint` …) are for the user's own installations. `pip config list`
is no substitute: with `user = true` it lists only the user's file.

Places and precedence are those of pip's documentation, "Configuration".
"""

from __future__ import annotations

import configparser
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

KEPT = {
    *("index-url", "extra-index-url", "no-index", "find-links"),
    *("cert", "client-cert", "trusted-host", "proxy", "keyring-provider"),
    *("timeout", "default-timeout", "retries", "resume-retries", "use-feature", "use-deprecated"),
}


def files(environ: Mapping[str, str], prefix: str) -> list[Path]:
    """The configuration files that pip reads on Linux; the later one wins."""
    home = Path(environ.get("HOME", "/"))
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    shared = [
        Path(folder, "pip/pip.conf") for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if folder
    ]
    own = [home / ".pip/pip.conf", Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf")]
    return [
        *shared,
        Path("/etc/pip.conf"),
        *([] if named and Path(named).exists() else own),
        Path(prefix, "pip.conf"),
        *([Path(named)] if named else []),
    ]


def kept(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The settings by name. Raises configparser.Error, UnicodeDecodeError."""
    of_all: dict[str, str] = {}
    of_install: dict[str, str] = {}
    for file in files(environ, prefix):
        parser = configparser.RawConfigParser()
        parser.read(file, "utf-8")
        for section, found in (("global", of_all), ("install", of_install)):
            if parser.has_section(section):
                found.update((name.replace("_", "-"), value) for name, value in parser.items(section))
    of_environ = {
        name[4:].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("PIP_") and value
    }
    found = {**of_all, **of_install, **of_environ}
    return {name: found[name] for name in sorted(KEPT & found.keys())}


if __name__ == "__main__":
    for name, value in kept(os.environ, sys.prefix).items():
        print(f"export PIP_{name.upper().replace('-', '_')}={shlex.quote(value)}")
