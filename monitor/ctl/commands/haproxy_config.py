"""`lbctl haproxy-config`: print or write HAProxy's sections for machines that share visitors."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click

from monitor.ctl.commands import base, which_monitor
from monitor.ctl.commands.base import Command
from monitor.ctl.commands.which_monitor import Which

OPTIONS: list[click.Parameter] = [
    click.Option(
        ["--machine"],
        multiple=True,
        metavar="NAME=ADDRESS[:PORT][,weight=N][,agent=ADDRESS:PORT]",
        help="A machine: any name, and the IP address of its Apache (port: 80); can be repeated. The weight and "
        "the agent's port are those of [machine] here, unless you say others.",
    ),
    click.Option(
        ["--peer"],
        multiple=True,
        metavar="NAME=ADDRESS:PORT",
        help="One of a pair of HAProxies: its host name, and where it listens for the other one; once for each.",
    ),
    click.Option(
        ["--bind"],
        multiple=True,
        metavar="WORDS",
        help="Write a frontend, too, with this after `bind`, such as ':443 ssl crt /etc/haproxy/shop.pem alpn "
        "h2,http/1.1'; can be repeated.",
    ),
    click.Option(
        ["--name"],
        metavar="NAME",
        help="The backend's name; in one HAProxy each application needs another (default: that of lbadaptor.toml).",
    ),
    click.Option(
        ["--host"],
        default="localhost",
        metavar="HOST",
        help="The host name in HAProxy's health checks; Apache has to have the application under it (default: "
        "localhost).",
    ),
    base.mount(),
    base.write(),
]


def run(
    which: Which,
    machine: tuple[str, ...],
    peer: tuple[str, ...],
    bind: tuple[str, ...],
    name: str | None,
    host: str,
    mount: str,
    write: Path | None,
) -> int:
    """The exit status. Raises LbadaptorError."""
    from monitor.apacheconfig.write import replace  # `lbctl --help` starts faster without them
    from monitor.haproxyconfig import compose, machines

    settings, config = which_monitor.settings(which), which_monitor.config(which)
    options = compose.Options(
        name=re.sub(r"[^0-9A-Za-z_.-]", "-", config.stem) if name is None else name,
        machines=machines.machines(machine, settings),
        peers=machines.peers(peer),
        bind=bind,
        host=host,
        mount=mount.rstrip("/"),
    )
    words = [
        *("lbctl", "--config", str(config.absolute()), "haproxy-config"),
        *(word for text in machine for word in ("--machine", text)),
        *(word for text in peer for word in ("--peer", text)),
        *(word for text in bind for word in ("--bind", text)),
        *([] if name is None else ["--name", name]),
        *([] if host == "localhost" else ["--host", host]),
        *(["--mount", mount] if mount else []),
    ]
    text = compose.compose(options, settings, shlex.join(words))
    if write is None:
        print(text, end="")
    else:
        replace(write, text)
        print(f"{write}: written, for {len(options.machines)} machines")
    for warning in compose.warnings(settings):
        print(f"lbctl: {warning}", file=sys.stderr)
    return 0


command = Command(
    "haproxy-config",
    "print or write HAProxy's sections for several machines",
    run,
    OPTIONS,
    [
        "lbctl haproxy-config --machine web1=10.0.0.11 --machine web2=10.0.0.12 --bind :80 --write shop.cfg",
        "lbctl haproxy-config --machine web1=10.0.0.11:8080,weight=50 --machine web2=10.0.0.12 "
        "--peer lb1=10.0.0.1:10000 --peer lb2=10.0.0.2:10000",
    ],
)
