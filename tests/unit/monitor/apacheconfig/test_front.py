"""What Apache believes of HAProxy: which directives, and which modules they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbadaptor.contract.settings import Settings, parse
from monitor.apacheconfig import ask_apache, compose, front
from monitor.apacheconfig.lanes import PythonLane, both, python_alone

SHARE = Path("/opt/lb")
LOADED = "Loaded Modules:\n core_module (static)\n setenvif_module (shared)\n"
ALL = f"{LOADED} headers_module (shared)\n remoteip_module (shared)\n"
FRONT = '[machine]\nnumber = 1\nfront = ["10.0.0.1", "FD00:0::1", "::FFFF:10.0.0.3"]\n'


def settings(more: str = FRONT) -> Settings:
    return parse(f'[application]\napp = "shop:app"\nsession_cookie = "sid"\n{more}')


def test_it_comes_before_the_adaptor_with_the_addresses_as_apache_writes_them() -> None:
    lane = PythonLane.of(settings(), "x.conf", SHARE, Path("/etc/x.toml"), "")
    for text in (both(lane, "", ""), python_alone(lane, "", "")):
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines[:2] == [
            'Define LBADAPTOR_FRONT "10.0.0.1 fd00::1 10.0.0.3"',
            "Include /opt/lb/lbadaptor-front.conf",
        ]


def test_without_a_front_there_is_none_of_it() -> None:
    assert list(front.lines((), SHARE)) == []
    lane = PythonLane.of(settings(""), "x.conf", SHARE, Path("/etc/x.toml"), "")
    assert "FRONT" not in both(lane, "", "")


def test_a_folder_with_blanks_stands_within_quotes() -> None:
    assert list(front.lines(["10.0.0.1"], Path("/opt/l b")))[-1] == 'Include "/opt/l b/lbadaptor-front.conf"'


def test_modules_that_are_missing() -> None:
    assert front.missing_modules(settings(), LOADED) == ["remoteip", "headers"]
    assert front.missing_modules(settings(), ALL) == []
    assert front.missing_modules(settings(""), LOADED) == []


def test_they_are_said_before_a_file_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Apache would not start with a file that it does not understand."""
    config = tmp_path / "shop.toml"
    config.write_text(f'[application]\napp = "shop:app"\nsession_cookie = "sid"\n{FRONT}')
    monkeypatch.setattr(ask_apache, "dump", lambda _: LOADED)
    with pytest.raises(compose.Refused, match="a2enmod remoteip headers"):
        compose.compose(compose.Options(config))
    monkeypatch.setattr(ask_apache, "dump", lambda _: ALL)
    assert "LBADAPTOR_FRONT" in compose.compose(compose.Options(config)).text
