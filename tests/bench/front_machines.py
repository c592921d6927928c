"""Simulated machines, as HAProxy sees them: for `front_scale`. One process for all, on a loopback address each.

    python -m tests.bench.front_machines FOLDER MACHINES WEB_PORT AGENT_PORT

They answer requests, health checks, and the agent-check. Orders come to FOLDER/orders.sock, a line each:

    word FIRST COUNT WORDS…    the machines FIRST … say WORDS to the agent-check from now on
    told                       what they have seen since the last `word`, as JSON
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sys
import time
from pathlib import Path

TICKET_COOKIE = "__PRT__"
BODY = b"x" * 100
HEALTH = b"/__lb__/health"
CLOSE = b"onnection: close"
BEGIN = b"GET /begin"
"""A visitor without a ticket, who gets one."""
_find_machine = re.compile(rb"__PRT__=(\d+)\.").search


def address(machine: int) -> str:
    return f"127.20.{machine // 250}.{machine % 250 + 1}"


def ticket(number: int, machines: int) -> str:
    """As long as a real one, of AppServer `number` of all. Its slot is the machine, unlike in real ones."""
    signature = base64.urlsafe_b64encode(hashlib.sha256(str(number).encode()).digest())[:43].decode()
    return f"{number % machines}.{1_763_805_600_000_000 + number}.{signature}"


class Machines:
    """What all of them have in common."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.number = {address(machine): machine for machine in range(count)}
        self.words = [b"up 100%\n"] * count
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(BODY)}\r\n"
        self.answer = f"{head}\r\n".encode() + BODY
        self.begins = [
            f"{head}Set-Cookie: sid=0123456789abcdef; Path=/\r\n"
            f"Set-Cookie: {TICKET_COOKIE}={ticket(machine, count)}; Path=/; HttpOnly\r\n\r\n".encode()
            + BODY
            for machine in range(count)
        ]
        self.clear()

    def clear(self) -> None:
        self.since = time.monotonic()
        self.last_begun: dict[int, float] = {}
        self.counts = {"health": 0, "agent": 0, "strays": 0, "requests": 0}

    def order(self, line: str) -> str:
        order, *rest = line.split(" ", 3)
        if order == "told":
            return json.dumps(
                {"last_begun": self.last_begun, "seconds": time.monotonic() - self.since, **self.counts}
            )
        first, count, words = int(rest[0]), int(rest[1]), rest[2]
        self.words[first : first + count] = [f"{words}\n".encode()] * count
        self.clear()
        return ""


class Web(asyncio.Protocol):
    def __init__(self, machines: Machines) -> None:
        self.machines = machines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.machine = self.machines.number[transport.get_extra_info("sockname")[0]]

    def data_received(self, data: bytes) -> None:
        """HAProxy sends each of these small requests at once."""
        machines = self.machines
        if data.startswith(BEGIN):
            machines.last_begun[self.machine] = time.monotonic() - machines.since
            self._answer(machines.begins[self.machine], data)
            return
        if HEALTH in data:
            machines.counts["health"] += 1
        else:
            machines.counts["requests"] += 1
            found = _find_machine(data)
            machines.counts["strays"] += found is None or int(found[1]) != self.machine
        self._answer(machines.answer, data)

    def _answer(self, answer: bytes, asked: bytes) -> None:
        self.transport.write(answer)
        if CLOSE in asked:
            self.transport.close()


class Agent(asyncio.Protocol):
    def __init__(self, machines: Machines) -> None:
        self.machines = machines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.machines.counts["agent"] += 1
        transport.write(self.machines.words[self.machines.number[transport.get_extra_info("sockname")[0]]])
        transport.close()


async def main(folder: Path, count: int, web_port: int, agent_port: int) -> None:
    machines = Machines(count)
    loop = asyncio.get_running_loop()
    addresses = list(machines.number)

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = machines.order((await reader.readline()).decode().rstrip("\n"))
        writer.write(answer.encode())
        writer.close()

    await loop.create_server(lambda: Agent(machines), addresses, agent_port, backlog=1024)
    await loop.create_server(lambda: Web(machines), addresses, web_port, backlog=1024)
    orders = await asyncio.start_unix_server(obey, folder / "orders.sock")
    await orders.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
