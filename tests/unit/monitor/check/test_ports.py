"""Who has the AppServers' ports, and who reaches them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from fake import facts, said, settings

from monitor.check import ports
from monitor.check.finding import CannotCheck, NotAllowed
from monitor.check.listeners import Listener, parse

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "   0: {}:2329 00000000:0000 {} 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0\n"


@pytest.mark.parametrize(
    ("address", "host", "local"),
    [
        ("0100007F", "127.0.0.1", True),
        ("00000000", "0.0.0.0", False),
        ("0A01A8C0", "192.168.1.10", False),
        ("00000000000000000000000001000000", "::1", True),
        ("00000000000000000000000000000000", "::", False),
        ("0000000000000000FFFF00000100007F", "::ffff:127.0.0.1", True),
    ],
)
def test_what_the_kernel_tells(address: str, host: str, local: bool) -> None:
    (one,) = parse(HEAD + ROW.format(address, "0A") + ROW.format(address, "01"))
    assert (one.port, one.uid, one.inode, one.is_local) == (0x2329, 1000, 4242, local)
    assert one.host.replace("7f00:1", "127.0.0.1") == host


@pytest.mark.parametrize(
    ("host", "wrong"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("10.0.0.7", True), ("::", True)],
)
def test_a_host_that_others_reach(host: str, wrong: bool) -> None:
    found = said(ports.reachable(facts(settings(appservers={"host": host}), listeners=[])))
    assert ["other machines reach the AppServers" in one for one in found] == [True] * wrong


def test_an_appserver_of_before_that_others_reach(tmp_path: Path) -> None:
    """Other programs do not count."""
    given = settings(files={"run_folder": str(tmp_path)}, appservers={"base_port": 9001})
    line = "0.1763805600123.djSVEImjAiUubd9BTOgTSefr9MZK3o61uvta2_ezQas 0.0.0.0:9001 OK 0 1763805600123 100 41"
    given.address_file.write_text(f"# address.text 1\n{line}\n")
    for host, wrong in (("0.0.0.0", True), ("127.0.0.1", False)):
        found = said(
            ports.reachable(facts(given, listeners=[Listener(host, 9001, 0, 1), Listener("0.0.0.0", 9002, 0, 2)]))
        )
        assert ["an AppServer listens on 0.0.0.0:9001" in one for one in found] == [True] * wrong


def taken(tmp_path: Path, status: object) -> list[str]:
    """What is said while somebody listens on the first port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        given = settings(
            files={"run_folder": str(tmp_path)}, appservers={"base_port": port, "servers": 1, "slots": 1}
        )
        if isinstance(status, dict):
            status["appservers"][0]["address"] = f"127.0.0.1:{port}"
        return said(ports.taken(facts(given, status=status, listeners=[])))


def test_the_port_of_an_appserver_that_ends_is_nobody_elses(tmp_path: Path) -> None:
    """It is in address.text no more."""
    none = CannotCheck("no monitor runs")
    assert ["are somebody else's" in one for one in taken(tmp_path, none)] == [True]
    assert taken(tmp_path, {"appservers": [{"pid": 42}]}) == []
    failed = {"appservers": [{"pid": None}]}
    assert ["are somebody else's" in one for one in taken(tmp_path, failed)] == [True]


def test_who_may_not_look_does_not_know_whose_a_port_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(NotAllowed, match=r"address\.text; ask as root"):
        taken(tmp_path, NotAllowed("me", "ask the monitor"))
