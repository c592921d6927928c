"""A private HAProxy with the sections that `lbctl haproxy-config` writes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from cluster import Cluster, Site

from monitor.demo.httpd import dies_with_us
from monitor.haproxyconfig import compose, machines
from tests.apache.resources import TIMEOUT, eventually
from tests.ports import free_ports, give_back

BEGIN = """global
    stats socket {folder}/admin.sock level admin
    maxconn 200
defaults
    log stdout format raw local0
    option httplog
"""


class HaProxy:
    """In front of sites of one cluster, each of them a machine: web0, web1 … `port` is for http, `tls` for https."""

    def __init__(self, cluster: Cluster, *sites: Site) -> None:
        self._ports = self.port, self.tls, peer = free_ports(), free_ports(), free_ports()
        self.folder = cluster.folder / f"haproxy{self.port}"
        self.folder.mkdir()
        self._certificate()
        named = [f"web{number}=127.0.0.1:{site.port}" for number, site in enumerate(sites)]
        options = compose.Options(
            name="shop",
            machines=machines.machines(named, cluster.settings),
            peers=machines.peers([f"{socket.gethostname()}=127.0.0.1:{peer}"]),
            bind=[f"127.0.0.1:{self.port}", f"127.0.0.1:{self.tls} ssl crt {self.folder}/both.pem"],
        )
        config = self.folder / "haproxy.cfg"
        config.write_text(BEGIN.format(folder=self.folder) + compose.compose(options, cluster.settings, "a test"))
        self._log = self.folder / "log"
        binary = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        assert binary, "apache/install.sh test installs haproxy"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*dies_with_us(), binary, "-db", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually("HAProxy answers", self._answers)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def say(self, command: str) -> str:
        """The answer on the stats socket."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(TIMEOUT)
            admin.connect(str(self.folder / "admin.sock"))
            admin.sendall(f"{command}\n".encode())
            answer = b""
            while more := admin.recv(65536):
                answer += more
        return answer.decode()

    def of_server(self, server: str, column: str) -> str:
        """What `show stat` has in a column."""
        head, *rows = self.say("show stat").removeprefix("# ").splitlines()
        place = head.split(",").index(column)
        return next(row.split(",")[place] for row in rows if row.split(",")[:2] == ["shop", server])

    def table(self) -> list[str]:
        """The keys of the stick table."""
        return [
            word.removeprefix("key=")
            for line in self.say("show table shop").splitlines()
            for word in line.split()
            if word.startswith("key=")
        ]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for port in self._ports:
            give_back(port)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log()
        try:
            return self.of_server("web0", "check_status") == "L7OK"
        except OSError:
            return False

    def _certificate(self) -> None:
        made = self.folder / "both.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", "/CN=localhost"),
                *("-keyout", self.folder / "key", "-out", self.folder / "cert"),
            ],
            check=True,
            capture_output=True,
        )
        made.write_text(Path(self.folder, "key").read_text() + Path(self.folder, "cert").read_text())
