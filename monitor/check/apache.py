"""What goes wrong in Apache's configuration."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from lbadaptor.contract.errors import LbadaptorError, SettingsError
from lbadaptor.contract.settings import DEFAULT_FILE, snapshot
from lbadaptor.log import texts
from monitor.apacheconfig import apache_check, compare, lanes
from monitor.apacheconfig.compose import Options, lane_name
from monitor.apacheconfig.directives import Directive, directives, modules
from monitor.check.adaptors import Adaptor, adaptors, leading, leads_here, of_config, packages, python_home
from monitor.check.facts import ApacheRefuses, Facts, ModWsgi
from monitor.check.finding import CannotCheck, Finding, NotAllowed, Severity, of_text, warning
from monitor.check.users import who_runs_this

_WANTED = {
    "WSGIPassAuthorization": ("On", "Authorization does not reach the application"),
    "WSGIChunkedRequest": ("On", "requests with a chunked body get 411"),
    "WSGIMapHEADToGET": ("Off", "the application gets GET for HEAD"),
}
"""What the snippets set, against mod_wsgi's defaults."""
_SETTING = re.compile(r"^\s*Define\s+LBADAPTOR_CONFIG\s+(\S.*)$", re.IGNORECASE)
_INCLUDE = re.compile(r"^\s*Include\s+\"?([^\"]+?)\"?\s*$", re.IGNORECASE)
_IS_SNIPPET = "<IfDefine !LBADAPTOR_CONFIG>"
_SNIPPET_NAMES = tuple(lanes.SNIPPETS.values())
_COOKIE = re.compile(r"\)\?((?:\\.|[^\\=()])+)=\(\(").search
_RELOAD = "reload Apache"
MAX_SHOWN = 100
"""Characters of a line that differs."""
MAX_FILES = 3
"""Files that are named."""
_INVALID = re.compile(r"Invalid command '(WSGI\w+)'").search


def configuration(facts: Facts) -> Iterator[Finding]:
    """Whether Apache accepts its configuration."""
    try:
        _ = facts.dump
    except ApacheRefuses as error:
        if found := _refused(str(error), by_root=not os.geteuid()):
            yield found
            return
        raise


def runs(facts: Facts) -> Iterator[Finding]:
    """Whether anybody listens where Apache's configuration says that Apache does."""
    ports = apache_check.listen_ports(facts.dump)
    if ports and not any(one.port in ports for one in facts.listeners):
        unit = _unit(facts)
        yield Finding(
            f"Apache does not run: nobody listens on port {' or '.join(map(str, sorted(ports)))}",
            f"`systemctl start {unit}`, and look at `journalctl -u {unit}` and at Apache's error log if it ends",
        )


def reloaded(facts: Facts) -> Iterator[Finding]:
    """Whether Apache goes by its files as they are now. All other checks are about what it would read."""
    if newer := [name for name in facts.sources if _changed_at(name) > facts.apache_read_at]:
        more = f" and {len(newer) - MAX_FILES} more" if len(newer) > MAX_FILES else ""
        yield warning(
            f"Apache does not go by its configuration as it is now; changed since it was started or reloaded: "
            f"{', '.join(newer[:MAX_FILES])}{more}",
            f"`apache2ctl configtest && systemctl reload {_unit(facts)}`",
        )


def included(facts: Facts) -> Iterator[Finding]:
    """Whether Apache's configuration leads to this application."""
    if not leads_here(facts):
        yield warning(
            f"nothing in Apache's configuration leads to {facts.config}",
            f"`{facts.lbctl} apache-config --write FILE`, an Include of FILE, and {_RELOAD}",
        )
    for one in adaptors(facts.dump):
        if not os.path.lexists(one.config):
            yield Finding(
                f"{one.place.file}, line {one.place.line}: there is no {one.config}, which the adaptor is to go by",
                f"`Define LBADAPTOR_CONFIG` before this very Include: it holds for one Include; then {_RELOAD}",
            )


def defines(facts: Facts) -> Iterator[Finding]:
    yield from _shared_defines(facts.sources)


def module_wsgi(facts: Facts) -> Iterator[Finding]:
    yield from _module_wsgi(facts.dump)


def interpreter(facts: Facts) -> Iterator[Finding]:
    yield from _interpreter(facts.dump)


def passed_on(facts: Facts) -> Iterator[Finding]:
    """What mod_wsgi keeps from the application."""
    yield from _passed_on(facts.dump, of_config(facts.dump, facts.config))


def ticket_cookie(facts: Facts) -> Iterator[Finding]:
    """Whether Apache looks for the ticket cookie that AppServers hand out."""
    there = facts.settings.snapshot_file
    try:
        handed_out = snapshot.read(there).ticket_cookies
    except FileNotFoundError:
        handed_out = (facts.settings.application.ticket_cookie,)  # as AppServers will
    except PermissionError:
        raise NotAllowed(who_runs_this().name, f"read {there}") from None
    except SettingsError as error:
        raise CannotCheck(f"{there}: {error}") from None
    signs = f"lbadaptor-address-{lane_name(facts.config)}:", str(facts.settings.caller_keys_file)
    yield from _ticket_cookie(facts.dump, signs, handed_out[0], facts.lbctl)


def written_files(facts: Facts) -> Iterator[Finding]:
    """Files that `lbctl apache-config` wrote, and what now is otherwise. Asks Apache again."""
    ours = [name for name, text in facts.sources.items() if _is_written_for(text, facts.config)]
    if not ours and leads_here(facts):
        raise CannotCheck("Apache's configuration has no file that `lbctl apache-config` wrote")
    for name in ours:
        anew = f"`{facts.lbctl} apache-config --check {shlex.quote(name)}` shows the rest"
        try:
            result = compare.examine(Path(name), Options(facts.config, apache=facts.apache))
        except LbadaptorError as error:
            yield of_text(f"{name}: {str(error).splitlines()[0]}", anew, Severity.WARNING)
            continue
        if not result.good:
            yield Finding(
                f"{name} has the fast lane, against which Apache's configuration speaks now: "
                f"{' '.join(result.composed.why_not.split())}"
                if result.composed.why_not and any(line.startswith("RewriteRule") for line in result.before)
                else f"{name} is older than the settings, or than what is around it in Apache's configuration: "
                f"{_difference(result)}",
                f"`{result.anew}`, and {_RELOAD}; {anew}",
            )
        for text in result.composed.warnings:
            what, _, why = text.partition("\n  ")
            yield of_text(f"{what}: {why}" if why else what, "see docs/reference/fast-lane.md", Severity.WARNING)


def python(facts: Facts) -> Iterator[Finding]:
    """Whether mod_wsgi has the Python that lbadaptor is installed for."""
    if "wsgi" not in modules(facts.dump):
        raise CannotCheck("Apache has not loaded mod_wsgi")
    home = next(iter(python_home(facts.dump)), "")
    installed = sorted({package.parents[1].name for package in packages(facts.dump)})
    yield from _python(facts.mod_wsgi, home, _base(Path(home)) if home else "", installed)


def _unit(facts: Facts) -> str:
    """The name of Apache's unit, for a cure."""
    return facts.apache_unit.name.removesuffix(".service") if facts.apache_unit else "apache2"


def _changed_at(name: str) -> float:
    """When a file of Apache's configuration was written, or linked to (a2enmod, a2ensite); unix time."""
    try:
        return max(os.stat(name).st_mtime, os.lstat(name).st_mtime)
    except OSError as error:
        raise CannotCheck(texts.of_os_error(error)) from None


def _base(home: Path) -> str:
    """The prefix of the Python of a virtual environment, or of a Python."""
    try:
        text = (home / "pyvenv.cfg").read_text("utf-8", "replace")
    except OSError:
        return str(home)
    found = re.search(r"^home\s*=\s*(.+)$", text, re.MULTILINE)
    return str(Path(found[1].strip()).parent) if found else str(home)


# What the checks judge by. Pure, but for links, which are followed.


def _refused(said: str, by_root: bool) -> Finding | None:
    """What httpd says where its configuration has an error. Another user may only lack permissions."""
    if found := _INVALID(said):
        return Finding(
            f"Apache has not loaded mod_wsgi, and refuses its configuration ({found[1]})",
            "`a2enmod wsgi` (Debian: `apt-get install libapache2-mod-wsgi-py3`), and restart Apache",
        )
    found = re.search(r"(?:AH\d+: )?Syntax error on line [^\n]*\n?[^\n]*", said)
    if found or (by_root and (found := re.search(r"AH(?!00558)\d+: [^\n]*", said))):  # which is a mere warning
        return Finding(
            f"Apache refuses its configuration: {' '.join(found[0].split())}",
            "correct it; Apache starts or reloads only with a configuration that `apache2ctl configtest` accepts",
        )
    return None


def _script_aliases(dump: str) -> list[Directive]:
    """The directives that lead to the adaptor by mod_wsgi."""
    return [
        one
        for one in directives(dump)
        if one.name in ("wsgiscriptalias", "wsgiscriptaliasmatch") and apache_check.is_ours(one)
    ]


def _module_wsgi(dump: str) -> Iterator[Finding]:
    needs = [one for one in directives(dump) if one.name.startswith("wsgi")]
    if not needs and not adaptors(dump):
        return
    if "wsgi" not in modules(dump) and not any(one.name == "scriptalias" for one in leading(dump)):
        yield Finding(
            "Apache has not loaded mod_wsgi, in which the adaptor runs", "`a2enmod wsgi`, and restart Apache"
        )


def _interpreter(dump: str) -> Iterator[Finding]:
    """The main interpreter: C extensions do not work in mod_wsgi's others."""
    groups = [
        one for one in directives(dump) if one.name == "wsgiapplicationgroup" and one.words[:1] == ["%{GLOBAL}"]
    ]
    for one in _script_aliases(dump):
        said = [word for word in one.words if word.startswith("application-group=")]
        around = any(group.host in (0, one.host) for group in groups)
        if said[-1:] != ["application-group=%{GLOBAL}"] and (said or not around):
            yield Finding(
                f"{one.place.file}, line {one.place.line}: the adaptor runs in a sub-interpreter, in which C "
                "extensions fail or hang",
                f"`WSGIApplicationGroup %{{GLOBAL}}`, or application-group=%{{GLOBAL}} in that line; then {_RELOAD}",
            )


def _passed_on(dump: str, ours: list[Adaptor]) -> Iterator[Finding]:
    there = list(directives(dump))
    scripts = {one.host: one for one in _script_aliases(dump)}
    for host in dict.fromkeys(one.host for one in ours):
        if host not in scripts:
            continue  # by CGI
        for name, (wanted, meaning) in _WANTED.items():
            lines = [one for one in there if one.name == name.lower() and one.host in (0, host)]
            lines.sort(key=lambda one: one.host != 0)  # those of the host win
            value = lines[-1].words[0] if lines else ""
            if value.lower() != wanted.lower():
                where = lines[-1].place if lines else scripts[host].place
                yield warning(
                    f"{where.file}, line {where.line}: without `{name} {wanted}` {meaning}",
                    f"add it after the Include of lbadaptor's file, and {_RELOAD}",
                )


def _shared_defines(sources: Mapping[str, str]) -> Iterator[Finding]:
    """Includes of a snippet without a Define of their own, beside others that have one: a Define is global, and the
    snippet takes it back at its end."""
    snippets = {name for name, text in sources.items() if _IS_SNIPPET in text}
    includes: list[tuple[str, int, str]] = []
    given = ""
    for name, text in sources.items():
        if name in snippets:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if found := _SETTING.match(line):
                given = found[1].strip().strip('"')
            elif (found := _INCLUDE.match(line)) and (
                found[1] in snippets or ("${" in found[1] and found[1].endswith(_SNIPPET_NAMES))
            ):
                includes.append((name, number, given))
                given = ""
    if any(config for _, _, config in includes):
        for name, number, config in includes:
            if not config:
                yield Finding(
                    f"{name}, line {number}: this Include has no `Define LBADAPTOR_CONFIG` of its own, so it goes by "
                    f"{DEFAULT_FILE}: a Define before another Include, in another virtual host, does not hold here",
                    f"write `Define LBADAPTOR_CONFIG FILE` before each Include, and {_RELOAD}",
                )


def _ticket_cookie(dump: str, signs: tuple[str, str], handed_out: str, lbctl: str) -> Iterator[Finding]:
    """The fast lane's rules name the cookie; the adaptor learns it from the monitor.

    `signs` tell whose rules they are: the map that is asked after the cookie, and, in rules without maps, the file
    that is asked before it.
    """
    asked, before = signs
    pattern: Directive | None = None
    mine = False
    told = set()
    for one in directives(dump):
        if one.name != "rewritecond":
            pattern, mine = None, False
            continue
        if one.words[0] == "%{HTTP_COOKIE}":
            pattern = one
        elif one.words[0] == before:
            mine = True
        if pattern and (asked in one.words[0] or (mine and one is pattern)):
            found = _COOKIE(pattern.words[1])
            name = re.sub(r"\\(.)", r"\1", found[1]) if found else ""
            if name and name != handed_out and name not in told:
                told.add(name)
                yield Finding(
                    f"{pattern.place.file}, line {pattern.place.line}: the fast lane looks for the ticket cookie "
                    f"`{name}`, and AppServers hand out `{handed_out}`",
                    f"`{lbctl} apache-config --check {pattern.place.file}` says how to write it anew; then {_RELOAD}",
                )


def _is_written_for(text: str, config: Path) -> bool:
    """Whether a file is one of `lbctl apache-config`, for this lbadaptor.toml."""
    lines = text.splitlines()
    if not any(line.startswith(lanes.WRITTEN_BY) for line in lines):
        return False
    named = [line.removeprefix(lanes.CONFIG).strip('"') for line in lines if line.startswith(lanes.CONFIG)]
    return any(os.path.realpath(one) == os.path.realpath(config) for one in named)


def _difference(result: compare.Examined) -> str:
    lines = result.differences()
    return (
        f"{lines[0][:MAX_SHOWN]}{f' … and {len(lines) - 1} more' if len(lines) > 1 else ''}"
        if lines
        else "it differs"
    )


def _python(module: ModWsgi, home: str, base: str, installed: list[str]) -> Iterator[Finding]:
    """`home`: WSGIPythonHome; `base`: the prefix of the Python there; `installed`: the folders, such as python3.11,
    in which lbadaptor is."""
    again = "install mod_wsgi by that very Python, without pip's cache (`pip install --no-cache-dir mod_wsgi`)"
    if module.missing:
        yield Finding(f"{module.file}: the Python library that it is linked to is not there", again)
        return
    version = re.search(r"libpython(3\.\d+)", module.libpython)
    if version and installed and f"python{version[1]}" not in installed:
        yield Finding(
            f"mod_wsgi has Python {version[1]} ({module.file}), and lbadaptor is in {', '.join(installed)}",
            f"install lbadaptor by Python {version[1]}, or mod_wsgi by the Python of lbadaptor",
        )
    elif base and module.libpython and not _is_below(module.libpython, base):
        yield Finding(
            f"mod_wsgi is linked to {module.libpython}, and WSGIPythonHome {home} is of the Python in {base}: "
            "imports of C extensions fail, such as \"No module named '_socket'\"",
            again,
        )


def _is_below(library: str, prefix: str) -> bool:
    return os.path.realpath(library).startswith(f"{os.path.realpath(prefix).rstrip('/')}/")
