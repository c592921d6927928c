"""Takes an installation back: exactly what was written and enabled, by its record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from monitor.apacheconfig import ask_apache
from monitor.apacheconfig.ask_apache import CannotRead
from monitor.install import facts, prepare
from monitor.install.doing import CONFIGTEST, RELOAD, rewrite
from monitor.install.machine import Machine
from monitor.install.records import Record, Records, digest
from monitor.install.virtual_hosts import application_lines, includes, without_include
from monitor.install.wanted import APACHE, USER, Refused, Wanted

Tell = Callable[[str], object]
AVAILABLE = (f"{APACHE}/conf-available/", f"{APACHE}/sites-available/")
"""Where the files are that a2enconf and a2ensite enable."""
ENABLED = (f"{APACHE}/conf-enabled/", f"{APACHE}/sites-enabled/")
SHARED = "other applications have it, too"
CHANGED = "it was changed since it was written; --force removes it"


@dataclass
class Leaving:
    """What is to be taken back."""

    record: Record
    includes: list[str]
    """files that stay, and lose the line which includes it"""
    remove: list[str]
    keep: dict[str, str]
    """files that stay, and why"""
    modules: list[str]
    """to disable; none as long as there is another application"""


def prepare_leaving(machine: Machine, records: Records, name: str, force: bool) -> Leaving:
    """Raises Refused where nothing is installed by this name, OSError."""
    record = records.find(name)
    if record is None:
        known = ", ".join(one.wanted.name for one in records)
        raise Refused(
            f"{name} is not installed by `lbctl install`; {f'these are: {known}' if known else 'nothing is'}"
        )
    others, line = records.others(name), includes(record.wanted.apache_file)
    remove, keep = [], {}
    for path, written in record.files.items():
        there = machine.read(path)
        if there is None:
            continue
        if any(path in other.files for other in others) or {*application_lines(there)} - {line}:
            keep[path] = SHARED
        elif digest(there) != written and not force:
            keep[path] = CHANGED
        else:
            remove.append(path)
    included = [path for path in _including(machine, record, line) if path not in remove]
    return Leaving(record, included, remove, keep, [] if others else record.modules[::-1])


def _including(machine: Machine, record: Record, line: str) -> list[str]:
    """All files that have the line which includes it; a copy of a virtual host has it, too (certbot makes one)."""
    paths = [f"{folder}{name}" for folder in (*ENABLED, *AVAILABLE) for name in machine.names(folder)]
    # Of a file with two names the last one counts: the link in an `enabled` folder may be gone by then.
    files = {machine.place(path).resolve(): path for path in (*record.includes, *paths)}
    return [path for path in files.values() if line in _lines(machine, path)]


def _lines(machine: Machine, path: str) -> list[str]:
    """Those of a file that include applications; none where it cannot be read: Apache is asked in the end."""
    try:
        return application_lines(machine.read(path) or "")
    except (OSError, Refused):
        return []


def steps(leaving: Leaving) -> Iterator[str]:
    """What is going to be done, a line each."""
    wanted = leaving.record.wanted
    yield f"stop and disable {wanted.service}: its sessions end, but those that survive"
    yield from (f"take the line that includes it out of {path}" for path in leaving.includes)
    yield from (f"remove {path}" for path in leaving.remove)
    yield from (f"keep {path}: {why}" for path, why in leaving.keep.items())
    if leaving.modules:
        yield f"disable Apache's modules {', '.join(leaving.modules)}, where nothing else needs them"


def take_back(machine: Machine, records: Records, leaving: Leaving, tell: Tell) -> list[str]:
    """Take it back, first what visitors reach. What could not be done; the record stays then, for another try.

    Blocks for minutes at most. Raises OSError, LbadaptorError of files.
    """
    wanted, failed = leaving.record.wanted, []

    def do(*words: str) -> bool:
        done = machine.run(*words)
        if done.code:
            failed.append(f"`{' '.join(words)}` failed (exit status {done.code}): {done.said}")
        return not done.code

    for path in leaving.remove:
        if path.startswith(AVAILABLE) and machine.place(path.replace("-available/", "-enabled/", 1)).is_symlink():
            do(*_disabling(path))
    for path in leaving.includes:
        if (text := machine.read(path)) is not None:
            machine.write(path, without_include(text, includes(wanted.apache_file)))
            tell(f"{path}: includes it no more")
    around = prepare.around(machine, records, wanted, facts.find(machine, wanted), leaves=True) if wanted.path else {}
    for name, change in around.items():
        if change.is_due:
            rewrite(machine, records, name, change, tell)
    if _is_included(wanted):
        what = f"`{includes(wanted.apache_file)}`, or a directive like it, is still in Apache's configuration"
        return [*failed, f"{what}: take it out by hand"]
    _disable(machine, leaving.modules, tell)
    if do(*CONFIGTEST):
        do(*RELOAD)
        tell("Apache has read its configuration")
    if do("systemctl", "disable", "--now", f"{wanted.service}.service"):
        tell(f"{wanted.service}: stopped, and disabled")
    if failed:
        return failed
    machine.remove_tree(wanted.run_folder)
    for path in leaving.remove:
        machine.remove(path)
        tell(f"{path}: removed")
    _remove_folders(machine, leaving.record)
    _hand_on(machine, records, leaving)
    records.forget(wanted.name)
    _remove_folders(machine, leaving.record)  # that of the records is empty now, if this was the last one
    reloaded = machine.run("systemctl", "daemon-reload")
    if reloaded.code:  # nothing is left that another try could take back
        tell(f"`systemctl daemon-reload` failed: {reloaded.said}")
    return []


def _is_included(wanted: Wanted) -> bool:
    """Whether Apache reads the application's file all the same. It would not start when that file is gone."""
    try:
        return wanted.apache_file in ask_apache.includes(facts.apache_command(()))
    except CannotRead:
        return False  # its own check of the configuration says why


def _hand_on(machine: Machine, records: Records, leaving: Leaving) -> None:
    """A file that includes other applications, too, goes with the last one of these."""
    record = leaving.record
    for path in [path for path, why in leaving.keep.items() if why is SHARED]:
        for other in records.others(record.wanted.name):
            if path not in other.files and includes(other.wanted.apache_file) in _lines(machine, path):
                other.files[path] = record.files[path]
                records.note(other)


def _remove_folders(machine: Machine, record: Record) -> None:
    """Those that were made, as far as they are empty."""
    for folder in reversed(record.folders):
        machine.remove_folder(folder)


def _disable(machine: Machine, modules: list[str], tell: Tell) -> None:
    """Those that nothing else needs: neither another module nor a directive of Apache's configuration."""
    for module in modules:
        if machine.run("a2dismod", "--quiet", module).code:
            tell(f"Apache's module {module} stays enabled: another one needs it")
        elif machine.run(*CONFIGTEST).code:
            machine.must("a2enmod", "--quiet", module)
            tell(f"Apache's module {module} stays enabled: Apache's configuration needs it")
        else:
            tell(f"Apache's module {module}: disabled")


def left(leaving: Leaving, records: Records) -> list[str]:
    """What stays on the machine, and how it goes. `records`: those of the applications that are left."""
    folder = leaving.record.wanted.state_folder
    found = [f"{path}, which was changed: {_goes(path)}" for path, why in leaving.keep.items() if why is CHANGED]
    found.append(f"{folder} (its keys, and sessions that survive): rm -r {folder}")
    return found if list(records) else [*found, f"the user {USER}, which may own files: userdel {USER}"]


def _goes(path: str) -> str:
    disable = f"{' '.join(_disabling(path))} && " if path.startswith(AVAILABLE) else ""
    return f"{disable}rm {path}"


def _disabling(path: str) -> tuple[str, ...]:
    """The command that takes a file in one of AVAILABLE out of Apache's configuration."""
    folder, _, file = path.rpartition("/")
    return "a2disconf" if "/conf-" in folder else "a2dissite", "--quiet", file.removesuffix(".conf")
