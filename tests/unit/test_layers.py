"""Arrows point one way: a module imports only what stands before it in its house."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

CONTRACT = ("words", "logs", "errors", "address", "headers", "http1", "cookies", "ticket", "settings", "snapshot")
ADAPTOR = (
    "failover",
    "suspects",
    "balance",
    "pages",
    "accepted",
    "addressfile",
    "pool",
    "body",
    "request",
    "relay",
    "visitor",
    "fleet",
)
ROOF = ("adaptor", "wsgi", "cgi", "commands")
APPSERVER = (
    *(
        "handover",
        "ledger",
        "counting",
        "cookiecheck",
        "admission",
        "vitals",
        "environ",
        "sessions",
        "affinity",
        "answer",
        "connection",
        "callers",
    ),
    *(
        "listening",
        "leadership",
        "forks",
        "starting",
        "gateway",
        "warmup",
        "stores",
        "orders",
        "main",
        "template",
        "__main__",
    ),
)
MONITOR = (
    *(
        "life",
        "messages",
        "peers",
        "record",
        "problems",
        "traces",
        "plan",
        "wholefile",
        "publish",
        "settingsfile",
        "state",
        "surroundings",
        "child",
        "template",
        "systemd",
        "threads",
        "probe",
        "discovery",
        "control",
        "strays",
        "runfolder",
        "leftovers",
        "fastlane",
        "obstacles",
        "httpd",
        "progress",
        "signals",
        "settingscheck",
        "appservers",
        "adoption",
        "link",
        "status",
        "crosscheck",
        "startcheck",
    ),
    *("arbiter", "watcher", "__main__", "ctl", "apacheconfig", "demo"),
)
LAYERS = [
    *(f"lbadaptor.{name}" for name in CONTRACT),
    *(f"lbadaptor.{name}" for name in (*ADAPTOR, *ROOF)),
    *(f"lbadaptor.appserver.{name}" for name in APPSERVER),
    "lbadaptor.examples.webware_site",
    *(f"monitor.{name}" for name in MONITOR),
]
PURE = [
    *(f"lbadaptor.{name}" for name in ("words", "errors", "address", "headers", "http1", "cookies")),
    *(f"lbadaptor.{name}" for name in ("failover", "balance", "request")),
    *(
        f"lbadaptor.appserver.{name}"
        for name in ("handover", "ledger", "counting", "cookiecheck", "admission", "sessions", "environ")
    ),
    *("lbadaptor.appserver.affinity", "lbadaptor.appserver.answer", "lbadaptor.appserver.callers"),
    *("monitor.life", "monitor.record", "monitor.problems", "monitor.plan", "monitor.messages"),
    *("monitor.fastlane", "monitor.obstacles"),
]
OUTSIDE = {"socket", "select", "selectors", "subprocess", "os", "time", "pathlib", "requests", "fcntl", "tempfile"}
AT_NEED = {("monitor.ctl", "monitor.demo"), ("monitor.ctl", "monitor.apacheconfig")}
"""Imports within a function, for the one command that needs them."""


def file_of(module: str) -> Path:
    return TOP / (module.replace(".", "/") + ".py")


def imports(module: str) -> Iterator[str]:
    """Everything that a module imports, as `package.module`."""
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in LAYERS else str(node.module)


def test_every_module_has_its_place() -> None:
    files = [*TOP.glob("lbadaptor/**/*.py"), *TOP.glob("monitor/**/*.py")]
    modules = {str(file.relative_to(TOP).with_suffix("")).replace("/", ".") for file in files}
    assert {module for module in modules if not module.endswith("__init__")} == set(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_arrows_point_down(module: str) -> None:
    above = set(LAYERS[LAYERS.index(module) :])
    assert not {found for found in imports(module) if found in above and (module, found) not in AT_NEED}


@pytest.mark.parametrize("module", [module for module in LAYERS if module.startswith("lbadaptor.")])
def test_lbadaptor_knows_no_monitor(module: str) -> None:
    assert not {found for found in imports(module) if found.split(".")[0] == "monitor"}


@pytest.mark.parametrize("module", [module for module in LAYERS if module.startswith("lbadaptor.appserver.")])
def test_adaptor_and_appserver_share_only_the_contract(module: str) -> None:
    adaptor = {f"lbadaptor.{name}" for name in (*ADAPTOR, *ROOF)}
    assert not adaptor & set(imports(module))


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_touch_nothing_outside(module: str) -> None:
    assert not OUTSIDE & {found.split(".")[0] for found in imports(module)}
