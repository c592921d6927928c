"""A rename that replaces nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbadaptor.appserver.sessions.persistence import rename
from lbadaptor.appserver.sessions.persistence.rename import rename_new

Rename = Callable[..., None]


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[tuple[int, int]]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    descriptors = [os.open(tmp_path / name, os.O_RDONLY) for name in ("one", "other")]
    yield descriptors[0], descriptors[1]
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture(params=["known", errno.EINVAL, errno.ENOSYS, errno.EPERM, "none"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows renameat2, or not, or a C library that does not."""
    if request.param == "none":
        monkeypatch.setattr(rename, "_libc", object())
    elif request.param != "known":
        monkeypatch.setattr(rename, "_renameat2", lambda *_: request.param)


@pytest.mark.usefixtures("_kernel")
def test_it_moves(folders: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "one" / "name").write_text("content")
    rename_new("name", *folders)
    assert not (tmp_path / "one" / "name").exists()
    assert (tmp_path / "other" / "name").read_text() == "content"
    rename_new("name", folders[1], folders[0], "new")
    assert (tmp_path / "one" / "new").read_text() == "content"


@pytest.mark.usefixtures("_kernel")
def test_it_replaces_nothing(folders: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "one" / "name").write_text("content")
    for what in (
        lambda path: path.write_text("other"),
        lambda path: path.symlink_to("/nonexistent"),
        lambda path: path.mkdir(),
        lambda path: path.hardlink_to(tmp_path / "one" / "name"),
    ):
        there = tmp_path / "other" / "name"
        what(there)
        before = there.lstat().st_ino
        with pytest.raises(FileExistsError):
            rename_new("name", *folders)
        assert there.lstat().st_ino == before
        assert (tmp_path / "one" / "name").read_text() == "content"
        there.rmdir() if there.is_dir() else there.unlink()


@pytest.mark.usefixtures("_kernel")
def test_what_is_not_there_raises(folders: tuple[int, int]) -> None:
    with pytest.raises(FileNotFoundError):
        rename_new("name", *folders)
