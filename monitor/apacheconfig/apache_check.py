"""Checks Apache's configuration for what does not work with the fast lane. Pure.

Above all that is authorisation by folder or file, which mod_proxy does not apply. What lbadaptor's own files contain
does not count: they may be included already.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from monitor.apacheconfig.directives import Directive, Place, directives, modules
from monitor.apacheconfig.rewrite_rules import SKIP
from monitor.apacheconfig.url_patterns import is_wildcard, plain, wildcard

_BY_FOLDER = ("directory", "directorymatch", "files", "filesmatch")
_BY_URL = ("location", "locationmatch", "proxy", "proxymatch")
_AUTHORISING = ("sslrequire", "sslrequiressl", "wsgiaccessscript", "wsgiauthuserscript", "wsgiauthgroupscript")
_PATH_DIRECTIVES = (
    "alias",
    "scriptalias",
    "wsgiscriptalias",
    "redirect",
    "redirectpermanent",
    "redirecttemp",
    "proxypass",
)
_PATH_PATTERN_DIRECTIVES = (
    "aliasmatch",
    "scriptaliasmatch",
    "wsgiscriptaliasmatch",
    "redirectmatch",
    "proxypassmatch",
)
_WITHOUT_EFFECT = re.compile(
    # `by_folder` has those of these that count:
    r"options|allowoverride(?:list)?|require|order|allow|deny|satisfy|auth.*|ssl(?!options).*"
    r"|wsgi.*|directory.*|fallbackresource|index.*|add(?:alt|description|handler|icon|type).*|readmename|headername"
    r"|sethandler|forcetype|acceptpathinfo|limitrequest.*|fileetag|enable(?:mmap|sendfile)|cgi.*|scriptinterpretersource"
    r"|php_.*|loglevel|serversignature|hostnamelookups"
).fullmatch
"""Directives that, for lbadaptor's script, change nothing that a visitor sees."""
_OUR_SCRIPT = re.compile(r"\^(?:\\Q(.*)\\E)?\S* .*/lbadaptor\.wsgi\b").match
_STATUS = re.compile(r"[0-9].*|permanent|temp|seeother|gone", re.IGNORECASE).fullmatch
"""What may stand before the path of a Redirect. mod_alias takes all that begins with a digit for a status."""
_STATUSES = ("421", "502", "503")
_OURS = re.compile(r"/lbadaptor\.(?:wsgi|cgi)\b").search
NEEDED = ("rewrite", "proxy", "proxy_http", "headers")
"""The modules of the fast lane."""


def by_folder(dump: str, folder: str, file: str) -> list[Place]:
    """The directives that authorise access to a file in a folder, in a <Directory> or <Files> that covers the file.

    Directives that grant or deny access to everybody do not count: they do not distinguish visitors.
    """
    return [
        one.place
        for one in directives(dump)
        if one.within(*_BY_FOLDER)
        and not one.within(*_BY_URL)
        and all(_applies(name, words, folder, file) for name, words in one.sections)
        and authorises(one.name, one.words)
    ]


def only_by_folder(dump: str, mount: str, folder: str, file: str) -> list[Place]:
    """Other directives in a <Directory> or <Files> that covers a file: those that change answers or variables.

    Where the adaptor is in the configuration already, those of other virtual hosts do not count.
    """
    there = list(directives(dump))
    hosts = {one.host for one in there if _is_adaptor(one, mount)}
    return [
        one.place
        for one in there
        if one.within(*_BY_FOLDER)
        and not one.within(*_BY_URL)
        and (not hosts or one.host in (0, *hosts))
        and not one.place.file.startswith(f"{folder}/")
        and all(_applies(name, words, folder, file) for name, words in one.sections)
        and changes(one.name, one.words)
    ]


def files(dump: str) -> list[str]:
    """The files that have directives."""
    return list({one.place.file: None for one in directives(dump)})


def hosts_of_adaptor(dump: str, mount: str) -> set[int]:
    """In which virtual hosts the adaptor has the mount (`Directive.host`)."""
    return {one.host for one in directives(dump) if _is_adaptor(one, mount)}


def has_adaptor(dump: str, mount: str) -> bool:
    """Whether the adaptor has the mount anywhere."""
    return bool(hosts_of_adaptor(dump, mount))


def with_htaccess(dump: str, folder: str, file: str) -> list[str]:
    """Folders above a file, its own included, in which a .htaccess counts (AllowOverride)."""
    allowed: dict[str, bool] = {}
    for one in directives(dump):
        if one.name == "allowoverride" and [name for name, _ in one.sections[-1:]] == ["directory"]:
            name, words = one.sections[-1]
            if _applies(name, words, folder, file) and words:
                allowed[words[0].rstrip("/")] = [word.lower() for word in one.words] != ["none"]
    deepest = sorted(allowed, key=len)
    found = []
    parts = folder.rstrip("/").split("/")
    for place in ("/".join(parts[: number + 1]) for number in range(len(parts))):
        says = [allowed[section] for section in deepest if (place + "/").startswith(section + "/")]
        if says and says[-1]:
            found.append(place or "/")
    return found


def error_documents(dump: str) -> list[Place]:
    """ErrorDocuments in a <Location> that answer in place of the adaptor when an AppServer refuses or is gone."""
    return [
        one.place
        for one in directives(dump)
        if one.name == "errordocument"
        and one.words[:1]
        and one.words[0] in _STATUSES
        and one.within("location", "locationmatch")
    ]


def hosts_of(dump: str, config: str) -> set[int]:
    """In which virtual hosts the application of a lbadaptor.toml is (`Directive.host`)."""
    return {
        one.host
        for one in directives(dump)
        if one.name == "setenv"
        and one.words[0].upper() == "LBADAPTOR_CONFIG"
        and os.path.realpath(one.words[-1]) == os.path.realpath(config)
    }


def other_paths(dump: str, mount: str, hosts: Collection[int] = ()) -> list[str]:
    """Regular expressions of paths below a mount that Apache itself or another application serves.

    `hosts`: in these virtual hosts, and around all; empty: in any.
    """
    found = []
    for one in directives(dump):
        if hosts and one.host and one.host not in hosts:
            continue
        pattern, prefix = _served_path(one)
        if pattern:
            found.append(pattern)
        elif prefix.startswith(f"{mount}/") and prefix != f"{mount}/":
            found.append(re.escape(prefix) + ("" if prefix.endswith("/") else "(?:/|$)"))
    return [plain(pattern) for pattern in dict.fromkeys(found)]


def listen_ports(dump: str) -> set[int]:
    """The TCP ports that Apache listens on."""
    words = [one.words[0].rpartition(":")[2] for one in directives(dump) if one.name == "listen"]
    return {int(word) for word in words if word.isdecimal()}


def is_ours(one: Directive) -> bool:
    """Whether a directive leads to one of lbadaptor's scripts."""
    return _OURS(one.place.directive) is not None


def missing_modules(dump: str) -> list[str]:
    """Those that the fast lane needs and Apache has not loaded."""
    loaded = modules(dump)
    return [name for name in NEEDED if name not in loaded]


def later_rules(dump: str, mount: str) -> list[Place]:
    """Rewrite rules after the fast lane's in one virtual host: its requests never meet them."""
    there = list(directives(dump))
    last = {one.host: number for number, one in enumerate(there) if _is_own_rule(one)}
    return [
        one.place
        for number, one in enumerate(there)
        if one.name == "rewriterule"
        and number > last.get(one.host, number)
        and not _is_own_rule(one)
        and not one.within(*_BY_FOLDER, *_BY_URL)
        and _concerns(one.words[0], mount)
    ]


def whole_mount_taken(dump: str, mount: str) -> list[Place]:
    """What takes all requests of a mount from the adaptor in its own virtual host: `Redirect 503 /`, for example.

    The fast lane takes them nevertheless. The paths below the mount are for `other_paths`.
    """
    there = list(directives(dump))
    hosts = {one.host for one in there if _is_adaptor(one, mount)}
    kept = any(one.name == "proxypass" and one.words[1:] == ["!"] and _covers(one.words[0], mount) for one in there)
    return [
        one.place
        for one in there
        if hosts and one.host in (0, *hosts) and not (kept and one.name == "proxypass") and _takes_all(one, mount)
    ]


def included_twice(dump: str, mount: str) -> list[Place]:
    """The adaptor's own directive, where a virtual host has it for the second time."""
    seen: set[int] = set()
    found = []
    for one in directives(dump):
        if _is_adaptor(one, mount):
            if one.host in seen:
                found.append(one.place)
            seen.add(one.host)
    return found


def unmerged_slashes(dump: str) -> list[Place]:
    """Directives that keep several slashes in a path: one that comes back from the fast lane would have one more."""
    return [
        one.place
        for one in directives(dump)
        if one.name == "mergeslashes" and one.words[:1] and one.words[0].lower() == "off"
    ]


def authorises(name: str, words: Sequence[str]) -> bool:
    """Whether a directive distinguishes visitors."""
    said = " ".join(words).lower()
    if name == "require":
        return said not in ("all granted", "all denied")
    if name in ("allow", "deny"):
        return said != "from all"
    if name == "authtype":
        return said != "none"
    if name == "sslverifyclient":
        return said != "none"
    return name in _AUTHORISING


def changes(name: str, words: Sequence[str]) -> bool:
    """Whether a directive may change an answer of lbadaptor's script, or a variable; authorisation aside."""
    return not _WITHOUT_EFFECT(name) and not authorises(name, words)


def _served_path(one: Directive) -> tuple[str, str]:
    """The paths that a directive keeps from the adaptor: a regular expression, or a prefix; both empty for none."""
    words = one.words
    by_pattern = one.name in _PATH_PATTERN_DIRECTIVES or (one.name == "proxypass" and words[:1] == ["~"])
    if not by_pattern and one.name not in _PATH_DIRECTIVES and not _handles(one):
        return "", ""
    for name, place in reversed(one.sections):
        if name == "locationmatch" or (name == "location" and place[0] == "~"):
            return _anywhere(place[-1]), ""
        if name == "location":
            return (wildcard(place[-1]), "") if is_wildcard(place[-1]) else ("", place[-1])
    if not by_pattern:
        return "", next((word for word in words if word.startswith("/")), "")
    if own := _OUR_SCRIPT(" ".join(words)):
        return "", own[1] or ""
    status = one.name == "redirectmatch" and _STATUS(words[0])
    return _anywhere(words[1] if status or words[0] == "~" else words[0]), ""


def _anywhere(pattern: str) -> str:
    """What begins where a path begins, and matches where a pattern matches anywhere within it."""
    return rf"[\s\S]*?(?:{pattern})"


def _is_adaptor(one: Directive, mount: str) -> bool:
    """Whether a directive gives the mount to the adaptor."""
    if not _OURS(one.place.directive):
        return False
    if own := _OUR_SCRIPT(" ".join(one.words)):
        return (own[1] or "") == mount
    return one.name == "scriptalias" and one.words[0].rstrip("/") == mount


def _is_own_rule(one: Directive) -> bool:
    return one.name == "rewriterule" and ("LBADAPTOR_" in one.place.directive or one.place.directive.startswith(SKIP))


def _concerns(pattern: str, mount: str) -> bool:
    """Whether a rule's pattern may match a path of the mount; True where that is not plain to see."""
    begins = re.match(r"\^(/[\w/-]*)(?![\w/?*{-])", pattern)
    return begins is None or begins[1].startswith(mount) or mount.startswith(begins[1])


def _takes_all(one: Directive, mount: str) -> bool:
    if _OURS(one.place.directive) or one.name.startswith("wsgi") or one.words[1:] == ["!"]:
        return False
    pattern, prefix = _served_path(one)
    return not pattern and _covers(prefix, mount)


def _covers(prefix: str, mount: str) -> bool:
    """Whether all paths of a mount begin with a prefix."""
    return bool(prefix) and f"{mount}/".startswith(f"{prefix.rstrip('/')}/")


def _handles(one: Directive) -> bool:
    return one.name == "sethandler" and [word.lower() for word in one.words] not in (["none"], ["default-handler"])


def _applies(name: str, words: list[str], folder: str, file: str) -> bool:
    """Whether a section may apply to the file; True for sections that are not about folders or files."""
    if name not in _BY_FOLDER or not words:
        return True
    pattern = words[-1]
    if name.endswith("match") or words[0] == "~":
        try:
            return re.search(pattern, f"{folder}/" if name.startswith("directory") else file) is not None
        except re.error:
            return True  # of another dialect: better report it than miss it
    if name == "files":
        return fnmatchcase(file, pattern)
    wanted = [part for part in pattern.split("/") if part]
    there = [part for part in folder.split("/") if part]
    return len(wanted) <= len(there) and all(map(fnmatchcase, there, wanted))
