"""Users and their groups, by the machine's own tables."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable

from monitor.apacheconfig.directives import directives
from monitor.check.access import Who
from monitor.check.finding import CannotCheck

_APACHES = ("www-data", "apache", "httpd", "wwwrun")
"""What distributions call Apache's user."""


def who_runs_this() -> Who:
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = f"#{os.geteuid()}"
    return Who(name, os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


def who(name: str, group: str = "", more: Iterable[str] = ()) -> Who:
    """A user with its own groups and `more`; `group`: instead of its first one. `#33` is a number.

    Raises CannotCheck where there is no such user or group on this machine.
    """
    try:
        number = name.removeprefix("#")
        user = pwd.getpwuid(int(number)) if number.isdigit() else pwd.getpwnam(name)
        first = _group(group) if group else user.pw_gid
        others = [_group(one) for one in more]
        gids = frozenset((first, *others, *os.getgrouplist(user.pw_name, first)))
        return Who(user.pw_name, user.pw_uid, gids, grp.getgrgid(first).gr_name)
    except KeyError as error:
        raise CannotCheck(f"there is no such user or group on this machine: {error.args[0]}") from None


def of_apache(dump: str) -> Who:
    """By Apache's configuration, where that has no variable; otherwise by the usual name. Raises CannotCheck."""
    said = {one.name: one.words[0] for one in directives(dump) if one.name in ("user", "group") and not one.host}
    name = said.get("user", "")
    if not name or "${" in name:
        name = next(filter(is_user, _APACHES), "")
    if not name:
        raise CannotCheck("Apache's configuration does not name its user")
    group = said.get("group", "")
    return who(name, "" if "${" in group else group)


def is_user(name: str) -> bool:
    """Whether there is a user of this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _group(name: str) -> int:
    number = name.removeprefix("#")
    return int(number) if number.isdigit() else grp.getgrnam(name).gr_gid
