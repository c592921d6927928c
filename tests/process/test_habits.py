"""What applications do to the process that they run in: orders arrive, requests are served, or it is said why not."""

from __future__ import annotations

import contextlib
import signal
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from appserver_fixture import WAIT, Start, ready

from lbadaptor.appserver.main import CANNOT_START, DESCRIPTORS_CLOSED
from lbadaptor.appserver.process.messages import DRAIN, STOP, UNDRAIN, Failed

HABITS = """
    import ctypes, faulthandler, locale, os, select, signal, socket, sys, threading, time
    import _thread

    ORDERS = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
    argv = list(sys.argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored

    def faulthandler_register():
        for number in ORDERS:
            faulthandler.register(number)

    def sigaction_ignore():
        ignore = ctypes.create_string_buffer(512)
        ignore[0] = 1
        for number in ORDERS:
            ctypes.CDLL(None).sigaction(int(number), ignore, None)

    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)

    def nothing():
        pass

    def patches():
        class Proxied(socket.socket):
            def __init__(self, *arguments, **more):
                raise OSError("only by way of a proxy")
        def fails(*arguments, **more):
            raise RuntimeError("patched")
        socket.socket = socket.SocketType = Proxied
        socket.create_connection = fails
        time.monotonic = time.time = time.sleep = time.process_time = fails
        threading.Thread = threading.Lock = threading.RLock = threading.Condition = threading.Event = fails
        threading.local = threading.get_native_id = threading.get_ident = fails
        for name in ("epoll", "poll", "select"):
            delattr(select, name)

    def interrupts():
        _thread.interrupt_main()

    def process_wide():
        os.chdir("/")
        os.umask(0o777)
        locale.setlocale(locale.LC_ALL, "")
        sys.stdout = sys.stderr = sys.stdin = None
        sys.setrecursionlimit(200)
        threading.settrace(lambda *_: None)
        for name in list(sys.modules):
            if name.partition(".")[0] in ("logging", "json", "lbadaptor", "threading", "socket", "queue"):
                del sys.modules[name]

    def interval():
        sys.setswitchinterval(100.0)

    def closes():
        os.closerange(3, 65536)

    def fills():
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        try:
            while True:
                kept.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass

    def empties():
        while kept:
            os.close(kept.pop())

    def sleeps():
        while not os.path.exists("wake"):
            time.sleep(0.01)

    kept = []

    def application(environ, start_response):
        name = environ["PATH_INFO"][1:]
        if name:
            globals()[name]()
        start_response("200 OK", [])
        return [repr(argv).encode()]
"""
AT_IMPORT = {
    "own handlers": "for number in ORDERS: signal.signal(number, lambda *_: None)",
    "ignored": "for number in ORDERS: signal.signal(number, signal.SIG_IGN)",
    "faulthandler": "faulthandler_register()",
    "blocked": "block()",
}


@pytest.fixture
def site(folder: Path) -> Path:
    (folder / "habits.py").write_text(textwrap.dedent(HABITS))
    return folder


@pytest.mark.parametrize("habit", AT_IMPORT)
def test_orders_arrive_whatever_was_done_with_signals_at_import(site: Path, start: Start, habit: str) -> None:
    (site / "habits.py").write_text(f"{textwrap.dedent(HABITS)}\n{AT_IMPORT[habit]}\n")
    appserver = ready(start("habits:application"))
    appserver.order(DRAIN)
    appserver.wait_for_status("DYING")
    appserver.order(UNDRAIN)
    appserver.wait_for_status("OK")
    appserver.order(STOP)
    code, _, err = appserver.ended()
    assert code == 0
    for name in ("SIGUSR1", "SIGUSR2", "SIGTERM"):
        assert err.count(f"the application has taken {name} for itself") == (habit != "blocked")


@pytest.mark.parametrize("habit", ["faulthandler_register", "sigaction_ignore", "block"])
def test_orders_are_taken_back_that_were_taken_in_a_request(site: Path, start: Start, habit: str) -> None:
    """What came meanwhile is lost; the monitor repeats it."""
    appserver = ready(start("habits:application"))
    for _ in range(3):
        appserver.ask(LB_Path=f"/{habit}")
    deadline = time.monotonic() + WAIT
    while appserver.ask()[2]["LB-Status"] != "DYING":
        appserver.order(DRAIN)
        time.sleep(0.1)  # each one that faulthandler gets writes a page
        assert time.monotonic() < deadline
    appserver.order(STOP)  # all signals were taken back along with that one
    code, _, err = appserver.ended()
    assert code == 0
    assert err.count("the application has taken SIGUSR1 for itself") == (habit != "block")


@pytest.mark.parametrize("habit", ["nothing", "patches", "interrupts", "process_wide"])
def test_it_serves_on_and_obeys_orders(site: Path, start: Start, habit: str) -> None:
    appserver = ready(start("habits:application", max_memory=10**12, unix_socket=str(site / "0")))
    for _ in range(2):
        appserver.ask(LB_Path=f"/{habit}")
        time.sleep(0.6)  # it looks at itself meanwhile
        for _ in range(5):
            assert appserver.ask()[0] == 200
        assert appserver.ask(path="/__lb__/status", LB_Probe="probe's")[0] == 200
    appserver.order(DRAIN)
    appserver.wait_for_status("DYING")
    appserver.order(STOP)
    code, _, err = appserver.ended()
    assert code == 0
    assert "AppServer" not in err or habit != "nothing"
    assert ("KeyboardInterrupt" in err) == (habit == "interrupts")


def test_a_handler_of_the_applications_that_raises_in_our_main_thread_harms_nothing(
    site: Path,
    start: Start,
) -> None:
    more = "def rings(*_): raise TimeoutError('its own')\nsignal.signal(signal.SIGALRM, rings)\n"
    more += "signal.setitimer(signal.ITIMER_REAL, 0.5, 0.02)\n"
    (site / "habits.py").write_text(textwrap.dedent(HABITS) + more)
    appserver = ready(start("habits:application"))
    deadline = time.monotonic() + 1.2
    while time.monotonic() < deadline:
        assert appserver.ask()[0] == 200
    appserver.order(DRAIN)
    with contextlib.suppress(ConnectionError):  # it has no sessions: it may have ended before it is asked
        appserver.wait_for_status("DYING")
        appserver.order(STOP)
    code, _, err = appserver.ended()
    assert code in (0, 1, -signal.SIGALRM)  # the interpreter's own end is not ours to guard
    assert err.count("an error in the main thread") == 1


def test_the_arguments_are_mod_wsgis(site: Path, start: Start) -> None:
    assert ready(start("habits:application")).ask()[1] == b"['mod_wsgi']"


def test_a_switch_interval_that_would_keep_the_probe_waiting_is_taken_back(site: Path, start: Start) -> None:
    appserver = ready(start("habits:application"))
    appserver.ask(LB_Path="/interval")
    appserver.wait_said("sys.setswitchinterval(100)")


def test_without_descriptors_it_lives_on_answers_the_probe_and_says_so_once(site: Path, start: Start) -> None:
    appserver = ready(start("habits:application", max_memory=10**12))
    appserver.ask(LB_Path="/fills")
    with ThreadPoolExecutor(2) as others:
        sleeping = [others.submit(appserver.ask, LB_Path="/sleeps") for _ in range(2)]
        for _ in range(20):  # each would wait for ever behind a request
            assert appserver.ask(path="/__lb__/status", LB_Probe="probe's")[0] == 200
        (site / "wake").touch()
        for future in sleeping:
            future.exception()  # whether it got a connection or not
    appserver.ask(LB_Path="/empties")
    appserver.wait_said("there are descriptors again")
    appserver.order(STOP)
    code, _, err = appserver.ended()
    assert code == 0
    assert err.count("cannot take connections") == 1
    assert err.count("there are descriptors again") == 1


def test_descriptors_that_are_closed_at_import_are_said(site: Path, start: Start) -> None:
    (site / "habits.py").write_text(f"{textwrap.dedent(HABITS)}\ncloses()\n")
    code, _, err = start("habits:application").ended()
    assert code == CANNOT_START
    assert "closed descriptors that are not its own" in err


def test_descriptors_that_are_closed_in_a_request_end_it_with_a_word(site: Path, start: Start) -> None:
    appserver = ready(start("habits:application"))
    with pytest.raises(OSError, match=r".*"):
        appserver.ask(LB_Path="/closes")
    code, _, err = appserver.ended()
    assert code == DESCRIPTORS_CLOSED
    assert err.count("closed descriptors that are not its own") == 1


@pytest.mark.parametrize(
    ("habit", "what"),
    [
        (
            "threading.Thread(target=lambda: (threading.main_thread().join(), sleeps()), name='mine').start()",
            "threads of the application that are no daemons: mine",
        ),
        ("__import__('atexit').register(sleeps)", "what the application has registered with atexit"),
        ("threading.Thread(target=time.sleep, args=(600,), daemon=True).start()", ""),
    ],
    ids=["thread", "atexit", "daemon"],
)
def test_what_keeps_it_from_ending_is_said(site: Path, start: Start, habit: str, what: str) -> None:
    (site / "habits.py").write_text(f"{textwrap.dedent(HABITS)}\n{habit}\n")
    appserver = ready(start("habits:application"))
    appserver.order(STOP)
    if what:
        appserver.wait_said("the process waits for")
        (site / "wake").touch()
    code, _, err = appserver.ended()
    assert code == 0
    assert err.count("the process waits for") == bool(what)
    assert f"the process waits for {what}" in err or not what


def test_threads_that_a_trace_function_ends_are_refused(site: Path, start: Start) -> None:
    """They would serve nobody."""
    habit = "threading.settrace(lambda *_: 1 / 0)"
    (site / "habits.py").write_text(f"{textwrap.dedent(HABITS)}\n{habit}\n")
    appserver = start("habits:application")
    failed = appserver.report()
    assert isinstance(failed, Failed)
    assert "threads end before they begin" in failed.why
    code, _, err = appserver.ended()
    assert code == CANNOT_START
    assert "ZeroDivisionError" in err


GREEN = """
    import sys, threading, types
    sys.modules["gevent"] = types.ModuleType("gevent")

    class Handle:
        def is_done(self): return True
        def join(self, timeout=None): pass
        ident = 1
        def _set_done(self): pass

    def run(function, *arguments, **more):
        # as green threads do: in the thread that there is
        thread = function.__self__
        thread._started.set()
        thread.run()
        thread._is_stopped = True
        thread._handle = Handle()
        return 1

    threading.Thread._wait_for_tstate_lock = lambda *_: None
    threading.Thread.join = lambda *_: None
    threading._start_new_thread = threading._start_joinable_thread = run

    def application(environ, start_response):
        raise AssertionError
"""


def test_threads_that_are_replaced_are_refused_by_name(site: Path, start: Start) -> None:
    (site / "green.py").write_text(textwrap.dedent(GREEN))
    appserver = start("green:application")
    failed = appserver.report()
    assert isinstance(failed, Failed)
    assert failed.why.startswith("green:application: gevent has replaced threads by its own")
    assert appserver.ended()[0] == CANNOT_START
