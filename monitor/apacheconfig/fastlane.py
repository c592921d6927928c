"""Apache's configuration for the fast lane. Pure.

Apache's own mod_rewrite decides which requests take it (rewrite_rules.py), and its mod_proxy forwards them to the
AppServers. All other requests go to the adaptor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from lbadaptor.contract.address import Address
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.headers import HEALTH_PATH, TIME, VARIABLES, encode
from lbadaptor.contract.settings import NO_NUMBER, Settings
from monitor.apacheconfig import rewrite_rules
from monitor.apacheconfig.quoting import is_plain, quoted

COMMON = "lbadaptor-fastlane.conf"
"""The installed snippet with what is the same for each AppServer."""
_HOST = re.compile(r"[0-9A-Za-z.:_-]+", re.ASCII).fullmatch
_ALL_OF_TLS = "SSL_*"
_OF_EVERY_TLS_REQUEST = "SSL_TLS_SNI"
"""The only SSL_ variable that mod_ssl sets by default."""
_SET_WITH_MORE = ("SSL_VERSION_INTERFACE", "SSL_SERVER_CERT", "SSL_SERVER_B64CERT")
"""Set by SSLOptions StdEnvVars, ExportCertData, ExportBase64CertData."""


def snippet(
    settings: Settings,
    slots: int,
    mount: str,
    share: str,
    name: str,
    taken: Sequence[str] = (),
) -> str:
    """The configuration. `name` tells the maps of several applications apart.

    `mount` is a path without a slash at its end; empty: the whole site. `share` is the folder of the installed
    snippets. `taken`: regular expressions of paths that are not the adaptor's. Raises SettingsError for settings
    that Apache's configuration cannot hold: [adaptor] pass_variables, [appservers] host, a path.
    """
    if settings.machine.number != NO_NUMBER:
        taken = [*taken, rf"{re.escape(mount + HEALTH_PATH)}(?:/holders)?$"]  # only the adaptor has the health page
    variables, more_of_tls = _variables(settings)
    servers = settings.appservers
    if not _HOST(servers.host):
        raise SettingsError(f'[appservers] host = "{servers.host}": the fast lane needs a plain address or name')
    sockets = _sockets(settings, slots)
    addresses = [_authority(Address(servers.host, servers.base_port + slot), bool(sockets)) for slot in range(slots)]
    lane = _lane(settings, name, _pattern(mount, taken), sockets, mount, addresses)
    lines = (
        f"# The fast lane to slots 0 to {slots - 1}. An AppServer beyond them is reached by the Python lane.",
        *rewrite_rules.maps(lane),
        *rewrite_rules.rules(lane),
        *rewrite_rules.rules_without_maps(lane),
        "",
        "# A page that an ErrorDocument brings gets the headers of the first request: not the caller's key.",
        "RequestHeader unset LB-Key early",
        *(
            line
            for slot, url in enumerate(lane.urls)
            for line in _proxy(lane, slot, url, mount, share, variables, more_of_tls)
        ),
        "",
        f"UnDefine {lane.with_maps}",
    )
    return "".join(f"{line}\n" for line in lines)


def _lane(
    settings: Settings, name: str, paths: str, sockets: str, mount: str, addresses: list[str]
) -> rewrite_rules.FastLaneRules:
    there = str(Address(settings.appservers.host, settings.appservers.base_port))
    host = there.rpartition(":")[0]
    ports = "|".join(address.rpartition(":")[2] for address in addresses)
    if there == addresses[0]:
        address, authority = f"({re.escape(host)}:(?:{ports}))", "%1"
    else:
        address, authority = f"{re.escape(host)}:({ports})", f"{addresses[0].rpartition(':')[0]}:%1"
    urls = [_url(sockets, str(slot), address, mount) for slot, address in enumerate(addresses)]
    return rewrite_rules.FastLaneRules(settings, name, paths, address, _url(sockets, "%3", authority, mount), urls)


def _pattern(mount: str, taken: Sequence[str]) -> str:
    """Of the paths that the adaptor would get; in quotes."""
    others = f"(?!{'|'.join(dict.fromkeys(taken))})" if taken else ""
    return quoted(f"^{others}" + (rf"{re.escape(mount)}(?:/|$)" if mount else ""))


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
    return folder if settings.unix_socket(slots - 1) and is_plain(folder) else ""


def _url(sockets: str, slot: str, address: str, mount: str) -> str:
    """An AppServer's URL for mod_proxy. Its folder tells Apache's <Proxy> sections apart: an application may have
    several mounts, each with a <Proxy> of its own."""
    folder = "at" + re.sub(r"[^0-9A-Za-z]", lambda found: f"-{ord(found[0]):x}-", mount)
    return (f"unix:{sockets}/{slot}|" if sockets else "") + f"http://{address}/{folder}/"


def _proxy(
    lane: rewrite_rules.FastLaneRules,
    slot: int,
    url: str,
    mount: str,
    share: str,
    variables: list[str],
    more_of_tls: bool,
) -> Iterator[str]:
    adaptor = lane.settings.adaptor
    parameters = (
        "enablereuse=on retry=0 responsefieldsize=16384"
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
    yield f"    Include {common if is_plain(common) else quoted(common)}"
    yield f"    RequestHeader set LB-Script-Name {quoted(encode(mount).replace('%', '%%'))}"
    yield from rewrite_rules.key(lane)
    names = [variable.replace("_", "-") for variable in variables]
    asked = names
    if adaptor.log_variables:
        yield f"    SetEnv LBADAPTOR_SLOT {slot}"
        asked = [TIME, *names]
    yield f'    RequestHeader set {VARIABLES} "{" ".join(asked)}"'
    for name, variable in zip(names, variables, strict=True):
        yield f"    RequestHeader unset LB-Var-{name}"
        yield f'    RequestHeader set LB-Var-{name} "expr=%{{escape:%{{reqenv:{variable}}}}}" env={variable}'
    if more_of_tls:
        yield "    # Where Apache has more of them, the AppServer refuses as incomplete, and the adaptor brings all."
        for sign in _SET_WITH_MORE:
            yield f"    RequestHeader unset LB-Path env={sign}"
    yield "</ProxyMatch>" if "[" in url else "</Proxy>"


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
