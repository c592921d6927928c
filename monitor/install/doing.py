"""Writes an installation's files and makes them count, a step at a time. Nothing is taken back when a step fails."""

from __future__ import annotations

from collections.abc import Callable

from monitor.install.diff import Change
from monitor.install.machine import Machine
from monitor.install.plan import SYSUSERS_FILE
from monitor.install.prepare import Prepared
from monitor.install.records import Record, Records, digest
from monitor.install.wanted import APACHE, Refused

Tell = Callable[[str], object]
CONFIGTEST = ("apache2ctl", "configtest")
_LOG_LINES = 8
RELOAD = ("systemctl", "reload-or-restart", "apache2")


def install(
    machine: Machine, records: Records, prepared: Prepared, tell: Tell, wait_ready: Callable[[], object]
) -> bool:
    """Do what is due, and tell of each step. Whether anything was. Blocks for minutes at most.

    Apache is changed last, when `wait_ready` returns: it waits for an AppServer, so that a site of before goes on
    where the application does not start. Raises LbadaptorError.
    """
    due = [change for change in prepared.changes if change.is_due]
    others = {name: change for name, change in prepared.others.items() if change.is_due}
    included = [change for change in prepared.includes if change.is_due]
    record = _record(records, prepared, [change.path for change in included])
    apaches = [change for change in due if change.path.startswith(f"{APACHE}/")]
    for change in due:
        if change not in apaches:
            _write(machine, records, record, change.path, change.after)
            tell(f"{change.path}: written")
    started = _start(machine, prepared, {change.path for change in due}, tell)
    wait_ready()
    enabled = _modules(machine, records, record, prepared, tell)
    linked = _must_be_enabled(machine, prepared)
    if apaches or others or enabled or included or linked:
        record.unread = True
        records.note(record)
    for change in apaches:
        _write(machine, records, record, change.path, change.after)
        tell(f"{change.path}: written")
    for name, change in others.items():
        rewrite(machine, records, name, change, tell)
    for change in included:
        machine.write(change.path, change.after)
        tell(f"{change.path}: includes it")
    if linked:
        machine.must(*linked)
        tell(f"{APACHE}/{prepared.link}: enabled")
    unread = record.unread
    if unread or machine.run("systemctl", "is-active", "apache2").code:
        machine.must(*CONFIGTEST)
        machine.must(*RELOAD)
        record.unread = False
        records.note(record)
        tell("Apache: its configuration is good, and it has read it")
    return bool(due or others or started or unread)


def _record(records: Records, prepared: Prepared, included: list[str]) -> Record:
    """This application's, with the files that are new, and those of other applications that it has, too.

    It is written before the files are: what an interrupted installation has written can be taken back.
    """
    wanted = prepared.wanted
    record = records.find(wanted.name)
    files = {
        change.path: digest(change.after)
        for change in prepared.changes
        if not change.kept and (change.before is None or (not change.is_due and records.written(change.path)))
    }
    if record is None or record.wanted != wanted or not files.items() <= record.files.items() or included:
        record = record or Record(wanted)
        record.wanted = wanted
        record.files.update(files)
        record.includes = list(dict.fromkeys([*record.includes, *included]))
        records.note(record)
    return record


def _write(machine: Machine, records: Records, record: Record, path: str, text: str) -> None:
    """One of this application's files."""
    made = machine.write(path, text)
    record.folders = sorted({*record.folders, *made})
    record.files[path] = digest(text)
    records.note(record)


def rewrite(machine: Machine, records: Records, name: str, change: Change, tell: Tell) -> None:
    """A file of another application. Raises Refused."""
    if (other := records.find(name)) is not None:
        machine.write(change.path, change.after)
        records.rewrote(other, change.path, change.after)
        tell(f"{change.path}: written anew")


def _start(machine: Machine, prepared: Prepared, written: set[str], tell: Tell) -> bool:
    """The monitor, which systemd runs. Whether there was anything to do."""
    wanted, units = prepared.wanted, f"{prepared.wanted.service}.service"
    running = machine.run("systemctl", "is-active", wanted.service).code == 0
    enabled = machine.run("systemctl", "is-enabled", wanted.service).code == 0
    if written or not (running and enabled):
        machine.must("systemd-sysusers", SYSUSERS_FILE)
        machine.must("systemd-tmpfiles", "--create", f"/etc/tmpfiles.d/lbadaptor-{wanted.name}.conf")
        machine.must("systemctl", "daemon-reload")
    if not (running and enabled):
        done = machine.run("systemctl", "enable", "--now", units)
        if done.code:
            why = machine.run(
                "journalctl", "--no-pager", "--output=cat", f"--lines={_LOG_LINES}", f"--unit={units}"
            ).said
            raise Refused(f"{wanted.service} does not start: {done.said}\nThe last lines of its log:\n{why}")
        tell(f"{wanted.service}: started, and at each boot")
    elif wanted.config in written:
        machine.must("systemctl", "reload", wanted.service)
        tell(f"{wanted.service}: a release with the new settings begins")
    if running and any(path.startswith("/etc/systemd/") for path in written):
        tell(f"{wanted.service}: its unit has changed, which counts from the next `systemctl restart` on")
    return not (running and enabled)


def _modules(machine: Machine, records: Records, record: Record, prepared: Prepared, tell: Tell) -> bool:
    """Enable the modules that are missing; a2enmod enables what they depend on, too."""
    if not prepared.found.missing_modules:
        return False
    before = machine.names(f"{APACHE}/mods-enabled")
    machine.must("a2enmod", "--quiet", *prepared.found.missing_modules)
    new = [
        name.removesuffix(".load")
        for name in machine.names(f"{APACHE}/mods-enabled")
        if name.endswith(".load") and name not in before
    ]
    record.modules += [name for name in new if name not in record.modules]
    records.note(record)
    tell(f"Apache's modules: enabled {', '.join(new)}")
    return True


def _must_be_enabled(machine: Machine, prepared: Prepared) -> tuple[str, ...]:
    """The command that makes Apache include the application's file; empty: it does."""
    kind, slash, file = prepared.link.partition("/")
    if not slash or file in machine.names(f"{APACHE}/{kind}"):
        return ()
    return "a2ensite" if kind == "sites-enabled" else "a2enconf", "--quiet", file.removesuffix(".conf")


def must_be_included(prepared: Prepared) -> Refused:
    """What an administrator has to do where the host has a virtual host of its own already."""
    return Refused(
        f"one line is yours to write, since {prepared.include_at} is not as it has to be for that. Put\n"
        f"    Include {prepared.wanted.apache_file}\n"
        f"into each virtual host of {prepared.wanted.host or 'the default site'}, as its last line. Then: "
        f"`{' '.join(CONFIGTEST)} && systemctl reload apache2`, and this command again"
    )
