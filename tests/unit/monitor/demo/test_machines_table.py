"""What the demo of several machines shows of each."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.ctl.terminal.screen import ALARM, HEADING, WARNING
from monitor.demo import haproxy
from monitor.demo.machines_table import Row, answers, table
from monitor.demo.programs import DemoFailed

AGENT = {"agent_status": "L7OK", "last_agt": "via agent : up (OK 2 of 2)", "check_status": "L7OK"}


def status(*states: str, **machine: Any) -> dict[str, Any]:
    return {
        "servers": 2,
        "appservers": [{"state": state} for state in states],
        "machine": {"leaving": False, "empty": False, "sessions": 6, **machine},
    }


def shown(stats: dict[str, str], told: dict[str, Any]) -> tuple[str, str]:
    """The line of a machine, and its style."""
    heading, line = table([Row("1 127.0.0.11", stats, told, "4711", 2.5)])
    assert heading[1] == HEADING
    return line


def test_a_machine_that_is_up() -> None:
    text, style = shown({**AGENT, "status": "UP", "weight": "75"}, status("OK", "OK"))
    assert text.split("  ")[0] == "1 127.0.0.11"
    for word in ("UP", "75", "2.5", "2 of 2 OK", " 6 ", "4711"):
        assert word in text
    assert text.endswith("  OK 2 of 2")
    assert style == ""


@pytest.mark.parametrize(
    ("stats", "told", "words", "style"),
    [
        ({**AGENT, "status": "DRAIN (agent)"}, status("OK", "OK", leaving=True), "2 of 2 OK, leaving", WARNING),
        (
            {**AGENT, "status": "DRAIN"},
            status("OK", leaving=True, empty=True),
            "1 of 2 OK, empty: it can be switched off",
            WARNING,
        ),
        (
            {"status": "DOWN", "check_status": "* L4CON", "last_chk": "Connection refused", "agent_status": "L4CON"},
            {},
            "health check: L4CON Connection refused",
            ALARM,
        ),
        ({**AGENT, "status": "UP", "agent_status": "* L4TOUT", "last_agt": ""}, status("OK"), "agent: L4TOUT", ""),
        ({**AGENT, "status": "UP"}, {}, "the monitor does not answer", ""),
        ({}, status("OK"), "no answer", ALARM),
    ],
)
def test_what_is_wrong_with_a_machine_is_told(
    stats: dict[str, str], told: dict[str, Any], words: str, style: str
) -> None:
    text, found = shown(stats, told)
    assert words in text
    assert found == style


def test_answers_of_all_kinds_count() -> None:
    assert answers({"hrsp_2xx": "5", "hrsp_4xx": "1", "hrsp_other": "2", "hrsp_1xx": ""}) == 8
    assert answers({}) == 0


def test_where_haproxy_is_missing_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy.shutil, "which", lambda *_, **__: None)
    with pytest.raises(DemoFailed, match="apt-get install haproxy"):
        haproxy.find()
