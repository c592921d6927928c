"""lbctl: the table for people, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import snapshot
from monitor.contract import client
from monitor.ctl import main
from monitor.ctl.commands import which_monitor
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal import table
from monitor.ctl.terminal.times import duration


def server(slot: int = 0, **values: Any) -> dict[str, Any]:
    return {
        "slot": slot,
        "generation": 1763805600123,
        "state": "OK",
        "for": 12.3,
        "pid": 4711,
        "address": f"127.0.0.1:{9000 + slot}",
        "sessions": 41,
        "leaving": [],
        "why": "",
        "in_flight": 2,
        "threads": 8,
        "served": 12345,
        "memory": 52_400_000,
        "cpu": 1.5,
        "longest_session": 100.0,
        "oldest_session": 7200.0,
        "kept": None,
        "past_limit": "",
        "standby": False,
        **values,
    }


UNKNOWN = dict.fromkeys(
    ("in_flight", "threads", "served", "memory", "cpu", "longest_session", "oldest_session", "past_limit")
)


def status(*servers: dict[str, Any], **values: Any) -> dict[str, Any]:
    head = {
        "pid": 4700,
        "run_folder": "/run/lbadaptor",
        "address_file": "/run/lbadaptor/address.text",
        "servers": 2,
        "slots": 8,
        "standby": 0,
        "release": "",
        "replaced": [0, 0],
        "ended": [],
        "stopping": False,
    }
    return {**head, **values, "appservers": list(servers)}


def row(text: str, number: int = 0) -> list[str]:
    return text.splitlines()[4 + number].split()


def test_the_head_says_what_is_under_way() -> None:
    assert table.table(status()).splitlines()[:2] == [
        "monitor 4700 · AppServers asked for: 2, slots: 8",
        "/run/lbadaptor/address.text",
    ]
    release = status(release="slot 3 is STARTING", replaced=[1, 4])
    assert " · release: 1 of 4 replaced, slot 3 is STARTING" in table.table(release)
    assert " · 1 in standby" in table.table(status(standby=1))
    assert " · stopping" in table.table(status(stopping=True))


def test_what_was_set_at_run_time_is_marked() -> None:
    by_file = {"servers": 4, "weights": []}
    text = table.table(status(server(2), configured=by_file, run_time={"servers": 2, "weights": {"2": 50}}))
    assert text.splitlines()[0] == (
        "monitor 4700 · AppServers asked for: 2 (set at run time; lbadaptor.toml: 4), slots: 8"
    )
    assert text.endswith("  weight 50, set at run time")
    text = table.table(status(server(2), configured=by_file, run_time={"servers": None, "weights": {"3": 50}}))
    assert "run time" not in text


def test_an_appserver_is_a_line() -> None:
    text = table.table(status(server(0), server(1, state="STARTING", sessions=0, **UNKNOWN)))
    assert tuple(text.splitlines()[3].split()) == tuple(" ".join(table.COLUMNS).split())
    assert row(text) == ["0", "OK", "12", "s", "41", "2/8", "12345", "52", "MB", "4711", "127.0.0.1:9000"]
    assert row(text, 1) == ["1", "STARTING", "12", "s", "0", "4711", "127.0.0.1:9001"]


def test_a_session_cookie_that_was_never_set_is_a_note_of_its_own() -> None:
    told = {"name": "sid", "never_set": "it may be wrong", "others": ["session"]}
    assert table.table(status(server(0), session_cookie=told)).endswith("\n\nnote: it may be wrong.")
    assert "note:" not in table.table(status(server(0), session_cookie={"name": "sid", "never_set": ""}))


def kept(**values: Any) -> dict[str, Any]:
    nothing = {"mode": "leaving", "store": "Flask", "why": "", "saved": 0, "unsaved": {}, "waiting": None}
    return {**nothing, "moved_out": 0, "taken": 0, **values}


def test_how_many_sessions_survive_is_told_for_all_together() -> None:
    servers = (
        server(0, kept=kept(saved=5, unsaved={"_io.TextIOWrapper": 2, "no room": 1}, moved_out=4)),
        server(1, kept=kept(saved=7, unsaved={"no room": 3}, waiting=9, taken=2)),
        server(2, kept=None),
    )
    assert table.table(status(*servers, survive="leaving")).endswith(
        '\n\nsessions survive "leaving": 12 saved, 6 not saved (_io.TextIOWrapper 2, no room 4), 9 waiting for their '
        "visitors; moved out 4, taken over 2"
    )


def test_why_no_session_survives_is_told_once_for_all_slots() -> None:
    servers = [server(slot, kept=kept(why="the store is shared")) for slot in (0, 1)]
    assert table.table(status(*servers, survive="leaving")).endswith(
        "\nsessions of slot 0, 1 do NOT survive: the store is shared"
    )


@pytest.mark.parametrize("told", [{}, {"kept": None}, {"kept": kept(mode="nothing")}])
def test_where_no_session_survives_nothing_is_told_of_it(told: dict[str, Any]) -> None:
    assert "survive" not in table.table(status(server(0, **told), survive="nothing"))


def test_columns_stand_under_their_titles() -> None:
    lines = table.table(status(server(0, sessions=1234567), server(11))).splitlines()[3:]
    for title in ("state", "sessions", "address"):
        column = lines[0].index(title)
        assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"leaving": ["limit", "release"]}, "to be replaced: limit, release"),
        ({"state": "DYING", "leaving": ["order"]}, "the last session ends in 100 s at the latest"),
        ({"state": "DYING", "longest_session": 1209575.0}, "the last session ends in 14 days at the latest"),
        ({"state": "DYING", "longest_session": None}, "the last session ends in 0 s at the latest"),
        ({"state": "BACKOFF", "pid": None, "why": "app:app: ImportError", **UNKNOWN}, "app:app: ImportError"),
    ],
)
def test_notes(values: dict[str, Any], note: str) -> None:
    assert table.table(status(server(0, **values))).endswith(note)


def test_a_dying_one_without_sessions_has_no_note() -> None:
    assert table.table(status(server(0, state="DYING", sessions=0))).endswith("127.0.0.1:9000")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172_799, "48 h"),
        (172_800, "2 days"),
        (86_400 * 14, "14 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def ask(
        path: Path, order: str = "", slot: int | None = None, options: Sequence[str] = (), value: int | None = None
    ) -> dict[str, Any]:
        arguments = (path, *([order] if order else []), *([] if slot is None else [slot]))
        calls.append((*arguments, *options, *([] if value is None else [value])))
        return {"text": "done"} if len(arguments) > 1 else status(server())

    monkeypatch.setattr(client, "ask", ask)
    return calls


def test_status_for_people_and_for_programs(asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--socket", "/x.sock", "status"]) == 0
    assert capsys.readouterr().out == table.table(status(server())) + "\n"
    assert main.main(["--socket", "/x.sock", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == status(server())
    assert asked == [(Path("/x.sock"),)] * 2


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["drain", "3"], ("drain", 3)),
        (["undrain", "0"], ("undrain", 0)),
        (["drain", "--all"], ("drain", "all")),
        (["undrain", "--all"], ("undrain", "all")),
        (["restart", "--no-wait"], ("restart",)),
        (["restart", "--now", "--no-wait"], ("restart", "now")),
        (["scale", "6"], ("scale", 6)),
        (["scale", "--reset"], ("scale", "reset")),
        (["weight", "2", "0"], ("weight", 2, 0)),
        (["weight", "2", "--reset"], ("weight", 2, "reset")),
        (["kill", "2"], ("kill", 2)),
    ],
)
def test_orders(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str], words: list[str], call: tuple[Any, ...]
) -> None:
    assert main.main(["--socket", "/x.sock", *words]) == 0
    assert asked == [(Path("/x.sock"), *call)]
    assert capsys.readouterr().out == "done\n"


def test_a_release_is_waited_for(asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--wait", "5"]):
        assert main.main(["--socket", "/x.sock", "restart", *words]) == 0
        assert asked == [(Path("/x.sock"), "restart"), (Path("/x.sock"),)]
        assert capsys.readouterr().out == "done\n0 of 0 replaced\n"
        asked.clear()


def test_in_a_terminal_a_release_is_followed_to_its_end(
    asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main.main(["--socket", "/x.sock", "restart"]) == 0
    assert asked == [(Path("/x.sock"), "restart"), (Path("/x.sock"),)]
    out = capsys.readouterr().out
    assert out.startswith("done\n")
    assert out.endswith("] 0 of 0 replaced\n")
    asked.clear()
    assert main.main(["--socket", "/x.sock", "restart", "--no-wait"]) == 0
    assert asked == [(Path("/x.sock"), "restart")]


def test_a_standby_is_called_so() -> None:
    assert "standby" in table.table(status(server(0, standby=True))).splitlines()[-1]


def test_the_socket_is_found_by_the_settings(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    config = tmp_path / "lbadaptor.toml"
    config.write_text('[application]\napp = "a:b"\nsession_cookie = "sid"\n[files]\nrun_folder = "run"\n')
    assert main.main(["--config", str(config), "status"]) == 0
    assert asked == [(tmp_path / "run" / "control.sock",)]


@pytest.mark.parametrize(
    "words", [["status", "--socket", "/x.sock"], ["--socket", "/y", "status", "--socket", "/x.sock"]]
)
def test_which_monitor_may_be_said_after_the_command(asked: list[tuple[Any, ...]], words: list[str]) -> None:
    assert main.main(words) == 0
    assert asked == [(Path("/x.sock"),)]


@pytest.mark.parametrize(
    "words", [["--config", "/c", "status", "--socket", "/s"], ["drain", "1", "--config=/c", "--socket=/s"]]
)
def test_two_monitors_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    assert ended.value.code == 2
    assert "--config and --socket exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("name", main.NAMES)
def test_every_command_has_an_example_in_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "demo":
        return  # a program of its own
    assert main.main([name, "--help"]) == 0
    assert f"\n  lbctl {name}" in capsys.readouterr().out.partition("\nExample")[2]


def test_what_draws_is_imported_only_by_what_draws() -> None:
    """A script that asks for the status does not wait for it."""
    code = """
import sys
from monitor.ctl.main import main
main(["status", "--socket", "/none"])
print([name for name in ("rich", "monitor.apacheconfig", "monitor.arbiter") if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=60
    )
    assert run.stdout == "[]\n", run.stderr


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "ask", interrupted)
    assert main.main(["--socket", "/x", "status"]) == main.INTERRUPTED


def complete(shell: str, line: str) -> list[str]:
    """The words that lbctl offers a shell at the end of a line."""
    words = line.split(" ")
    asks = {
        "_LBCTL_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    run = subprocess.run(
        [sys.executable, "-m", "monitor.ctl"],
        cwd=Path(__file__).parents[4],
        env={**os.environ, **asks},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return run.stdout.split()


def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", "bash"]) == 0
    assert "_LBCTL_COMPLETE=bash_complete" in capsys.readouterr().out
    assert complete("bash", "lbctl und") == ["plain,undrain"]
    assert "plain,--no-wait" in complete("bash", "lbctl restart --")


def test_slots_in_use_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    def offered(*words: str, begun: str = "") -> list[str]:
        shell = ShellComplete(main.lbctl, {"obj": Which()}, "lbctl", "_LBCTL_COMPLETE")
        return [item.value for item in shell.get_completions(["--socket", "/x", *words], begun)]

    monkeypatch.setattr(client, "ask", lambda path: status(server(0), server(1), server(10)))
    assert offered("drain") == ["0", "1", "10"]
    assert offered("kill", begun="1") == ["1", "10"]
    assert offered("scale") == []
    monkeypatch.undo()
    assert offered("drain") == []


def test_zsh_completes_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", "zsh"]) == 0
    assert "_LBCTL_COMPLETE=zsh_complete" in capsys.readouterr().out
    assert complete("zsh", "lbctl und")[:2] == ["plain", "undrain"]


def test_who_may_look_need_not_read_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the run folder is the usual one, and its monitor goes by this very file."""
    config, run_folder = tmp_path / "none.toml", tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "status.sock").touch()
    folders = [tmp_path / "elsewhere", run_folder]
    monkeypatch.setattr(snapshot, "folders", lambda _: (None, SettingsError("Permission denied"), folders))
    monkeypatch.setattr(client, "ask", lambda path: status(server(), config=str(config)))
    assert main.main(["status", "--config", str(config)]) == 0
    monkeypatch.setattr(client, "ask", lambda path: status(server(), config="/another.toml"))
    assert main.main(["status", "--config", str(config)]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lbctl {version('lbadaptor')}\n"


@pytest.mark.parametrize("words", [["--socket", "/x.sock"], ["--config", "/x.toml"]])
def test_the_demo_has_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*words, "demo"]) == 1
    assert "it takes neither --config nor --socket" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["stop", "--all"], ["apache-config", "--unchecked"]])
def test_a_socket_without_answer_is_not_another_site(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "control.sock"
    assert main.main(["--socket", str(path), *words]) == 1
    assert capsys.readouterr() == (
        "",
        f"lbctl: {path}: there is no control socket; is the monitor running?; name its lbadaptor.toml with --config "
        "instead\n",
    )


def test_with_a_socket_the_monitor_names_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "shop.toml"
    config.write_text('[application]\napp = "a:b"\nsession_cookie = "sid"\n[files]\nrun_folder = "run"\n')
    monkeypatch.setattr(client, "ask", lambda *_: {"config": str(config)})
    path = tmp_path / "run" / "control.sock"
    assert main.main(["--socket", str(path), "apache-config", "--unchecked"]) == 0
    assert f"{tmp_path}/run/address.text" in capsys.readouterr().out
    assert main.main(["--socket", str(path), "stop", "--all"]) == 0
    assert f"nothing runs from {tmp_path}/run any more" in capsys.readouterr().out
    assert main.main(["--socket", "/elsewhere/control.sock", "stop", "--all"]) == 1
    assert "now has another run folder" in capsys.readouterr().err


def test_an_error_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "control.sock"
    assert main.main(["--socket", str(path), "status"]) == 1
    assert capsys.readouterr() == ("", f"lbctl: {path}: there is no control socket; is the monitor running?\n")
    assert main.main(["--config", str(tmp_path / "none.toml"), "status"]) == 1
    assert capsys.readouterr().err == f"lbctl: {tmp_path / 'none.toml'}: No such file or directory\n"


@pytest.mark.parametrize(
    "words",
    [
        *(
            ["scale"],
            ["scale", "4", "--reset"],
            ["scale", "0"],
            ["scale", "x"],
            ["weight", "2"],
            ["weight"],
            ["kill"],
        ),
        *([], ["explode"], ["drain"], ["drain", "x"], ["--socket", "a", "--config", "b", "status"]),
        *(["drain", "2", "--all"], ["undrain", "2", "--all"], ["undrain"], ["drain", "2", "--wait", "5"]),
        *(["restart", "--wait", "5", "--no-wait"], ["restart", "--wait", "0"], ["restart", "--wait", "nan"]),
    ],
)
def test_what_is_no_command_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main.main(words)
    assert exit.value.code == 2
    assert "Usage: lbctl" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["restart"], ["drain", "--all"]])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_what_is_no_time_to_wait_is_said_in_words(
    words: list[str], seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main.main([*words, "--wait", seconds])
    assert f"a number of seconds greater than 0 is wanted, not '{seconds}'" in capsys.readouterr().err


@pytest.mark.parametrize("answers", [False, True])
def test_a_monitor_that_does_not_answer_is_reported_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(client, "REPLY_TIMEOUT", 0.2)
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        if answers:
            listener.listen()
        with pytest.raises(client.NoAnswer) as refused:
            client.ask(path)
    why = "in time; its log may tell why" if answers else ": Connection refused"
    assert str(refused.value).replace("answer:", "answer :") == f"{path}: the monitor does not answer {why}"


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "65536", "²", "99999999999999999999"])
def test_what_is_no_slot_is_told_as_such(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["drain", "--", text])
    assert ended.value.code == 2
    assert f"the number of a slot is wanted, such as 3 (see `lbctl status`), not '{text}'" in capsys.readouterr().err


def test_the_only_application_need_not_be_named(tmp_path: Path) -> None:
    usual = tmp_path / "lbadaptor.toml"
    assert which_monitor.default(usual) == usual
    shop = tmp_path / "shop.toml"
    shop.touch()
    assert which_monitor.default(usual) == shop
    (tmp_path / "board.toml").touch()
    with pytest.raises(
        SettingsError, match=rf"which application\? Say --config, with one of {tmp_path}/board\.toml, "
    ):
        which_monitor.default(usual)
    usual.touch()
    assert which_monitor.default(usual) == usual
