"""Apache's configuration for the fast lane: which requests take it, and to which AppServers. Pure.

Apache's own mod_rewrite looks the visitor's ticket up in address.text and in callerkeys.text, and its mod_proxy
forwards the request to the AppServer that holds the session. All other requests go to the adaptor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from lbadaptor.contract.address import Address
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.headers import VARIABLES, encode
from lbadaptor.contract.settings import Settings

COMMON = "lbadaptor-fastlane.conf"
"""The installed snippet with what is the same for each AppServer."""
_PLAIN = re.compile(r"[\w/.+@~-]+", re.ASCII).fullmatch
"""A path without signs that mod_rewrite or a URL interprets."""
_HOST = re.compile(r"[0-9A-Za-z.:_-]+", re.ASCII).fullmatch
_ALL_OF_TLS = "SSL_*"
_OF_EVERY_TLS_REQUEST = "SSL_TLS_SNI"
"""The only SSL_ variable that mod_ssl sets by default."""
_SET_WITH_MORE = ("SSL_VERSION_INTERFACE", "SSL_SERVER_CERT", "SSL_SERVER_B64CERT")
"""Set by SSLOptions StdEnvVars, ExportCertData, ExportBase64CertData."""


WRITTEN_BY = "# lbctl apache-config"
"""Beginning of the line with the options by which a file was written."""


def snippet(
    settings: Settings,
    slots: int,
    mount: str,
    share: str,
    name: str,
    taken: Sequence[str] = (),
    options: str = "",
) -> str:
    """The configuration. `name` tells the maps of several applications apart. `options`: those of the command.

    `mount` is a path without a slash at its end; empty: the whole site. `share` is the folder of the installed
    snippets. `taken`: regular expressions of paths that are not the adaptor's. Raises SettingsError for settings
    that Apache's configuration cannot hold: [adaptor] pass_variables, [appservers] host, a path.
    """
    variables, more_of_tls = _variables(settings)
    servers = settings.appservers
    if not _HOST(servers.host):
        raise SettingsError(f'[appservers] host = "{servers.host}": the fast lane needs a plain address or name')
    sockets = _sockets(settings, slots)
    addresses = [_authority(Address(servers.host, servers.base_port + slot), bool(sockets)) for slot in range(slots)]
    urls = [_url(sockets, str(slot), address, mount) for slot, address in enumerate(addresses)]
    pattern = _pattern(mount, taken)
    lines = (
        *_head(slots, mount, options),
        *_maps(settings, name),
        *_rules(settings, pattern, sockets, mount, name, addresses),
        *_rules_without_maps(settings, pattern, name, urls),
        *(line for url in urls for line in _proxy(settings, url, mount, share, name, variables, more_of_tls)),
        "",
        f"UnDefine {_with_maps(name)}",
    )
    return "".join(f"{line}\n" for line in lines)


def _head(slots: int, mount: str, options: str) -> Iterator[str]:
    where = mount or "the whole site"
    yield f"# The fast lane to slots 0 to {slots - 1}, for {where}; written by"
    yield f"{WRITTEN_BY} {options}".rstrip()
    yield "#"
    yield "# Include it after lbadaptor.conf, and after rewrite rules of your own. An AppServer beyond these slots is"
    yield "# not in the fast lane, and reached all the same. No reload is needed when AppServers come and go."
    yield "# `lbctl apache-config --check FILE` tells whether it still fits the settings and Apache's configuration."


def _with_maps(name: str) -> str:
    """The name that is defined while Apache reads the rest, if both files existed when it began."""
    return f"LBADAPTOR_MAPS_{name}"


def _maps(settings: Settings, name: str) -> Iterator[str]:
    address_file, keys_file = _quoted(str(settings.address_file)), _quoted(str(settings.caller_keys_file))
    yield ""
    yield "# Apache does not start where the file of a RewriteMap is missing: after a boot both are, for a time."
    yield "# Then an expression looks up the callers' keys, until the next reload: that is slower."
    yield f"<IfFile {address_file}>"
    yield f"    <IfFile {keys_file}>"
    yield f"        Define {_with_maps(name)}"
    yield f"        RewriteMap lbadaptor-address-{name} {address_file.replace(QUOTE, QUOTE + 'txt:', 1)}"
    yield f"        RewriteMap lbadaptor-key-{name} {keys_file.replace(QUOTE, QUOTE + 'txt:', 1)}"
    yield "    </IfFile>"
    yield "</IfFile>"
    yield "RewriteEngine On"


def _conditions(settings: Settings, slots: str) -> Iterator[str]:
    """The conditions that a request has to meet before anything is looked up."""
    before, cookie = _first(settings.application.ticket_cookie)
    yield "    # What may be repeated, has no body, and asks nothing of proxies; by one ticket of the right shape."
    yield (
        "    RewriteCond %{REQUEST_METHOD}|%{HTTP:Connection}|%{HTTP:Upgrade}%{HTTP:Expect}%{HTTP:Transfer-Encoding}"
        r"%{HTTP:Content-Length}%{HTTP:Max-Forwards}%{ENV:REDIRECT_STATUS}|%{HTTP_HOST}|%{QUERY_STRING} "
        r'"^(?:GET|HEAD)\|(?i:keep-alive|close)?\|\|[^|]+\|[!-~]*$" [NV]'
    )
    yield (
        f'    RewriteCond %{{HTTP_COOKIE}} "^(?:{before}(?:(?<=;)|(?<=; )))?{cookie}'
        rf'(({slots})\.([0-9]{{1,16}})\.[0-9A-Za-z_-]{{43}})(?:;{before})?$" [NV]'
    )


def _rules(
    settings: Settings, pattern: str, sockets: str, mount: str, name: str, addresses: list[str]
) -> Iterator[str]:
    there = str(Address(settings.appservers.host, settings.appservers.base_port))
    host = there.rpartition(":")[0]
    ports = "|".join(address.rpartition(":")[2] for address in addresses)
    if there == addresses[0]:
        address, authority = f"({re.escape(host)}:(?:{ports}))", "%1"
    else:
        address, authority = f"{re.escape(host)}:({ports})", f"{addresses[0].rpartition(':')[0]}:%1"
    url = _url(sockets, "%3", authority, mount)
    yield ""
    yield f"<IfDefine {_with_maps(name)}>"
    yield from _conditions(settings, "[0-9]{1,6}")
    yield "    # Its holder's address and key; its slot and generation; the request's own target."
    yield (
        rf"    RewriteCond ${{lbadaptor-address-{name}:%1}}|${{lbadaptor-key-{name}:%1}}|%2|%3|%{{THE_REQUEST}} "
        rf'"^{address}\|([^|]+)\|([0-9]+)\|([0-9]+)\|\S+ (\S+)"'
    )
    yield f'    RewriteRule {pattern} "{url}" [P,NS,E=LBADAPTOR_KEY:%2,E=LBADAPTOR_GENERATION:%4,E=LBADAPTOR_URI:%5]'
    yield "</IfDefine>"


def _rules_without_maps(settings: Settings, pattern: str, name: str, urls: list[str]) -> Iterator[str]:
    """The same for an Apache that found no files as it read its configuration: callerkeys.text tells by itself who is
    there, and the ticket tells the slot. LBADAPTOR_KEY is the ticket until the key is put in its place (_key)."""
    if not _PLAIN(str(settings.caller_keys_file)):
        return  # no expression can name it: all take the Python lane until Apache is reloaded
    yield ""
    yield f"<IfDefine !{_with_maps(name)}>"
    yield f"    RewriteCond {settings.caller_keys_file} -f"
    yield from _conditions(settings, "|".join(map(str, range(len(urls)))))
    yield r'    RewriteCond %1|%2|%3|%{THE_REQUEST} "^([^|]+)\|([0-9]+)\|([0-9]+)\|\S+ (\S+)"'
    variables = {"LBADAPTOR_KEY": "%1", "LBADAPTOR_SLOT": "%2", "LBADAPTOR_GENERATION": "%3", "LBADAPTOR_URI": "%4"}
    yield f"    RewriteRule {pattern} - [NS,{','.join(f'E={key}:{value}' for key, value in variables.items())}]"
    yield '    RewriteCond %{ENV:LBADAPTOR_SLOT} ="" [OR]'
    unknown = f"! (file('{settings.caller_keys_file}') -strmatch '*%{{reqenv:LBADAPTOR_KEY}} *')"
    yield f'    RewriteCond expr "{unknown}" [NV]'
    yield f'    RewriteRule "^" - [NS,S={len(urls)},{",".join(f"E=!{key}" for key in variables)}]'
    for slot, url in enumerate(urls):
        yield f"    RewriteCond %{{ENV:LBADAPTOR_SLOT}} ={slot}"
        yield f'    RewriteRule "^" "{url}" [P,NS,E=!LBADAPTOR_SLOT]'
    yield "</IfDefine>"


def _first(name: str) -> tuple[str, str]:
    """Patterns: of a text in which a cookie of that name does not begin, and of its beginning.

    Neither can match in two ways, so the regular expression does not backtrack. Backtracking took as long as all the
    rest here.
    """
    first, rest = re.escape(name[0]), re.escape(name[1:])
    return f"[^{first}]*(?:{first}(?!{rest}=)[^{first}]*)*", f"{first}{rest}="


def _pattern(mount: str, taken: Sequence[str]) -> str:
    """Of the paths that the adaptor would get; in quotes."""
    others = f"(?!{'|'.join(taken)})" if taken else ""
    return _quoted(f"^{others}" + (rf"{re.escape(mount)}(?:/|$)" if mount else ""))


QUOTE = '"'


def _quoted(text: str) -> str:
    """A word of Apache's configuration: within quotes, a backslash before a quote or another backslash counts.

    Raises SettingsError for what no quotes help against.
    """
    if "${" in text or not text.isprintable():
        raise SettingsError(f"{text!r} cannot stand in Apache's configuration: it has control characters or ${{")
    return QUOTE + re.sub(r'\\(?=[\\"])|\\$|"', r"\\\g<0>", text) + QUOTE


def _authority(address: Address, by_socket: bool) -> str:
    """Host and port in a URL.

    By Unix socket nobody connects to them, and brackets would make a pattern of the name of a <Proxy>.
    """
    host, _, port = str(address).rpartition(":")
    return (
        f"ip6{re.sub(r'[^0-9a-f]', '-', host.strip('[]').lower())}:{port}"
        if by_socket and "[" in host
        else str(address)
    )


def _sockets(settings: Settings, slots: int) -> str:
    """The folder of the AppServers' Unix sockets; empty where Apache has to go by TCP."""
    folder = str(settings.socket_folder)
    return folder if settings.unix_socket(slots - 1) and _PLAIN(folder) else ""


def _url(sockets: str, slot: str, address: str, mount: str) -> str:
    """An AppServer's URL for mod_proxy. Its folder tells Apache's <Proxy> sections apart: an application may have
    several mounts, each with a <Proxy> of its own."""
    folder = "at" + re.sub(r"[^0-9A-Za-z]", lambda found: f"-{ord(found[0]):x}-", mount)
    return (f"unix:{sockets}/{slot}|" if sockets else "") + f"http://{address}/{folder}/"


def _proxy(
    settings: Settings, url: str, mount: str, share: str, name: str, variables: list[str], more_of_tls: bool
) -> Iterator[str]:
    adaptor = settings.adaptor
    parameters = (
        "enablereuse=on retry=0 responsefieldsize=65536"
        f" connectiontimeout={max(1, math.ceil(adaptor.connect_timeout * 1000))}ms"
        f" timeout={math.ceil(adaptor.answer_timeout)}"  # mod_proxy knows whole seconds only
    )
    yield ""
    if "[" in url:  # of an IPv6 address; in the name of a <Proxy> that would be a pattern, which has no parameters
        yield f'<Proxy "{url}">'
        yield f"    ProxySet {parameters}"
        yield "</Proxy>"
        yield f'<ProxyMatch "^{re.escape(url)}">'
    else:
        yield f'<Proxy "{url}" {parameters}>'
    common = f"{share}/{COMMON}"
    yield f"    Include {common if _PLAIN(common) else _quoted(common)}"
    yield f"    RequestHeader set LB-Script-Name {_quoted(encode(mount).replace('%', '%%'))}"
    yield from _key(settings, name)
    names = [variable.replace("_", "-") for variable in variables]
    yield f'    RequestHeader set {VARIABLES} "{" ".join(names)}"'
    for name, variable in zip(names, variables, strict=True):
        yield f"    RequestHeader unset LB-Var-{name}"
        yield f'    RequestHeader set LB-Var-{name} "expr=%{{escape:%{{reqenv:{variable}}}}}" env={variable}'
    if more_of_tls:
        yield "    # Where Apache has more of them, the AppServer refuses as incomplete, and the adaptor brings all."
        for sign in _SET_WITH_MORE:
            yield f"    RequestHeader unset LB-Path env={sign}"
    yield "</ProxyMatch>" if "[" in url else "</Proxy>"


def _key(settings: Settings, name: str) -> Iterator[str]:
    """Put the caller's key in the place of the ticket, where there is no map to look it up."""
    if not _PLAIN(str(settings.caller_keys_file)):
        return
    yield f"    <IfDefine !{_with_maps(name)}>"
    yield f'        RequestHeader set LB-Key "expr=%{{reqenv:LBADAPTOR_KEY}}|%{{file:{settings.caller_keys_file}}}"'
    yield r'        RequestHeader edit LB-Key "^([^|]+)\|[\s\S]*?\n\1 +(\S+)[\s\S]*$" "$2"'
    yield "        # Not there any more: the AppServer refuses what is incomplete, and the adaptor is asked."
    yield '        RequestHeader unset LB-Key "expr=%{req:LB-Key} !~ /^[^|]+$/"'
    yield "    </IfDefine>"


def _variables(settings: Settings) -> tuple[list[str], bool]:
    """The variables to hand on, by name; whether there may be more of mod_ssl's than these."""
    names = []
    more_of_tls = False
    for pattern in settings.adaptor.pass_variables:
        if pattern == _ALL_OF_TLS:
            names.append(_OF_EVERY_TLS_REQUEST)
            more_of_tls = True
        elif pattern.endswith("*"):
            raise SettingsError(
                f'[adaptor] pass_variables = "{pattern}": in the fast lane Apache hands on variables by their names '
                "only; name each"
            )
        elif pattern != "HTTPS":  # wsgi.url_scheme tells it; no lane hands it on
            names.append(pattern)
    return list(dict.fromkeys(names)), more_of_tls
