"""Arrows point one way: what a folder may import is said once for each folder, and no modules import in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "lbadaptor.log": (),
    "lbadaptor.contract": (),
    "lbadaptor.contract.settings.sections": (),
    "lbadaptor.contract.settings": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings.sections"),
    ),
    "lbadaptor.http1": ("lbadaptor.contract",),
    "lbadaptor.adaptor": ("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings", "lbadaptor.http1"),
    "lbadaptor.appserver.process": ("lbadaptor.log",),
    "lbadaptor.appserver.wsgi": ("lbadaptor.log", "lbadaptor.contract", "lbadaptor.http1"),
    "lbadaptor.appserver.sessions.stores": (),
    "lbadaptor.appserver.sessions": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.http1", "lbadaptor.appserver.wsgi"),
    ),
    "lbadaptor.appserver.sessions.persistence": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.appserver.wsgi"),
        *("lbadaptor.appserver.sessions.stores", "lbadaptor.appserver.sessions"),
    ),
    "lbadaptor.appserver.http": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.http1", "lbadaptor.appserver.process"),
        *("lbadaptor.appserver.wsgi", "lbadaptor.appserver.sessions", "lbadaptor.appserver.sessions.persistence"),
    ),
    "lbadaptor.appserver": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.appserver.process"),
        *("lbadaptor.appserver.sessions.stores", "lbadaptor.appserver.sessions"),
        *("lbadaptor.appserver.sessions.persistence", "lbadaptor.appserver.http"),
    ),
    "lbadaptor.examples": (),
    "lbadaptor": ("lbadaptor.contract", "lbadaptor.adaptor"),
    "monitor.contract": ("lbadaptor.log", "lbadaptor.contract"),
    "monitor.policy": ("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings", "monitor.contract"),
    "monitor.watcher.lines": ("lbadaptor.log", "monitor.contract"),
    "monitor.watcher": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.adaptor", "monitor.contract", "monitor.watcher.lines"),
    ),
    "monitor.arbiter.files": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings", "monitor.contract"),
        *("monitor.policy",),
    ),
    "monitor.arbiter.processes": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings"),
        *("lbadaptor.appserver.process", "monitor.contract", "monitor.policy", "monitor.arbiter.files"),
    ),
    "monitor.arbiter": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings"),
        *("lbadaptor.appserver.sessions", "monitor.contract", "monitor.policy", "monitor.arbiter.files"),
        *("monitor.arbiter.processes",),
    ),
    "monitor.apacheconfig": ("lbadaptor.contract", "lbadaptor.contract.settings", "monitor.contract"),
    "monitor.haproxyconfig": ("lbadaptor.contract", "lbadaptor.contract.settings"),
    "monitor.check": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings", "monitor.contract"),
        *("monitor.arbiter.files", "monitor.arbiter.processes", "monitor.apacheconfig", "lbadaptor"),
    ),
    "monitor.install": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings", "monitor.contract"),
        *("monitor.apacheconfig", "monitor.check"),
    ),
    "monitor.ctl.terminal": (),
    "monitor.ctl.commands": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings"),
        *("lbadaptor.appserver.process", "monitor.contract", "monitor.watcher.lines", "monitor.watcher"),
        *("monitor.arbiter.files", "monitor.arbiter.processes", "monitor.arbiter"),
        *("monitor.apacheconfig", "monitor.haproxyconfig", "monitor.check", "monitor.install"),
        *("monitor.ctl.terminal",),
    ),
    "monitor.ctl": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor", "monitor.contract", "monitor.ctl.commands"),
    ),
    "monitor.demo": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings", "monitor.contract"),
        *("monitor.apacheconfig", "monitor.haproxyconfig", "monitor.ctl.terminal", "monitor.ctl.commands"),
        *("lbadaptor.examples",),
    ),
    "monitor": (
        *("lbadaptor.log", "lbadaptor.contract", "lbadaptor.contract.settings", "lbadaptor"),
        *("monitor.arbiter", "monitor.check"),
    ),
}
"""By folder, from the ground to the roof: what its modules may import besides each other."""

PURE = ("lbadaptor.http1", "monitor.policy")
"""No socket, no file, no process, no clock."""
OUTSIDE = frozenset(
    (
        *("socket", "select", "selectors", "ssl", "subprocess", "os", "time", "pathlib", "fcntl", "mmap"),
        *(
            "tempfile",
            "shutil",
            "signal",
            "io",
            "http",
            "urllib",
            "asyncio",
            "multiprocessing",
            "ctypes",
        ),
    )
)


@cache
def modules() -> dict[str, Path]:
    """Every module by its name, a package by its folder's."""
    files = [file for top in ("lbadaptor", "monitor") for file in TOP.glob(f"{top}/**/*.py")]
    names = (str(file.relative_to(TOP).with_suffix("")).replace("/", ".").removesuffix(".__init__") for file in files)
    return dict(zip(names, files, strict=True))


def folder(module: str) -> str:
    return module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]


def imported(module: str) -> Iterator[str]:
    """Everything that a module imports, within functions too, as `package.module`."""
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else str(node.module)


@cache
def inner(module: str) -> frozenset[str]:
    """What a module imports of this project."""
    return frozenset(found for found in imported(module) if found in modules()) - {module}


def test_every_folder_has_its_place() -> None:
    assert {folder(module) for module in modules()} == set(MAY_IMPORT)


def test_folders_import_only_what_is_below_them() -> None:
    """So there is no circle of folders."""
    below: set[str] = set()
    for place, others in MAY_IMPORT.items():
        above = {"lbadaptor"} if place == "lbadaptor" else set()
        assert set(others) <= below | above, f"{place} stands before what it imports"
        below.add(place)


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_a_folder_imports_what_it_may(place: str) -> None:
    wrong = [
        f"{module} imports {found}"
        for module in modules()
        if folder(module) == place
        for found in inner(module)
        if folder(found) not in (place, *MAY_IMPORT[place])
    ]
    assert wrong == []


def test_no_folder_may_import_what_it_does_not() -> None:
    """The table above says no more than is."""
    used = {(folder(module), folder(found)) for module in modules() for found in inner(module)}
    assert {(place, other) for place, others in MAY_IMPORT.items() for other in others} - used == set()


def users(library: str) -> set[str]:
    """The folders whose modules import a library, within functions too."""
    return {
        folder(module)
        for module in modules()
        if any(found.partition(".")[0] == library for found in imported(module))
    }


@pytest.mark.parametrize("library", ["click", "rich"])
def test_libraries_of_the_command_line_stay_there(library: str) -> None:
    """Apache's processes, AppServers and the monitor neither wait for them nor break with them."""
    assert users(library) <= {"monitor.ctl", "monitor.ctl.commands", "monitor.ctl.terminal"}


def test_what_runs_on_a_site_does_not_need_the_demos_http_client() -> None:
    assert users("requests") == {"monitor.demo"}


def test_there_is_no_circle() -> None:
    """Of modules, without exceptions."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for found in sorted(inner(module)):
                visit(found, (*path, module))
            done.add(module)

    for module in sorted(modules()):
        visit(module, ())


@pytest.mark.parametrize("place", PURE)
def test_pure_folders_touch_nothing_outside(place: str) -> None:
    wrong = [
        f"{module} imports {found}"
        for module in modules()
        if folder(module) == place
        for found in imported(module)
        if found.partition(".")[0] in OUTSIDE
    ]
    assert wrong == []
