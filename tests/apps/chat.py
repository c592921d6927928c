"""A python-socketio server of long polling: the connections of its clients live in the memory of its process."""

from __future__ import annotations

import os
import threading
from typing import Any

import socketio

TICK = float(os.environ.get("CHAT_TICK", "0.2"))
"""Seconds between two of the numbers that every client is sent."""

server = socketio.Server(
    async_mode="threading",
    transports=["polling"],
    ping_interval=float(os.environ.get("CHAT_PING_INTERVAL", "25")),
    cookie=os.environ.get("CHAT_COOKIE") or None,
)
application = socketio.WSGIApp(server)

_sent: dict[str, int] = {}
_said: dict[str, int] = {}
_lock = threading.Lock()


def connected() -> int:
    """How many clients are connected to this process. (A closed one is swept away some time later.)"""
    return sum(not client.closed for client in server.eio.sockets.copy().values())


@server.event
def connect(sid: str, environ: dict[str, Any]) -> None:
    with _lock:
        _sent[sid] = _said[sid] = 0
    server.start_background_task(_tick, sid)


@server.event
def disconnect(sid: str, reason: str) -> None:
    with _lock:
        del _sent[sid], _said[sid]


@server.event
def say(sid: str, text: str) -> dict[str, Any]:
    """The answer has the pid of this process, and how many messages this client has sent."""
    with _lock:
        _said[sid] += 1
        return {"received": text, "pid": os.getpid(), "said": _said[sid]}


def _tick(sid: str) -> None:
    """Send one client 1, 2, 3 … as long as it is connected."""
    while True:
        with _lock:
            if sid not in _sent:
                return
            _sent[sid] += 1
            number = _sent[sid]
        server.emit("tick", number, to=sid)
        server.sleep(TICK)
