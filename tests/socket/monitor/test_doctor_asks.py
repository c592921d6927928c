"""What `lbctl doctor` finds at sockets of this machine."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.contract.settings import Application, AppServers, Files, Settings
from monitor.check import ports, readable
from monitor.check.access import Inode, Who
from monitor.check.facts import Facts
from monitor.check.finding import CannotCheck
from monitor.check.listeners import Listener, listeners, owner
from monitor.contract import client

APACHE = Who("www-data", 33, frozenset((33,)), "www-data")


def about(folder: Path, servers: AppServers | None = None, **known: Any) -> Facts:
    files = Files(run_folder=str(folder), key_file=str(folder / "keys"))
    settings = Settings(Application("shop:app", "sid"), files, servers or AppServers(), folder="/")
    return Facts(settings, folder / "shop.toml", **known)


def test_the_process_at_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (mine,) = [one for one in listeners() if one.port == server.getsockname()[1] and one.is_local]
        assert owner(mine).startswith(f"process {os.getpid()} (")
    assert owner(Listener("127.0.0.1", 1, os.getuid(), 0)).startswith("a process of user ")


def test_a_port_that_is_taken_is_named_with_its_owner(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = ports.taken(about(tmp_path, AppServers(servers=1, slots=1, base_port=port)))
    assert f"ports {port} on 127.0.0.1 are somebody else's: process {os.getpid()} (" in found.what


@pytest.mark.parametrize(
    ("mode", "apache", "everybody"), [(0o600, True, False), (0o660, False, False), (0o666, False, True)]
)
def test_sockets_that_apache_cannot_use_or_everybody_can(
    tmp_path: Path, mode: int, apache: bool, everybody: bool
) -> None:
    one = about(tmp_path)
    folder = one.settings.socket_folder
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "0"))
        rows = {above: Inode(above, 0, 0, stat.S_IFDIR | 0o755) for above in (folder / "0").parents}
        rows[folder / "0"] = Inode(folder / "0", 990, 33, stat.S_IFSOCK | mode)
        config = one.config
        dump = f"SetEnv LBADAPTOR_CONFIG {config}\nLoaded Modules:\n wsgi_module (shared)\n"
        one = about(tmp_path, inodes=rows, dump=dump, apache_user=APACHE)
        config.touch()
        rows[config] = Inode(config, 0, 0, stat.S_IFREG | 0o644)
        assert ["may not write to" in found.what for found in readable.files_of_apache(one)] == [True] * apache
        assert ["everybody can connect" in found.what for found in readable.open_to_all(one)] == [True] * everybody


def test_a_monitor_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "REPLY_TIMEOUT", 0.2)
    one = about(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(one.settings.control_socket))
        server.listen()
        with pytest.raises(CannotCheck, match="the monitor does not answer in time"):
            _ = one.status
    with pytest.raises(CannotCheck, match="the monitor does not answer in time"):
        _ = one.status  # it is not asked again
    with pytest.raises(CannotCheck, match="no monitor answers at"):
        _ = about(tmp_path).status
    one.settings.control_socket.unlink()
    with pytest.raises(CannotCheck, match="no monitor runs: there is no"):
        _ = about(tmp_path).status
