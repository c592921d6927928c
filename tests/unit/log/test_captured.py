"""The file of an AppServer, as its process writes it: nothing raises, and it does not grow for ever."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbadaptor.log import captured
from lbadaptor.log.captured import KEPT, MOST_UNREAD, CapturedFile


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "0.1", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    yield descriptor
    os.close(descriptor)


def content(file: int) -> bytes:
    return Path(f"/proc/self/fd/{file}").read_bytes()


def test_what_nobody_reads_is_given_back(file: int) -> None:
    log = CapturedFile(file)
    for _ in range(12):
        os.write(file, b"x" * (1 << 20))
        log.flush()
        assert os.fstat(file).st_blocks * 512 <= MOST_UNREAD + (1 << 20)
    assert os.fstat(file).st_size == 12 << 20
    assert os.lseek(file, 0, os.SEEK_DATA) == (9 << 20) - KEPT
    log.close()


def test_where_there_are_no_holes_the_file_is_emptied(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "_fallocate", lambda *_: 95)  # EOPNOTSUPP
    log = CapturedFile(file)
    os.write(file, b"x" * (MOST_UNREAD + 4096))
    log.flush()
    log.write(b"<6>on\n")
    assert content(file) == b"<6>on\n"
    log.close()


def test_a_full_disk_costs_lines_which_are_counted(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturedFile(file)
    real = os.write

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write(b"<6>one\n<6>two\n")
        log.write(b"<6>three\n")
        log.flush()
    assert os.write is real
    log.flush()
    log.write(b"<6>four\n")
    assert content(file) == b"<4>3 lines of the log lost: No space left on device\n<6>four\n"
    log.close()


def test_the_application_closes_descriptors(file: int) -> None:
    log = CapturedFile(file)
    os.close(log._descriptor)
    reader, writer = os.pipe()  # a visitor's connection gets the number
    os.dup2(writer, log._descriptor)
    log.write(b"<6>lost\n")
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.dup2(file, log._descriptor)
    log.write(b"<6>on\n")
    assert content(file) == b"<4>1 line of the log lost: the application has closed the log's descriptor\n<6>on\n"
    for descriptor in (reader, writer):
        os.close(descriptor)
    log.close()


def test_a_limit_for_files_does_not_end_the_log(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, by [appservers] limits: holes count. The process is another one, which may have the limit."""
    script = """
import os, sys
from lbadaptor.log import logs
logs.to_captured()
for number in range(32):
    print("x" * 999)
    logs.flush()
logs.logger("test").error("still %s", "here")
"""
    limit = 10_500
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    file = os.open(tmp_path / "0.1", flags, 0o640)
    subprocess.run(
        [sys.executable, "-c", script],
        stdout=file,
        stderr=file,
        timeout=60,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    os.close(file)
    said = (tmp_path / "0.1").read_text()
    assert said.endswith("x" * 999 + "\n<3>still here\n")
    assert len(said) <= limit


def test_print_appears_at_once_and_fails_on_no_full_disk(tmp_path: Path) -> None:
    script = """
import os, sys
from lbadaptor.log import logs
logs.to_captured()
print("a line"); sys.stderr.write("another\\n"); sys.stdout.buffer.write(b"bytes\\n")
print("half \\ud800", end="", flush=True)
print("never written", end="")
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
print("nowhere")
os._exit(0)
"""
    with open(tmp_path / "0.1", "ab") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, stderr=file, timeout=60, check=True)
    assert (tmp_path / "0.1").read_bytes() == b"a line\nanother\nbytes\nhalf \\ud800"
