"""A process that has the folder of sessions open, as an AppServer has."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[5]

OWNER = """
import json, os, signal, sys, time
from lbadaptor.appserver.sessions.persistence import folder as folders, format, safe_open, sweep

def told(found):
    if isinstance(found, folders.Taken):
        return ["taken", found.data.rstrip(bytes(1)).decode("latin-1"), found.died]
    return found and list(found)

folder = folders.SessionFolder(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
folder.open()
print(json.dumps("open"), flush=True)
for line in sys.stdin:
    text, values = json.loads(line)
    globals().update(values)
    result = None
    exec(text)
    print(json.dumps(result), flush=True)
folder.close()
"""


class Owner:
    """The process of an AppServer, with its folder open. It executes texts, and answers with their `result`."""

    def __init__(self, root: Path, slot: int, generation: int) -> None:
        arguments = [sys.executable, "-c", OWNER, str(root), str(slot), str(generation)]
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": ""},
        )

    def begin(self, text: str, **values: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([text, values]) + "\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        """Of what was begun first and has not been asked for."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process has ended: {self.process.wait()}"
        return json.loads(line)

    def run(self, text: str, **values: object) -> Any:
        self.begin(text, **values)
        return self.result()

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """For its end; its exit status."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return self.process.wait(30)
