"""`lbctl demo` as a person runs it: what it prints, whom it serves, and that it leaves nothing."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from cluster import LBCTL, TIMEOUT, eventually, processes_of
from demo_fixture import Demo, fetch

from monitor.demo import httpd

SMALL = ("--servers", "1", "--app", "wsgiref.simple_server:demo_app", "--session-cookie", "sid")


def visits(http: requests.Session, site: str) -> int:
    """What Webware's page has counted."""
    found = re.search(r"<strong[^>]*>&nbsp;(\d+)&nbsp;</strong>", fetch(http, site).text)
    assert found
    return int(found[1])


def test_a_stop_by_lbctl_is_a_normal_end(demo: Callable[..., Demo]) -> None:
    running = demo(*SMALL)
    *_, control_socket = running.await_up()
    subprocess.run([LBCTL, "--socket", control_socket, "stop"], check=True, capture_output=True, timeout=TIMEOUT)
    assert running.wait() == 0, running.output
    assert "the monitor was told to stop" in running.output
    assert "lbctl:" not in running.output
    running.assert_nothing_left()


def test_it_serves_webware_prints_where_everything_is_and_leaves_nothing(demo: Callable[..., Demo]) -> None:
    running = demo()
    site, address_file, control_socket = running.await_up()
    assert site == f"http://127.0.0.1:{running.port}/CountVisits"
    assert len([line for line in address_file.read_text().splitlines() if line[0] != "#"]) == 4
    with requests.Session() as one, requests.Session() as other:
        assert [visits(one, site) for _ in range(3)] == [1, 2, 3]
        assert visits(other, site) == 1
        assert visits(one, site) == 4
    status = subprocess.run(
        [str(LBCTL), "--socket", str(control_socket), "status"], capture_output=True, text=True, check=True
    )
    assert status.stdout.count(" OK ") == 4
    assert running.end() == 0
    assert "ending the demo" in running.output
    running.assert_nothing_left()


@pytest.mark.parametrize(
    ("number", "ignored"),
    [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True)],
    ids=["SIGINT", "SIGINT inherited as ignored", "SIGTERM", "SIGHUP inherited as ignored"],
)
def test_a_signal_ends_it(demo: Callable[..., Demo], number: signal.Signals, ignored: bool) -> None:
    before = signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        running = demo(*SMALL)
    finally:
        signal.signal(number, before)
    running.await_up()
    assert running.end(number) == 0
    running.assert_nothing_left()


def test_a_signal_ends_it_before_it_is_up(demo: Callable[..., Demo], folder: Path) -> None:
    gate = folder / "gate"
    os.mkfifo(gate)
    (folder / "patient.py").write_text(f"open({str(gate)!r}).read()\n")
    running = demo("--app", "patient:application", "--session-cookie", "sid", "--servers", "1")

    def look() -> bool:
        try:
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    eventually("the application is being imported", look)
    assert running.end(signal.SIGINT) in (0, 1)
    running.assert_nothing_left()


def test_any_application_is_imported_from_the_current_folder_and_pythonpath_and_gets_the_environment(
    demo: Callable[..., Demo], folder: Path
) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "its_part.py").write_text("import os\nTOLD = os.environ['TOLD_TO_THE_APPLICATION']\n")
    (folder / "its_own.py").write_text(
        "import os\nfrom its_part import TOLD\n\n\nclass Site:\n"
        "    def __call__(self, environ, start_response):\n"
        "        start_response('200 OK', [('Content-Type', 'text/plain'), ('Set-Cookie', 'its_sid=1; Path=/')])\n"
        "        return [f'{TOLD} {os.getcwd()} {environ[\"PATH_INFO\"]}'.encode()]\n\n\nsite = Site()\n"
    )
    words = ("--app", "its_own:site", "--session-cookie", "its_sid", "--servers", "2")
    running = demo(*words, env={"PYTHONPATH": "elsewhere", "TOLD_TO_THE_APPLICATION": "a word"})
    site, address_file, _ = running.await_up()
    assert len([line for line in address_file.read_text().splitlines() if line[0] != "#"]) == 2
    with requests.Session() as http:
        answer = fetch(http, f"{site}some/where")
    assert answer.text == f"a word {folder} /some/where"
    assert set(answer.cookies.keys()) == {"its_sid", "__PRT__"}
    assert running.end() == 0
    running.assert_nothing_left()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "by the fast lane and the Python lane\n"),
        (("--no-fast-lane",), "by the Python lane alone: as asked for\n"),
    ],
)
def test_the_fast_lane_is_there_unless_it_is_not_wanted(
    demo: Callable[..., Demo], words: tuple[str, ...], says: str
) -> None:
    running = demo("--servers", "2", *words)
    site, _, _ = running.await_up()
    (configuration,) = running.temporary.rglob("httpd.conf")
    assert says in running.output
    assert ("RewriteRule" in configuration.read_text()) is (words == ())
    with requests.Session() as http:
        for count in range(1, 5):
            assert visits(http, site) == count
    assert running.end() == 0
    running.assert_nothing_left()


def test_where_apache_lacks_a_module_the_python_lane_serves_and_the_demo_says_so(tmp_path: Path) -> None:
    apache = httpd.installed()[0]
    for module in apache.modules.glob("*.so"):
        if module.name != "mod_rewrite.so":
            (tmp_path / module.name).symlink_to(module)
    assert apache.no_fast_lane() == ""
    assert replace(apache, modules=tmp_path).no_fast_lane() == f"{tmp_path} has no mod_rewrite"


def test_a_request_limit_can_be_asked_for(demo: Callable[..., Demo]) -> None:
    running = demo("--servers", "1", "--max-requests", "5")
    site, address_file, _ = running.await_up()
    with requests.Session() as http:
        for count in range(1, 7):
            assert visits(http, site) == count
        eventually("it is DYING", lambda: " DYING " in address_file.read_text())
        assert visits(http, site) == 7
    assert running.end() == 0
    running.assert_nothing_left()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--app", "no_such_module:application", "--session-cookie", "sid"), "No module named 'no_such_module'"),
        (("--app", "wsgiref.simple_server:nothing", "--session-cookie", "sid"), "has no attribute 'nothing'"),
        (("--app", "wsgiref.simple_server:demo_app"), "name the session cookie"),
        (("--app", "not a name", "--session-cookie", "sid"), "[application] app"),
        (("--servers", "0"), "[appservers] servers"),
        (("--port", "70000"), "port 70000 on 127.0.0.1 cannot be used"),
        ((*SMALL, "--survive", "anything", "--save", "its_own:save"), "[sessions] save"),
    ],
    ids=["no module", "no callable", "no cookie", "no name", "no servers", "no port", "no load"],
)
def test_what_cannot_be_served_is_a_clear_line(demo: Callable[..., Demo], words: tuple[str, ...], says: str) -> None:
    running = demo(*words)
    assert running.wait() == 1
    (line,) = [line for line in running.output.splitlines() if line.startswith("lbctl: ")]
    assert says in line
    assert "demo.py" not in running.output
    running.assert_nothing_left()


def test_a_port_in_use_is_a_clear_line(demo: Callable[..., Demo]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = demo("--port", str(port))
        assert running.wait() == 1
    assert running.output == (
        f"lbctl: port {port} on 127.0.0.1 cannot be used (Address already in use); take another: "
        "PORT=8080 make demo, or lbctl demo --port 8080\n"
    )
    running.assert_nothing_left()


def test_when_it_is_killed_no_process_outlives_it(demo: Callable[..., Demo]) -> None:
    running = demo(*SMALL, "--servers", "2")
    running.await_up()
    assert len(processes_of(running.temporary)) >= 6
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    eventually("all processes are gone", lambda: not processes_of(running.temporary))


@pytest.mark.parametrize(("program", "number"), [("monitor", signal.SIGKILL), ("httpd", signal.SIGTERM)])
def test_when_a_part_of_it_ends_it_says_so_and_ends(
    demo: Callable[..., Demo], program: str, number: signal.Signals
) -> None:
    running = demo(*SMALL)
    _, address_file, _ = running.await_up()
    pid_file = {"monitor": "monitor.pid", "httpd": "httpd.pid"}[program]
    os.kill(int(address_file.with_name(pid_file).read_text().split()[0]), number)
    assert running.wait() == 1
    assert re.search(rf"^lbctl: (the|Apache) {program} has ended$", running.output, re.MULTILINE)
    running.assert_nothing_left()


# Environment folders of other owners and in other places.


def install(place: Path) -> tuple[str, ...]:
    """An environment folder with all that the demo needs; the command that stands for its lbctl."""
    venv.create(place, symlinks=True)
    wanted, known = ["lbadaptor", "Webware-for-Python"], set()
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]  # a checkout may hold an egg-info too
    while wanted:
        name = wanted.pop()
        if name in known:
            continue
        known.add(name)
        distribution = next(iter(importlib.metadata.distributions(name=name, path=installed)), None)
        if distribution is None:
            continue  # for another Python
        wanted += [re.split(r"[^\w.-]", need)[0] for need in distribution.requires or () if "extra ==" not in need]
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file))).resolve()
            if "__pycache__" in source.parts or not source.exists():
                continue
            target = place / source.relative_to(Path(sys.prefix).resolve())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return str(place / "bin" / "python"), "-B", "-m", "monitor.ctl", "demo"


def test_it_works_where_apaches_user_cannot_read_the_environment_folder(
    demo: Callable[..., Demo], folder: Path
) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    program = install(private / "env")
    running = demo("--servers", "1", program=program)
    site, *_ = running.await_up()
    with requests.Session() as http:
        assert [visits(http, site) for _ in range(2)] == [1, 2]
    assert running.end() == 0
    running.assert_nothing_left()


def test_it_works_for_an_ordinary_user(demo: Callable[..., Demo], folder: Path) -> None:
    who = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    running = demo("--servers", "2", program=install(folder / "env"), **who)
    site, address_file, _ = running.await_up()
    assert address_file.stat().st_uid != 0
    with requests.Session() as http:
        assert [visits(http, site) for _ in range(3)] == [1, 2, 3]
    assert running.end() == 0
    running.assert_nothing_left()


def test_the_snippets_and_scripts_come_with_the_package() -> None:
    share = Path(sysconfig.get_path("data"), "share", "lbadaptor")
    source = Path(__file__).parents[2] / "apache"
    for name in (
        "lbadaptor.conf",
        "lbadaptor-daemon.conf",
        "lbadaptor-cgi.conf",
        "lbadaptor-log.conf",
        "lbadaptor.wsgi",
        "lbadaptor.cgi",
    ):
        assert (share / name).read_text() == (source / name).read_text()
    assert os.access(share / "lbadaptor.cgi", os.X_OK)
