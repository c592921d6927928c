"""Requests by which environs are compared, and an httpd that serves them in all the ways that they need."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import re
import socket
import ssl
import subprocess
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from cluster import SNIPPETS, TIMEOUT, Cluster, Site, eventually
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded

from monitor.apacheconfig import fastlane
from monitor.demo import httpd
from tests.ports import free_ports

MOUNTS = ("", "/deep/mount")
LISTENERS = ("plain", "decoding", "refusing", "tls", "behind a proxy", "HTTP/2")
"""The first has AllowEncodedSlashes NoDecode, the next two On and Off."""


@dataclass(frozen=True)
class Case:
    """A request, byte for byte. `target` comes after the mount, and after `before`."""

    name: str
    target: bytes = b"/x"
    method: bytes = b"GET"
    headers: tuple[bytes, ...] = ()
    body: bytes = b""
    version: bytes = b"1.1"
    host: bytes | None = b"shop.example"
    listener: str = "plain"
    before: bytes = b""
    status: int = 200
    """Apache's own, without asking the application, where it is another"""


def _authorization(user: bytes, password: bytes) -> bytes:
    return b"Authorization: Basic " + base64.b64encode(user + b":" + password)


CHUNKS = b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"
TRAILERS = CHUNKS[:-2] + b"X-Late: 1\r\n\r\n"
LARGE = b"50000\r\n" + b"x" * 0x50000 + b"\r\n0\r\n\r\n"
"""More than an adaptor with SETTINGS keeps."""
SETTINGS = {"body_memory": 1000, "body_spool": 3000, "pass_variables": ["SSL_*", "SHOP_MODE"]}
CORPUS = [
    Case("the mount itself", b""),
    Case("slash", b"/"),
    Case("path", b"/a/b.html"),
    # Slashes, dots, signs.
    Case("encoded slash kept", b"/a%2Fb%2fc"),
    Case("encoded slash decoded", b"/a%2Fb%2fc", listener="decoding"),
    Case("encoded slash refused", b"/a%2Fb", listener="refusing", status=404),
    Case("encoded slash first", b"/%2Fa", listener="decoding"),
    Case("encoded percent", b"/a%252Fb"),
    Case("dots", b"/a/../b/./c"),
    Case("dots at the end", b"/a/.."),
    Case("dots above the top", b"/../../../../a", status=400),
    Case("encoded dots", b"/a/%2e%2e/b"),
    Case("doubled slashes", b"//double///slash//"),
    Case("doubled slash before the mount", b"/x", before=b"/"),
    Case("spaces", b"/a%20b%09c/ ".rstrip()),
    Case("signs", b"/~!$&'()*+,;=:@-._"),
    Case("encoded signs", b"/%3Fa%23b%5Cc%22%3C%3E%7C"),
    Case("parameters", b"/a;b=c;d/e;f"),
    Case("absolute", b"/a?b", before=b"http://elsewhere.example"),
    Case("NUL", b"/a%00b", status=404),
    Case("no escape", b"/a%zzb", status=400),
    # UTF-8, and what is none.
    Case("UTF-8", b"/%C3%A9t%C3%A9/%E2%82%AC"),
    Case("raw UTF-8", "/été/€".encode()),
    Case("not UTF-8", b"/%ff%C3"),
    Case("raw not UTF-8", b"/\xff\xc3"),
    Case("UTF-8 query", "/x?q=é€".encode()),
    Case("not UTF-8 query", b"/x?q=\xff\xc3&r=%ff"),
    # Query strings.
    Case("empty query", b"/x?"),
    Case("query", b"/x?a=1&b=%20+%C3%A9&c=a/b?d"),
    Case("repeated query", b"/x?a=1&a=2&&a=&a"),
    Case("query of signs", b"/x?%2F..%2F//;'!*()[]{}|\\^`\""),
    # Methods.
    Case("HEAD", method=b"HEAD"),
    Case("POST without body", method=b"POST", headers=(b"Content-Length: 0",)),
    Case("OPTIONS", method=b"OPTIONS"),
    Case("PROPFIND", method=b"PROPFIND"),
    Case("unknown method", method=b"FROBNICATE"),
    Case("unknown method with body", method=b"FROB", headers=(b"Content-Length: 4",), body=b"body"),
    Case("method in lower case", method=b"get"),
    Case("DELETE", method=b"DELETE"),
    # Headers.
    Case("repeated headers", headers=(b"X-Twice: one", b"X-Twice: two", b"x-twice: three", b"Accept: */*")),
    Case("cookies", headers=(b"Cookie: a=1; b=\xc3\xa9; c", b"User-Agent: x/1", b"Referer: http://x/?%20")),
    Case("repeated cookies", headers=(b"Cookie: a=1", b"Cookie: b=2; a=3")),
    Case("a ticket", headers=(b"Cookie: __PRT__=0.1.x; sid=1",)),
    Case("underscore", headers=(b"X_Under_Score: 1", b"X-Under_Score: 2", b"X-Dash: 3", b"Content_Length: 5")),
    Case("strange names", headers=(b"X.Dot: 1", b"X!: 2", b"9: 3")),
    Case("empty header", headers=(b"X-Empty:", b"X-Blank:   ", b"X-Tab: a\tb", b"X-Spaces:   a  b   ")),
    Case("headers beyond ASCII", headers=(b"X-Latin: \xe9", "X-Text: é€".encode(), b"X-Percent: %C3%A9")),
    Case("large header", headers=(b"X-Large: " + b"x" * 8000,)),
    Case("many headers", headers=tuple(b"X-%d: %d" % (number, number) for number in range(90))),
    Case("our own names", headers=(b"LB-Session: lost", b"LB-Remote-Addr: 6.6.6.6", b"LB-X: 1", b"LB-Var-X: 1")),
    Case("Proxy", headers=(b"Proxy: http://evil.example/",)),
    Case("conditional", headers=(b'If-None-Match: "x"', b"Range: bytes=0-1", b"If-Match: *")),
    Case("close", headers=(b"Connection: close",)),
    Case("keep-alive", headers=(b"Connection: Keep-Alive", b"Keep-Alive: timeout=5"), version=b"1.0"),
    Case("TE", headers=(b"Connection: TE", b"TE: trailers", b"Trailer: X-Late")),
    Case("upgrade", headers=(b"Connection: Upgrade", b"Upgrade: frob/1")),
    Case("named by Connection", headers=(b"Connection: close, X-Foo", b"X-Foo: 1")),
    Case("proxy connection", headers=(b"Proxy-Connection: keep-alive",)),
    # Hosts and versions.
    Case("host with port", host=b"Shop.Example:8080"),
    Case("host by IPv6", host=b"[2001:db8::1]:8080"),
    Case("empty host", host=b"", status=400),
    Case("HTTP/1.0", version=b"1.0"),
    Case("HTTP/2", b"/a%20b?c=d%20", headers=(b"cookie: a=1", b"cookie: b=2", b"x-foo: 1"), listener="HTTP/2"),
    Case("HTTP/2 POST", method=b"POST", headers=(b"content-length: 4",), body=b"body", listener="HTTP/2"),
    Case("no host", version=b"1.0", host=None),
    # Who it is.
    Case("authorised", b"/private/x", headers=(_authorization(b"somebody", b"secret"),)),
    Case("authorised beyond ASCII", b"/private/x", headers=(_authorization("renée".encode(), b"secret"),)),
    Case("a wrong password", b"/private/x", headers=(_authorization(b"somebody", b"guess"),), status=401),
    Case("authorization for the application", headers=(b"Authorization: Bearer abc",)),
    Case("TLS", b"/x?a", host=b"shop.example:443", listener="tls"),
    Case("TLS POST", method=b"POST", headers=(b"Content-Length: 3",), body=b"abc", listener="tls"),
    Case("forwarded", headers=(b"X-Forwarded-For: 198.51.100.7", b"X-Forwarded-Proto: https")),
    Case("behind a proxy", headers=(b"X-Forwarded-For: 198.51.100.7",), listener="behind a proxy"),
    Case("IPv6 behind a proxy", headers=(b"X-Forwarded-For: 2001:db8::7",), listener="behind a proxy"),
    # Bodies.
    Case("body", method=b"POST", headers=(b"Content-Type: x/y; z=1", b"Content-Length: 5"), body=b"\0\r\n\xff."),
    Case("type without body", headers=(b"Content-Type: text/x",)),
    Case("empty type", method=b"POST", headers=(b"Content-Type:", b"Content-Length: 1"), body=b"x"),
    Case("GET with body", headers=(b"Content-Length: 3",), body=b"abc"),
    Case("leading zeros", method=b"POST", headers=(b"Content-Length: 0003",), body=b"abc"),
    Case("chunked", method=b"POST", headers=(b"Transfer-Encoding: chunked", b"Content-Type: x/y"), body=CHUNKS),
    Case("chunked, empty", method=b"PUT", headers=(b"Transfer-Encoding: chunked",), body=b"0\r\n\r\n"),
    Case("chunked, in capitals", method=b"PUT", headers=(b"Transfer-Encoding: Chunked",), body=CHUNKS),
    Case("chunked, streamed", method=b"PUT", headers=(b"Transfer-Encoding: chunked",), body=LARGE),
    Case("trailers", method=b"PUT", headers=(b"Transfer-Encoding: chunked",), body=TRAILERS),
    Case("expects 100", method=b"PUT", headers=(b"Expect: 100-continue", b"Content-Length: 2"), body=b"ok"),
]  # fmt: skip
# A connection by IPv6 is tried where the machine has it; REMOTE_ADDR, SERVER_NAME and Host by IPv6 on every machine.


def has_ipv6() -> bool:
    """Whether this machine has a loopback address of IPv6."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as trial:
        trial.bind(("::1", 0))
        return True
    return False


if has_ipv6():
    LISTENERS = (*LISTENERS, "IPv6")
    CORPUS.append(Case("IPv6", host=b"[::1]", listener="IPv6"))
CASES = {case.name: case for case in CORPUS}
assert len(CASES) == len(CORPUS)

PRIVATE = """
LoadModule authn_core_module {modules}/mod_authn_core.so
LoadModule authn_file_module {modules}/mod_authn_file.so
LoadModule authz_user_module {modules}/mod_authz_user.so
LoadModule auth_basic_module {modules}/mod_auth_basic.so
<LocationMatch "/private/">
    AuthType Basic
    AuthName test
    AuthBasicProvider file
    AuthUserFile {folder}/users
    Require valid-user
</LocationMatch>
"""
"""Only for those whom `prepare` knows."""
_EXTRA = (
    PRIVATE
    + """
LoadModule remoteip_module {modules}/mod_remoteip.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule http2_module {modules}/mod_http2.so
AllowEncodedSlashes NoDecode
SetEnv SHOP_MODE "live \u00e9"
SetEnv NOT_NAMED 1
Listen 127.0.0.1:{decoding}
<VirtualHost 127.0.0.1:{decoding}>
    {inherit}
    AllowEncodedSlashes On
</VirtualHost>
Listen 127.0.0.1:{refusing}
<VirtualHost 127.0.0.1:{refusing}>
    {inherit}
    AllowEncodedSlashes Off
</VirtualHost>
Listen 127.0.0.1:{tls}
<VirtualHost 127.0.0.1:{tls}>
    {inherit}
    SSLEngine on
    SSLOptions +StdEnvVars +ExportCertData
    SSLCertificateFile {folder}/certificate.pem
    SSLCertificateKeyFile {folder}/key.pem
</VirtualHost>
Listen 127.0.0.1:{proxied}
<VirtualHost 127.0.0.1:{proxied}>
    {inherit}
    RemoteIPHeader X-Forwarded-For
    RemoteIPInternalProxy 127.0.0.1
</VirtualHost>
Listen 127.0.0.1:{http2}
<VirtualHost 127.0.0.1:{http2}>
    {inherit}
    Protocols h2c
</VirtualHost>
"""
)
_IPV6 = "Listen [::1]:{ipv6}\n"
_AGAIN = """
Define LBADAPTOR_CONFIG {config}
Include {snippet}
"""
_FAST_LANE = """
CustomLog {log} "%{{X-Case}}i|%{{LBADAPTOR_GENERATION}}e|%{{REDIRECT_STATUS}}e"
"""
_DIRECT = """
WSGIScriptAlias {deep} {folder}/apps/seen.wsgi process-group=%{{GLOBAL}} application-group=%{{GLOBAL}}
WSGIScriptAlias / {folder}/apps/seen.wsgi process-group=%{{GLOBAL}} application-group=%{{GLOBAL}}
WSGIPassAuthorization On
WSGIChunkedRequest On
WSGIMapHEADToGET Off
<Directory {folder}/apps>
    <Files seen.wsgi>
        Require all granted
    </Files>
</Directory>
"""


def prepare(folder: Path) -> None:
    """The files that an httpd for the corpus needs."""
    secret = base64.b64encode(hashlib.sha1(b"secret").digest()).decode()
    (folder / "users").write_text(f"somebody:{{SHA}}{secret}\nrenée:{{SHA}}{secret}\n")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=shop.example"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )


class Place:
    """An httpd that answers the corpus: the application in mod_wsgi itself ("direct"), or behind the adaptor.

    "fast": with the fast lane, for who brings a ticket; "first": the same, for who does not.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        mode, _, installation = name.partition("-")
        self._log = cluster.folder / f"{name}.log"
        names = ("decoding", "refusing", "tls", "proxied", "http2", "ipv6")
        ports = dict(zip(names, count(free_ports(len(names)))))
        words = {"folder": cluster.folder, "modules": httpd.installed()[0].modules, "deep": MOUNTS[1], **ports}
        words["inherit"] = "RewriteOptions Inherit" if mode in ("fast", "first") else ""
        extra = (_EXTRA + (_IPV6 if "IPv6" in LISTENERS else "")).format(**words)
        if mode == "direct":
            snippet = cluster.folder / f"{name}.conf"
            snippet.write_text(_DIRECT.format(**words))
            self.site: Site = cluster.site(f"embedded-{installation}", extra=extra, lint=False, snippet=snippet)
        elif mode in ("fast", "first"):
            slots = cluster.settings.slots
            other = re.escape(MOUNTS[1]) + "(?:/|$)"
            whole_site = fastlane.snippet(cluster.settings, slots, MOUNTS[0], str(httpd.SHARE), "whole-site", [other])
            lanes = _FAST_LANE.format(log=self._log)
            again = _AGAIN.format(config=cluster.config, snippet=httpd.SHARE / SNIPPETS["embedded"])
            extra = again + whole_site + lanes + extra
            self.site = cluster.site(f"embedded-{installation}", MOUNTS[1], extra, lint=True, fast_lane=slots)
        else:
            again = _AGAIN.format(config=cluster.config, snippet=httpd.SHARE / SNIPPETS[mode])
            self.site = cluster.site(name, MOUNTS[1], again + extra, lint=True)
        self._ports = dict(zip(LISTENERS, [self.site.port, *ports.values()], strict=False))

    def lanes(self) -> dict[str, str]:
        """By which lane each case that reaches the application came to it: fast, slow, or back from fast to slow.

        After all were seen; each case with its mount.
        """
        expected = {f"{case.name} at {mount}/" for case in CORPUS if case.status == 200 for mount in MOUNTS}

        def look() -> dict[str, str] | None:
            lines = (line.rsplit("|", 2) for line in self._log.read_text().splitlines())
            lanes = {asked: _lane(generation, redirected) for asked, generation, redirected in lines}
            return {asked: lanes[asked] for asked in expected} if expected <= lanes.keys() else None

        lanes: dict[str, str] = eventually("all requests are logged", look)
        return lanes

    def see(self, case: Case, mount: str, ticket: str = "") -> dict[str, str]:
        """What the application saw: each key's value as its repr, what no two requests have in common made alike."""
        added = [f"x-case: {case.name} at {mount}/", *([f"cookie: __PRT__={ticket}"] if ticket else [])]
        case = replace(case, headers=(*case.headers, *(line.encode() for line in added)))
        port = self._ports[case.listener]
        address = "::1" if case.listener == "IPv6" else "127.0.0.1"
        with contextlib.ExitStack() as stack:
            visitor: socket.socket = stack.enter_context(socket.create_connection((address, port), TIMEOUT))
            own_port = visitor.getsockname()[1]
            if case.listener == "tls":
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                visitor = stack.enter_context(context.wrap_socket(visitor, server_hostname="shop.example"))
            target = case.before + mount.encode() + case.target or b"/"
            ask = ask_by_http2 if case.listener == "HTTP/2" else _ask
            status, told = ask(visitor, case, target)
            assert status == case.status, f"{case}: {status}"
            if status != 200:
                return {}
        seen: dict[str, str] = json.loads(told)
        assert seen["REMOTE_PORT"] == repr(str(own_port))
        seen["REMOTE_PORT"] = "the visitor's"
        seen.pop("H2_STREAM_TAG", None)  # the connection's
        if case.listener == "tls":
            assert len(seen["SSL_SESSION_ID"]) > 32
            seen["SSL_SESSION_ID"] = "the connection's"
        ports = "|".join(map(str, self._ports.values()))
        folder = str(self.site.httpd.folder)
        return {key: re.sub(rf"\b({ports})\b", "PORT", value.replace(folder, "…")) for key, value in seen.items()}


def _lane(generation: str, redirected: str) -> str:
    return "back" if redirected != "-" else "slow" if generation == "-" else "fast"


def _ask(visitor: socket.socket, case: Case, target: bytes) -> tuple[int, bytes]:
    """The status, and what was told in the body or, to HEAD, in headers."""
    lines = [case.method + b" " + target + b" HTTP/" + case.version]
    if case.host is not None:
        lines.append(b"Host: " + case.host)
    visitor.sendall(b"\r\n".join([*lines, *case.headers, b"", case.body]))
    answer = http.client.HTTPResponse(visitor, method=case.method.decode())
    answer.begin()
    told = answer.read()
    pieces = answer.headers.get_all("X-Seen")
    return answer.status, base64.b64decode("".join(pieces)) if pieces else told


def ask_by_http2(visitor: socket.socket, case: Case, target: bytes) -> tuple[int, bytes]:
    """The same by HTTP/2 with prior knowledge."""
    talk = H2Connection(H2Configuration(header_encoding=None))
    talk.initiate_connection()
    head = [(b":method", case.method), (b":path", target), (b":scheme", b"http"), (b":authority", case.host or b"")]
    head += [(name, value.strip()) for name, _, value in (line.partition(b":") for line in case.headers)]
    talk.send_headers(1, head, end_stream=not case.body)
    if case.body:
        talk.send_data(1, case.body, end_stream=True)
    visitor.sendall(talk.data_to_send())
    status, told = 0, b""
    while True:
        for event in talk.receive_data(visitor.recv(65536)):
            if isinstance(event, ResponseReceived):
                status = int(dict(event.headers)[b":status"])
            elif isinstance(event, DataReceived):
                told += event.data
            elif isinstance(event, StreamEnded):
                return status, told
        visitor.sendall(talk.data_to_send())
