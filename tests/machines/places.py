"""Where machines live: in namespaces, joined by a bridge; or, for an ordinary user, on loopback addresses.

With namespaces of the network alone, faults that come from equal pids would hide: each machine has its own of pid,
uts and mount, too. To cut a machine off is to set its port of the bridge down: what is sent is lost, and nobody says
so. It loses power when the init of its pid namespace is killed.

On loopback all machines share the kernel's network and pids. To cut one off is to stop all its processes, and a power
loss kills them: peers see connections end, which a real loss of power does not tell them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from tests.apache.resources import TIMEOUT, eventually, processes_of
from tests.ports import free_ports, give_back
from tests.torture.stage import children

from .host import Plan

HOST = Path(__file__).with_name("host.py")
NETWORK = "10.77.0"
DISK_SIZE = 16 * 2**20
"""Bytes of the file system of a machine's key file and session files."""
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""The command ends when this process does, however that ends."""


class Place(Protocol):
    """What both kinds of places can do. A machine is named by its Plan."""

    words: str
    """for people"""
    front: str
    """the address of HAProxy, as machines see it"""
    own_file_systems: bool
    """run folders and disks are file systems of their own, which can be full"""

    def plan(self, name: str, turn: int, folder: Path) -> Plan:
        """A machine's address and ports; `turn` is another one for each machine."""

    def ports(self, turn: int) -> tuple[int, int]:
        """The base port of its AppServers, and the port of its agent."""

    def make_disk(self, folder: Path) -> None:
        """A disk that outlives the machine's power."""

    def boot(self, plan: Plan) -> subprocess.Popen[bytes]:
        """Switch a machine on."""

    def seen(self, plan: Plan, path: Path) -> Path:
        """A file of a machine, seen from here."""

    def command(self, plan: Plan, words: Sequence[str]) -> list[str]:
        """A command that runs on a machine, as over ssh."""

    def cut(self, plan: Plan) -> None:
        """Nothing reaches the machine, and nothing comes from it."""

    def heal(self, plan: Plan) -> None:
        """Undo that."""

    def power_loss(self, plan: Plan) -> None:
        """Everything on the machine ends at once."""

    def front_port(self) -> int:
        """Another port for HAProxy."""

    def visiting(self) -> contextlib.AbstractContextManager[None]:
        """What this thread does, and the threads and processes that it starts, is done at the front."""

    def close(self) -> None:
        """After the machines."""


def place(folder: Path) -> Place:
    """The best one that this user can have."""
    return Namespaces(folder) if os.geteuid() == 0 else Loopback(folder)


class Namespaces:
    """Only for root. Everything is gone when this process ends, however that ends."""

    words = "in namespaces of its own (net, pid, uts, mount), joined by a bridge"
    front = f"{NETWORK}.1"
    own_file_systems = True

    def __init__(self, folder: Path) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        self._boots: dict[str, int] = {}
        self._inits: dict[str, int] = {}
        self._front_port = 8000
        self._switch = self._hold("net", "mnt")
        self._front = self._hold("net")
        self._ip(self._switch, "link add switch type bridge", "link set switch up")
        self._join(self._front, "front", self.front)

    def plan(self, name: str, turn: int, folder: Path) -> Plan:
        return Plan(name, str(folder), f"{NETWORK}.{10 + turn}", 8080, is_own=True)

    def ports(self, turn: int) -> tuple[int, int]:
        return 9000, 9900  # the same on all

    def make_disk(self, folder: Path) -> None:
        folder.mkdir()
        options = f"size={DISK_SIZE},mode=0711,nosuid,nodev"
        self._run("nsenter", f"--mount={self._path(self._switch, 'mnt')}", "mount", "-t", "tmpfs", "-o", options,
                  folder.parent.name, str(folder))  # fmt: skip

    def boot(self, plan: Plan) -> subprocess.Popen[bytes]:
        command = [*WITH_US, "nsenter", f"--mount={self._path(self._switch, 'mnt')}", "unshare", "--mount", "--net",
                   "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", *_host(plan)]  # fmt: skip
        process = _start(command, plan)
        self._inits[plan.name] = init = eventually("the machine's init", lambda: children(process.pid))[0]
        eventually("its network", lambda: _is_another(init, "net"))
        self._boots[plan.name] = self._boots.get(plan.name, 0) + 1
        self._join(init, self._port(plan), plan.address)
        _go(process)
        return process

    def seen(self, plan: Plan, path: Path) -> Path:
        init = self._inits.get(plan.name, 0)
        holder = init if os.path.exists(f"/proc/{init}/root/") else self._switch
        return Path(f"/proc/{holder}/root{path}")

    def command(self, plan: Plan, words: Sequence[str]) -> list[str]:
        target = f"--target={self._inits[plan.name]}"
        return ["nsenter", target, "--mount", "--net", "--pid", "--uts", "--", *words]

    def cut(self, plan: Plan) -> None:
        self._ip(self._switch, f"link set {self._port(plan)} down")

    def heal(self, plan: Plan) -> None:
        self._ip(self._switch, f"link set {self._port(plan)} up")

    def power_loss(self, plan: Plan) -> None:
        self.cut(plan)
        os.kill(self._inits[plan.name], signal.SIGKILL)

    def front_port(self) -> int:
        self._front_port += 1
        return self._front_port

    @contextlib.contextmanager
    def visiting(self) -> Iterator[None]:
        with open("/proc/thread-self/ns/net") as before, open(self._path(self._front, "net")) as front:
            _enter(front)
            try:
                yield
            finally:
                _enter(before)

    def close(self) -> None:
        for holder in reversed(self._holders):
            holder.communicate(timeout=TIMEOUT)

    def _hold(self, *kinds: str) -> int:
        """A process that keeps new namespaces of these kinds alive: its pid."""
        options = {"net": "--net", "mnt": "--mount"}
        command = [*WITH_US, "unshare", *(options[kind] for kind in kinds), "--", "cat"]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self._holders.append(holder)
        for kind in kinds:
            eventually("a namespace", lambda kind=kind: _is_another(holder.pid, kind))
        return holder.pid

    def _join(self, pid: int, port: str, address: str) -> None:
        """A cable from the bridge to a network namespace, whose card keeps its hardware address over reboots."""
        card = "02:00:00:00:00:{:02x}".format(int(address.rpartition(".")[2]))
        self._ip(
            self._switch,
            f"link add {port} type veth peer name eth0 address {card} netns {pid}",
            f"link set {port} master switch",
            f"link set {port} up",
        )
        self._ip(pid, "link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up")

    def _port(self, plan: Plan) -> str:
        """Of the bridge: another one after each boot, for the kernel takes the old one away when it comes to it."""
        return f"{plan.name}.{self._boots[plan.name]}"

    def _ip(self, pid: int, *lines: str) -> None:
        self._run("nsenter", f"--net={self._path(pid, 'net')}", "ip", "-batch", "-", lines=lines)

    @staticmethod
    def _run(*command: str, lines: Sequence[str] = ()) -> None:
        text = "".join(f"{line}\n" for line in lines)
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, f"{command} {text}: {done.stderr}"

    @staticmethod
    def _path(pid: int, kind: str) -> str:
        return f"/proc/{pid}/ns/{kind}"


class Loopback:
    """For an ordinary user, on 127.0.0.11 and the following addresses."""

    words = "on a loopback address of its own (to cut one off is to stop its processes)"
    front = "127.0.0.1"
    own_file_systems = False

    def __init__(self, folder: Path) -> None:
        self._given: list[int] = []

    def plan(self, name: str, turn: int, folder: Path) -> Plan:
        return Plan(name, str(folder), f"127.0.0.{10 + turn}", self._ports(1))

    def ports(self, turn: int) -> tuple[int, int]:
        return self._ports(20), self._ports(1)

    def make_disk(self, folder: Path) -> None:
        folder.mkdir(mode=0o711)

    def boot(self, plan: Plan) -> subprocess.Popen[bytes]:
        shutil.rmtree(f"{plan.folder}/run")
        Path(plan.folder, "run").mkdir(mode=0o711)
        process = _start([*WITH_US, *_host(plan)], plan)
        _go(process)
        return process

    def seen(self, plan: Plan, path: Path) -> Path:
        return path

    def command(self, plan: Plan, words: Sequence[str]) -> list[str]:
        return list(words)

    def cut(self, plan: Plan) -> None:
        for pid in processes_of(Path(plan.folder)):
            os.kill(pid, signal.SIGSTOP)

    def heal(self, plan: Plan) -> None:
        for pid in processes_of(Path(plan.folder)):
            os.kill(pid, signal.SIGCONT)

    def power_loss(self, plan: Plan) -> None:
        self.cut(plan)
        while left := processes_of(Path(plan.folder)):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def front_port(self) -> int:
        return self._ports(1)

    @contextlib.contextmanager
    def visiting(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        for first in self._given:
            give_back(first)

    def _ports(self, count: int) -> int:
        first = free_ports(count)
        self._given.append(first)
        return first


def _host(plan: Plan) -> list[str]:
    return [sys.executable, "-I", "-B", str(HOST), plan.to_json()]


def _start(command: Sequence[str], plan: Plan) -> subprocess.Popen[bytes]:
    with Path(plan.folder, "host.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)


def _go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


def _is_another(pid: int, kind: str) -> bool:
    """Whether a process has left our namespace of this kind."""
    return os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def _enter(namespace: IO[str]) -> None:
    """setns(2) of this thread; os.setns is there since Python 3.12."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
        raise OSError(ctypes.get_errno(), f"setns {namespace.name}")
