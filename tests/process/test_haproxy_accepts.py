"""HAProxy itself takes what `lbctl haproxy-config` writes: with Debian's configuration, and with next to none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lbadaptor.contract.settings import parse
from monitor.haproxyconfig import compose, machines

DEBIANS = Path("/etc/haproxy/haproxy.cfg")
LEAST = "global\ndefaults\n    mode http\n"
ONE = ("web1=127.0.0.1:8080",)
THREE = ("web1=10.0.0.11", "web2=10.0.0.12:8080,weight=256", "web3=10.0.0.13,agent=10.0.1.13:9901")
V6 = ("web1=[fd00::11]:8080", "web2=fd00::12,weight=1")
PAIR = ("lb1=10.0.0.1:10000", "lb2=10.0.0.2:10000")
AGENT = '[machine]\nnumber = 0\nagent = "10.0.0.11:9900"\nfront = ["10.0.0.1"]\n'
V6_AGENT = '[machine]\nnumber = 1\nagent = "[fd00::11]:9900"\nfront = ["fd00::1"]\n'
LONG = "session_idle = 3e7\n"


def written(
    these: tuple[str, ...], more: str = "", application: str = "", peers: tuple[str, ...] = (), **options: object
) -> str:
    settings = parse(f'[application]\napp = "shop:app"\nsession_cookie = "sid"\n{application}{more}')
    chosen = {
        "name": "shop",
        "machines": machines.machines(these, settings),
        "peers": machines.peers(peers),
    } | options
    return compose.compose(compose.Options(**chosen), settings, "lbctl haproxy-config")  # type: ignore[arg-type]


VARIANTS = {
    "one machine, no agent": [written(ONE, bind=[":80"])],
    "three machines": [written(THREE, AGENT, host="www.example.com", mount="/shop", bind=[":80", "[::]:8080"])],
    "a pair": [written(THREE, AGENT, peers=PAIR, bind=[":80"])],
    "IPv6": [written(V6, V6_AGENT, host="[fd00::1]:8080", peers=("lb1=[fd00::1]:10000", "lb2=[fd00::2]:10000"))],
    "no frontend": [written(THREE, AGENT)],
    "long sessions, long answers": [
        written(ONE, "[adaptor]\nanswer_timeout = 3e7\nwait = 3e7\n", LONG, bind=[":80"])
    ],
    "several applications": [
        written(THREE, AGENT, bind=[":80"]),
        written(THREE, AGENT, 'ticket_cookie = "__BOARD__"\n', name="board", bind=[":81"]),
    ],
}


@pytest.mark.parametrize("base", ["Debian's", "the least"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_haproxy_accepts_it(variant: str, base: str, tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    assert haproxy, "apache/install.sh test installs haproxy"
    first = DEBIANS
    if base != "Debian's":
        first = tmp_path / "least.cfg"
        first.write_text(LEAST)
    files = [first]
    for number, text in enumerate(VARIANTS[variant]):
        files.append(tmp_path / f"{number}.cfg")
        files[-1].write_text(text)
    # The pair's HAProxies are told their names by -L: this machine has another one.
    command = [haproxy, "-c", "-L", "lb1", *(word for file in files for word in ("-f", str(file)))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("[ALERT]"), done.stderr.count("[WARNING]")) == (0, 0, 0), done.stderr
