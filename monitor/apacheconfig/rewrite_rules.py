"""mod_rewrite's part of the fast lane: which requests take it, and to which AppServer each goes. Pure.

Apache looks the visitor's ticket up in address.text and callerkeys.text. For a first visit it takes an AppServer of
available.text at random.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lbadaptor.contract.settings import Settings
from monitor.apacheconfig.quoting import is_plain, quoted

SKIP = 'RewriteRule "^" - [NS,S='
"""Beginning of the rule that leads requests of another kind past the others."""
_KEY = re.compile(r"(?![0-9]+\Z)[\w.-]+", re.ASCII).fullmatch
"""A ticket cookie's name that can be a key of available.text. There a number is a slot, `#` begins a comment, and in
a rule `|` ends a key."""
_EQUALS = "[^!-~]*="
"""What may follow a cookie's name, as cookies.values reads it: it ignores white space, of whatever kind."""
_KIND = (
    "%{REQUEST_METHOD}|%{SERVER_PROTOCOL}|%{HTTP:Connection}|%{HTTP:Upgrade}%{HTTP:Expect}"
    "%{HTTP:Transfer-Encoding}%{HTTP:Content-Length}%{HTTP:Max-Forwards}%{ENV:REDIRECT_STATUS}|%{HTTP_HOST}|%{QUERY_STRING}"
)
_RIGHT_KIND = r"^(?:GET|HEAD)\|HTTP/(?:1\.1|2\.0)\|(?i:keep-alive|close)?\|\|[^|]+\|[!-~]*$"
"""What may be repeated, has no body, and asks nothing of proxies. By HTTP/1.0 an answer without a length ends with
the connection. mod_proxy cannot show the visitor that one broke off, and the adaptor can."""


@dataclass(frozen=True)
class FastLaneRules:
    """What the rules of one lane are about."""

    settings: Settings
    name: str
    """tells the maps of several applications apart"""
    paths: str
    """a pattern, in quotes, of the paths that the adaptor would get"""
    address: str
    """a pattern of the addresses in address.text; its group is what `authority` takes as %1"""
    url: str
    """an AppServer's, with the slot as %3, and with %1"""
    urls: Sequence[str]
    """by slot"""

    @property
    def with_maps(self) -> str:
        """The name that is defined while Apache reads the rest, if the maps' files existed when it began."""
        return f"LBADAPTOR_MAPS_{self.name}"


def maps(lane: FastLaneRules) -> Iterator[str]:
    settings = lane.settings
    files = [
        ("address", "txt:", str(settings.address_file)),
        ("key", "txt:", str(settings.caller_keys_file)),
        ("available", "rnd:", str(settings.available_file)),
    ]
    yield ""
    yield "# Apache does not start where the file of a RewriteMap is missing: after a boot they are, for a time."
    yield "# Then an expression looks up the callers' keys, until the next reload: that is slower."
    for depth, (_, _, file) in enumerate(files):
        yield f"{'    ' * depth}<IfFile {quoted(file)}>"
    inner = "    " * len(files)
    yield f"{inner}Define {lane.with_maps}"
    for kind, type_, file in files:
        yield f"{inner}RewriteMap lbadaptor-{kind}-{lane.name} {quoted(file, type_)}"
    for depth in reversed(range(len(files))):
        yield f"{'    ' * depth}</IfFile>"
    yield "RewriteEngine On"


def rules(lane: FastLaneRules) -> Iterator[str]:
    cookie = lane.settings.application.ticket_cookie
    target = f'{lane.paths} "{lane.url}"'
    variables = "E=LBADAPTOR_KEY:%2,E=LBADAPTOR_GENERATION:%4,E=LBADAPTOR_URI:%5"
    available = f"lbadaptor-available-{lane.name}"
    yield ""
    yield f"<IfDefine {lane.with_maps}>"
    yield "    # What may be repeated, has no body, and asks nothing of proxies. All else skips the rules."
    yield f'    RewriteCond {_KIND} "!{_RIGHT_KIND}" [NV]'
    yield "    # So does what an ErrorDocument brings: its program is not to see the caller's key."
    yield f"    {SKIP}{2 if _KEY(cookie) else 1},E=!REDIRECT_LBADAPTOR_KEY]"
    yield from _ticket(cookie, "[0-9]{1,6}")
    yield "    # Its holder's address and key; its slot and generation; the request's own target."
    yield (
        rf"    RewriteCond ${{lbadaptor-address-{lane.name}:%1}}|${{lbadaptor-key-{lane.name}:%1}}|%2|%3|"
        rf'%{{THE_REQUEST}} "^{lane.address}\|([^|]+)\|([0-9]+)\|([0-9]+)\|\S+ (\S+)"'
    )
    yield f"    RewriteRule {target} [P,NS,E=LBADAPTOR_SESSION:held,{variables}]"
    if _KEY(cookie):
        yield "    # A first visit. The map gives a slot at random, and then its address, key, slot and generation."
        yield f'    RewriteCond %{{HTTP_COOKIE}} "!{re.escape(cookie)}{_EQUALS}" [NV]'
        yield (
            rf"    RewriteCond ${{{available}:${{{available}:{cookie}}}}};%{{THE_REQUEST}} "
            rf'"^{lane.address};([^;]+);([0-9]+);([0-9]+);\S+ (\S+)"'
        )
        yield f"    RewriteRule {target} [P,NS,E=LBADAPTOR_SESSION:none,{variables}]"
    else:
        yield "    # First visits take the Python lane: the ticket cookie's name cannot be the key of a map."
    yield "</IfDefine>"


def rules_without_maps(lane: FastLaneRules) -> Iterator[str]:
    """The same for an Apache that found no files as it read its configuration: callerkeys.text tells by itself who is
    there, and the ticket tells the slot. LBADAPTOR_KEY is the ticket until the key is put in its place (`key`). First
    visits take the Python lane until Apache is reloaded."""
    keys = str(lane.settings.caller_keys_file)
    if not is_plain(keys):
        return  # no expression can name it: all take the Python lane until Apache is reloaded
    yield ""
    yield f"<IfDefine !{lane.with_maps}>"
    yield f"    RewriteCond {keys} -f"
    yield f'    RewriteCond {_KIND} "{_RIGHT_KIND}" [NV]'
    yield from _ticket(lane.settings.application.ticket_cookie, "|".join(map(str, range(len(lane.urls)))))
    yield r'    RewriteCond %1|%2|%3|%{THE_REQUEST} "^([^|]+)\|([0-9]+)\|([0-9]+)\|\S+ (\S+)"'
    variables = {
        "LBADAPTOR_SESSION": "held",
        "LBADAPTOR_KEY": "%1",
        "LBADAPTOR_SLOT": "%2",
        "LBADAPTOR_GENERATION": "%3",
        "LBADAPTOR_URI": "%4",
    }
    yield f"    RewriteRule {lane.paths} - [NS,{','.join(f'E={key}:{value}' for key, value in variables.items())}]"
    yield '    RewriteCond %{ENV:LBADAPTOR_SLOT} ="" [OR]'
    yield f"    RewriteCond expr \"! (file('{keys}') -strmatch '*%{{reqenv:LBADAPTOR_KEY}} *')\" [NV]"
    yield f'    RewriteRule "^" - [NS,S={len(lane.urls)},{",".join(f"E=!{key}" for key in variables)}]'
    for slot, url in enumerate(lane.urls):
        yield f"    RewriteCond %{{ENV:LBADAPTOR_SLOT}} ={slot}"
        yield f'    RewriteRule "^" "{url}" [P,NS,E=!LBADAPTOR_SLOT]'
    yield "</IfDefine>"


def key(lane: FastLaneRules) -> Iterator[str]:
    """Put the caller's key in the place of the ticket, where there is no map to look it up."""
    keys = str(lane.settings.caller_keys_file)
    if not is_plain(keys):
        return
    yield f"    <IfDefine !{lane.with_maps}>"
    yield f'        RequestHeader set LB-Key "expr=%{{reqenv:LBADAPTOR_KEY}}|%{{file:{keys}}}"'
    yield r'        RequestHeader edit LB-Key "^([^|]+)\|[\s\S]*?\n\1 +(\S+)[\s\S]*$" "$2"'
    yield "        # Not there any more: the AppServer refuses what is incomplete, and the adaptor is asked."
    yield '        RequestHeader unset LB-Key "expr=%{req:LB-Key} !~ /^[^|]+$/"'
    yield "    </IfDefine>"


def _ticket(cookie: str, slots: str) -> Iterator[str]:
    """One ticket of the right shape as %1, its slot as %2, its generation as %3."""
    before, begins = _first(cookie)
    yield "    # One ticket of the right shape."
    yield (
        f'    RewriteCond %{{HTTP_COOKIE}} "^(?:{before}(?:(?<=;)|(?<=; )))?{begins}'
        rf'(({slots})\.([0-9]{{1,16}})\.[0-9A-Za-z_-]{{43}})(?:;{before})?$" [NV]'
    )


def _first(name: str) -> tuple[str, str]:
    """Patterns: of a text in which a cookie of that name does not begin, and of its beginning.

    Neither can match in two ways, so the regular expression does not backtrack. Backtracking took as long as all the
    rest here.
    """
    first, rest = re.escape(name[0]), re.escape(name[1:])
    return f"[^{first}]*(?:{first}(?!{rest}{_EQUALS})[^{first}]*)*", f"{first}{rest}="
