"""Apache's configuration for the fast lane: which requests take it, and to which AppServers. Pure.

Apache's own mod_rewrite looks the visitor's ticket up in address.text and in callerkeys.text, and its mod_proxy
carries the request to the holder. Everything else is left to the adaptor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lbadaptor.address import Address
from lbadaptor.errors import SettingsError
from lbadaptor.headers import VARIABLES, encode
from lbadaptor.settings import Settings

COMMON = "lbadaptor-fastlane.conf"
"""What is the same for each AppServer, among the installed snippets."""
_PLAIN = re.compile(r"[\w/.+@~-]+", re.ASCII).fullmatch
"""A path that means nothing to mod_rewrite, nor in a URL."""
_ALL_OF_TLS = "SSL_*"
_OF_EVERY_TLS_REQUEST = "SSL_TLS_SNI"
"""The only SSL_ variable that mod_ssl sets unless it is told to set all."""
_SIGNS_OF_MORE = ("SSL_VERSION_INTERFACE", "SSL_SERVER_CERT", "SSL_SERVER_B64CERT")
"""Set by SSLOptions StdEnvVars, ExportCertData, ExportBase64CertData."""


def snippet(settings: Settings, slots: int, mount: str, share: str, name: str, taken: Sequence[str] = ()) -> str:
    """The text of it. `name` tells the maps of several applications apart.

    `mount` is a path without a slash at its end; empty: the whole site. `share` is the folder of the installed
    snippets. `taken`: regular expressions of paths that are not the adaptor's. Raises SettingsError where [adaptor]
    pass_variables cannot be met.
    """
    variables, more_of_tls = _variables(settings)
    servers = settings.appservers
    addresses = [Address(servers.host, servers.base_port + slot) for slot in range(slots)]
    sockets = _sockets(settings, slots)
    return "".join(
        f"{line}\n"
        for line in (
            *_head(settings, slots, mount),
            *_maps(settings, name),
            *_rules(settings, _pattern(mount, taken), _url(sockets, "%3", "%1", mount), name, addresses),
            *(
                line
                for slot, address in enumerate(addresses)
                for line in _proxy(
                    settings, _url(sockets, str(slot), str(address), mount), mount, share, variables, more_of_tls
                )
            ),
        )
    )


def _head(settings: Settings, slots: int, mount: str) -> Iterator[str]:
    where = mount or "the whole site"
    yield f"# The fast lane to slots 0 to {slots - 1}, for {where}; written by `lbctl apache-config`."
    yield "#"
    yield "# Include it after lbadaptor.conf, and after rewrite rules of your own. An AppServer beyond these slots is"
    yield "# not in the fast lane, and reached all the same. No reload is needed when AppServers come and go."


def _maps(settings: Settings, name: str) -> Iterator[str]:
    yield ""
    yield "# Where the engine is on, RewriteMap looks for its file, which is there only while the monitor runs."
    yield "RewriteEngine Off"
    yield f'RewriteMap lbadaptor-address-{name} "txt:{settings.address_file}"'
    yield f'RewriteMap lbadaptor-key-{name} "txt:{settings.caller_keys_file}"'
    yield "RewriteEngine On"


def _rules(settings: Settings, pattern: str, url: str, name: str, addresses: list[Address]) -> Iterator[str]:
    before, cookie = _first(settings.application.ticket_cookie)
    host = re.escape(str(addresses[0]).rpartition(":")[0])
    ports = "|".join(str(address.port) for address in addresses)
    yield ""
    yield "# What may be repeated, has no body, and asks nothing of the connection; by one ticket of the right shape."
    yield (
        "RewriteCond %{REQUEST_METHOD}|%{HTTP:Connection}|%{HTTP:Upgrade}%{HTTP:Expect}%{HTTP:Transfer-Encoding}"
        r"%{HTTP:Content-Length}%{ENV:REDIRECT_STATUS}|%{HTTP_HOST}|%{QUERY_STRING} "
        r'"^(?:GET|HEAD)\|(?i:keep-alive|close)?\|\|[^|]+\|[!-~]*$" [NV]'
    )
    yield (
        f'RewriteCond %{{HTTP_COOKIE}} "^(?:{before}(?:(?<=;)|(?<=; )))?{cookie}'
        rf'(([0-9]{{1,6}})\.([0-9]{{1,16}})\.[0-9A-Za-z_-]{{43}})(?:;{before})?$" [NV]'
    )
    yield "# Its holder's address and key; its slot and generation; the request's own target."
    yield (
        rf"RewriteCond ${{lbadaptor-address-{name}:%1}}|${{lbadaptor-key-{name}:%1}}|%2|%3|%{{THE_REQUEST}} "
        rf'"^({host}:(?:{ports}))\|([^|]+)\|([0-9]+)\|([0-9]+)\|\S+ (\S+)"'
    )
    yield (f'RewriteRule "{pattern}" "{url}" [P,NS,E=LBADAPTOR_KEY:%2,E=LBADAPTOR_GENERATION:%4,E=LBADAPTOR_URI:%5]')


def _first(name: str) -> tuple[str, str]:
    """Patterns: of a text in which a cookie of that name does not begin, and of its beginning.

    Neither can match in two ways, so that nobody goes back over the text: that took as long as all else here.
    """
    first, rest = re.escape(name[0]), re.escape(name[1:])
    return f"[^{first}]*(?:{first}(?!{rest}=)[^{first}]*)*", f"{first}{rest}="


def _pattern(mount: str, taken: Sequence[str]) -> str:
    """Of the paths that the adaptor would get."""
    others = f"(?!{'|'.join(taken)})" if taken else ""
    pattern = f"^{others}" + (rf"{re.escape(mount)}(?:/|$)" if mount else "")
    return pattern.replace('"', r"\"")


def _sockets(settings: Settings, slots: int) -> str:
    """The folder of the AppServers' Unix sockets; empty where Apache has to go by TCP."""
    folder = str(settings.socket_folder)
    return folder if settings.unix_socket(slots - 1) and _PLAIN(folder) else ""


def _url(sockets: str, slot: str, address: str, mount: str) -> str:
    """Of an AppServer, as mod_proxy has it. Its folder is for Apache's eyes only: an application may have several
    mounts, each with a <Proxy> of its own."""
    folder = "at" + re.sub(r"[^0-9A-Za-z]", lambda found: f"-{ord(found[0]):x}-", mount)
    return (f"unix:{sockets}/{slot}|" if sockets else "") + f"http://{address}/{folder}/"


def _proxy(
    settings: Settings, url: str, mount: str, share: str, variables: list[str], more_of_tls: bool
) -> Iterator[str]:
    adaptor = settings.adaptor
    yield ""
    yield (
        f'<Proxy "{url}" enablereuse=on retry=0 responsefieldsize=65536'
        f" connectiontimeout={adaptor.connect_timeout * 1000:.0f}ms timeout={max(1, round(adaptor.answer_timeout))}>"
    )
    yield f"    Include {share}/{COMMON}"
    yield f'    RequestHeader set LB-Script-Name "{encode(mount).replace("%", "%%")}"'
    names = [variable.replace("_", "-") for variable in variables]
    yield f'    RequestHeader set {VARIABLES} "{" ".join(names)}"'
    for name, variable in zip(names, variables, strict=True):
        yield f"    RequestHeader unset LB-Var-{name}"
        yield f'    RequestHeader set LB-Var-{name} "expr=%{{escape:%{{reqenv:{variable}}}}}" env={variable}'
    if more_of_tls:
        yield "    # Where Apache has more of them, the AppServer refuses as incomplete, and the adaptor brings all."
        for sign in _SIGNS_OF_MORE:
            yield f"    RequestHeader unset LB-Path env={sign}"
    yield "</Proxy>"


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
