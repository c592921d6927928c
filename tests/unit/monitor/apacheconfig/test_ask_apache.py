"""How Apache is asked for its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.apacheconfig import ask_apache
from monitor.apacheconfig.ask_apache import CannotRead, NoAnswer


def test_a_command_has_options_as_a_shell_has_them(tmp_path: Path) -> None:
    httpd = tmp_path / "an httpd"
    httpd.write_text('#!/bin/sh\nfor word; do echo "# In file: $word"; done\n')
    httpd.chmod(0o755)
    asked = ask_apache.dump(f"'{httpd}' -C 'LoadModule x x.so'").splitlines()
    assert asked[:2] == ["# In file: -C", "# In file: LoadModule x x.so"]
    assert asked[-1] == "# In file: DUMP_MODULES"


@pytest.mark.parametrize("command", ["httpd 'a", " ", "''", "/no/such/httpd"])
def test_what_is_no_command_is_said(command: str) -> None:
    for ask in (ask_apache.dump, ask_apache.includes):
        with pytest.raises(CannotRead):
            ask(command)


def test_an_apache_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_apache, "TIMEOUT", 0.05)
    with pytest.raises(NoAnswer, match="no answer within"):
        ask_apache.dump("sh -c 'exec sleep 60'")
