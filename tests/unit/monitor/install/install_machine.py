"""A machine for `lbctl install` and `lbctl uninstall`: a root folder, and commands that only note their calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monitor.install import doing, facts, taking_back
from monitor.install.machine import Done, Machine
from monitor.install.prepare import Prepared, prepare
from monitor.install.records import Records
from monitor.install.wanted import Wanted

SHOP = Wanted("shop", "shop:application", "/srv/shop", "session")
BOARD = Wanted("board", "board:application", "/srv/board", "sid", path="/board")
SITE = "/etc/apache2/sites-available/000-default.conf"
DEFAULT_SITE = "<VirtualHost *:80>\n\tDocumentRoot /var/www/html\n</VirtualHost>\n"


class Debian:
    """A root folder as Debian's Apache leaves it, and its commands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.fails: dict[str, str] = {}
        """by a command's beginning, what it says"""
        self.active: set[str] = {"apache2"}
        self.machine = Machine(root, self.run)
        for name in ("sites-enabled", "conf-enabled", "mods-enabled"):
            (root / "etc/apache2" / name).mkdir(parents=True)
        for path in ("usr/sbin/a2enmod", "usr/sbin/apache2ctl", "etc/apache2/mods-available/wsgi.load"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        (root / "run/systemd/system").mkdir(parents=True)
        (root / "etc/apache2/mods-enabled/headers.load").touch()
        (root / SITE[1:]).parent.mkdir()
        (root / SITE[1:]).write_text(DEFAULT_SITE)
        (root / "etc/apache2/sites-enabled/000-default.conf").symlink_to("../sites-available/000-default.conf")

    def run(self, words: Sequence[str]) -> Done:
        call = " ".join(words)
        self.calls.append(call)
        if failing := next((said for begin, said in self.fails.items() if call.startswith(begin)), ""):
            return Done(1, failing)
        apache = self.root / "etc/apache2"
        names = [word for word in words[1:] if not word.startswith("-")]
        for program, kind, suffix in (("mod", "mods", "load"), ("site", "sites", "conf"), ("conf", "conf", "conf")):
            for name in names:
                link = apache / f"{kind}-enabled" / f"{name}.{suffix}"
                if words[0] == f"a2en{program}":
                    link.symlink_to(f"../{kind}-available/{link.name}")
                elif words[0] == f"a2dis{program}":
                    link.unlink(missing_ok=True)
        if words[:2] in (("systemctl", "is-active"), ("systemctl", "is-enabled")):
            return Done(int(words[2] not in self.active), "")
        if words[:3] == ("systemctl", "enable", "--now"):
            self.active.add(words[3].removesuffix(".service"))
        elif words[:3] == ("systemctl", "disable", "--now"):
            self.active.discard(words[3].removesuffix(".service"))
        return Done(0, "")

    def dump(self, command: str) -> str:
        """Apache's configuration: the default site, and what it includes."""
        text = f"# In file: /etc/apache2/sites-enabled/000-default.conf\n{DEFAULT_SITE}"
        for file in sorted((self.root / "etc/apache2/sites-enabled").iterdir()):
            site = file.read_text()
            if file.name != "000-default.conf":
                text += f"# In file: /etc/apache2/sites-enabled/{file.name}\n{site}"
            included = (line.split()[1].strip('"') for line in site.splitlines() if "Include" in line)
            text += "".join(f"# In file: {path}\n" for path in included)
        return text + "".join(f" {name}_module (shared)\n" for name in facts.MODULES)

    def tree(self) -> dict[str, str]:
        """All files of /etc."""
        etc = self.root / "etc"
        return {
            str(path): path.read_text() if path.is_file() and not path.is_symlink() else str(path.is_symlink())
            for path in etc.rglob("*")
        }

    def prepare(self, wanted: Wanted, force: bool = False) -> Prepared:
        return prepare(self.machine, Records(self.machine), wanted, force)

    def install(self, wanted: Wanted, force: bool = False) -> bool:
        self.calls.clear()
        prepared = self.prepare(wanted, force)
        return doing.install(self.machine, Records(self.machine), prepared, lambda _: None, lambda: None)

    def uninstall(self, name: str, force: bool = False) -> list[str]:
        self.calls.clear()
        records = Records(self.machine)
        leaving = taking_back.prepare_leaving(self.machine, records, name, force)
        list(taking_back.steps(leaving))
        return taking_back.take_back(self.machine, records, leaving, lambda _: None)

    def read(self, path: str) -> str:
        return (self.root / path[1:]).read_text()
