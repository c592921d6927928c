"""Looks at the machine and makes the plan: nothing is changed here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings, parse
from monitor.apacheconfig import apache_check
from monitor.apacheconfig.compose import Composed, Options, compose
from monitor.install import checks, facts, plan, virtual_hosts
from monitor.install.diff import Change, change
from monitor.install.facts import Facts
from monitor.install.machine import Machine
from monitor.install.plan import File
from monitor.install.records import Records
from monitor.install.wanted import APACHE, CONFIGS, Refused, Wanted, check

_SHARED = (plan.UNIT, plan.SYSUSERS, plan.TMPFILES)


@dataclass
class Prepared:
    """What is to be done."""

    wanted: Wanted
    found: Facts
    settings: Settings
    changes: list[Change]
    """files of this application, and those that it shares with others"""
    includes: list[Change]
    """files of virtual hosts, the administrator's or changed by hand, that get the line which includes it"""
    others: dict[str, Change]
    """by name, those of Apache's files of other applications"""
    link: str
    """in conf-enabled or sites-enabled; empty: virtual hosts that are there include the application"""
    include_at: str
    """the file of a virtual host into which the line has to be written by hand; empty: there is none"""
    no_fast_lane: str
    """why there is none; empty: there is one"""
    warnings: list[str]

    @property
    def all_changes(self) -> list[Change]:
        return [*self.changes, *self.includes, *self.others.values()]


def prepare(machine: Machine, records: Records, wanted: Wanted, force: bool) -> Prepared:
    """Blocks for a minute at most. Raises LbadaptorError for all that stands against it, OSError."""
    check(wanted)
    checks.refuse(list(checks.of_machine(machine)))
    found = facts.find(machine, wanted)
    checks.refuse(list(checks.of_names(machine, wanted, found, records)))
    first = _change(machine, records, File(wanted.config, plan.toml(wanted, found)), force)
    toml = first.before if first.kept and first.before is not None else first.after
    try:
        settings = parse(toml, CONFIGS)
    except SettingsError as error:
        raise Refused(f"{wanted.config}{'' if first.kept else ', as it would be written'}: {error}") from None
    checks.refuse(checks.of_application(machine, wanted, found, toml))

    others = [record.wanted for record in records.others(wanted.name) if record.wanted.host == wanted.host]
    composed = _compose(wanted, found, settings, [] if wanted.path else [other.path for other in others])
    texts = {name: Path(found.share, name).read_text("utf-8") for name in _SHARED}
    files = plan.files(wanted, found, texts, toml, composed.text)
    changes = [first if file.path == first.path else _change(machine, records, file, force) for file in files]
    whole_site = [virtual_hosts.includes(other.apache_file) for other in others if wanted.path and not other.path]
    made, link, sites = _includer(machine, records, wanted, found, whole_site, force)
    own_site = plan.site_file(wanted)
    includes, by_hand = _includes(machine, wanted, sites, whole_site)
    return Prepared(
        wanted,
        found,
        settings,
        [*changes, *made],
        includes,
        around(machine, records, wanted, found),
        link,
        by_hand if wanted.apache_file not in apache_check.files(found.dump) else "",
        composed.why_not,
        [
            *composed.warnings,
            *_same_cookie(wanted, others),
            *(_unheeded(wanted, settings) if first.kept else ()),
            *(f"{file} was changed by hand and stays so, with its Include" for file in sites if file == own_site),
        ],
    )


def _same_cookie(wanted: Wanted, others: list[Wanted]) -> list[str]:
    """`others` are on the same host."""
    return [
        f"{other.name}, on the same host, has the same session cookie, {wanted.session_cookie}: unless each sets it "
        "with a Path of its own, one takes the other's for its own"
        for other in others
        if other.session_cookie == wanted.session_cookie
    ]


def _unheeded(wanted: Wanted, kept: Settings) -> list[str]:
    """What is said otherwise than in a lbadaptor.toml that stays as it is."""
    application, appservers = kept.application, kept.appservers
    pairs = {
        "app": (wanted.app, application.app),
        "session_cookie": (wanted.session_cookie, application.session_cookie),
        "working_folder": (wanted.folder, appservers.working_folder),
        "servers": (wanted.servers or appservers.servers, appservers.servers),
        "user": (wanted.user, appservers.user),
    }
    return [
        f"{wanted.config} was changed by hand and stays so, with {name} = {there!r}: change it there to {said!r}, "
        "and `lbctl restart`"
        for name, (said, there) in pairs.items()
        if said != there
    ]


def _includer(
    machine: Machine, records: Records, wanted: Wanted, found: Facts, whole_site: list[str], force: bool
) -> tuple[list[Change], str, list[str]]:
    """The file that is made to include the application, at most one; its link; and the files of other virtual hosts,
    or of one that was changed by hand, which have to include it."""
    sites = virtual_hosts.files(found.dump, wanted.host)
    if not wanted.host and not sites:
        conf = _change(machine, records, plan.conf(wanted), force)
        return [conf], f"conf-enabled/{wanted.conf_name}.conf", []
    link = f"sites-enabled/{wanted.site_name}.conf"
    if not wanted.host or (sites and f"{APACHE}/{link}" not in sites):
        return [], "", sites
    there = machine.read(plan.site_file(wanted)) or ""
    site = plan.site(wanted, virtual_hosts.port(found.dump), there, whole_site)
    made, others = _change(machine, records, site, force), [file for file in sites if file != f"{APACHE}/{link}"]
    return ([], link, [*others, made.path]) if made.kept else ([made], link, others)


def _includes(machine: Machine, wanted: Wanted, sites: list[str], whole_site: list[str]) -> tuple[list[Change], str]:
    """The files of virtual hosts, with the line; and one into which it has to be written by hand."""
    line, found, by_hand = virtual_hosts.includes(wanted.apache_file), [], ""
    for file in sites:
        before = machine.read(file) or ""
        after = virtual_hosts.with_include(before, wanted.host, line, whole_site)
        if line in map(str.strip, after.splitlines()):
            found.append(Change(file, before, after, kept=False))
        else:  # a macro makes the virtual host, for example
            by_hand = file
    return found, by_hand


def around(
    machine: Machine, records: Records, wanted: Wanted, found: Facts, leaves: bool = False
) -> dict[str, Change]:
    """Apache's file of the application that has the whole site around a path, if there is one.

    Its fast lane keeps out of all paths. `leaves`: not of this one any more. Raises LbadaptorError, OSError.
    """
    near = [record.wanted for record in records.others(wanted.name) if record.wanted.host == wanted.host]
    for other in near:
        settings = found.neighbours.get(other.config)
        if wanted.path and not other.path and settings is not None:
            paths = [one.path for one in (*near, *([] if leaves else [wanted])) if one.path]
            text = _compose(other, found, settings, paths).text
            return {other.name: _change(machine, records, File(other.apache_file, text), False)}
    return {}


def _compose(wanted: Wanted, found: Facts, settings: Settings, paths: list[str]) -> Composed:
    """What `lbctl apache-config` writes for an application. Raises LbadaptorError."""
    options = Options(
        Path(wanted.config),
        mount=wanted.path,
        apache=facts.apache_command(found.missing_modules),
        keep_out=sorted(filter(None, paths)),
    )
    return compose(options, settings=settings, hosts=virtual_hosts.numbers(found.dump, wanted.host) | {0})


def _change(machine: Machine, records: Records, file: File, force: bool) -> Change:
    return change(file, machine.read(file.path), records.written(file.path), force)
