"""What a running monitor tells of itself, and what address.text tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake import CONFIG, facts, said, settings

from monitor.check import running
from monitor.check.finding import CannotCheck, Hangs, NotAllowed
from monitor.check.running import judge_address_text, judge_cookie, judge_status

GOOD = {"slot": 0, "state": "OK", "why": "", "served": 400}


def status(*servers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"appservers": [{**GOOD, **server} for server in servers or [{}]], "release": "", "problems": [], **more}


def test_without_a_monitor_it_says_so() -> None:
    (found,) = said(running.answers(facts(status=CannotCheck("no monitor runs: there is no x"))))
    assert found.startswith("no monitor runs: there is no x; `systemctl start lbadaptor`")


def test_a_monitor_that_hangs_is_not_one_that_is_gone() -> None:
    (found,) = said(running.answers(facts(status=Hangs("the monitor does not answer in time (x)"))))
    assert "`systemctl kill -s KILL lbadaptor`: systemd starts it again" in found


def test_who_may_not_ask_it_is_told_so_and_nothing_else() -> None:
    for check in (running.answers, running.session_cookie, running.appservers):
        with pytest.raises(NotAllowed, match="may not ask the monitor; ask as root"):
            list(check(facts(status=NotAllowed("me", "ask the monitor"))))


def test_a_monitor_of_other_settings() -> None:
    assert said(running.answers(facts(status=status(config=str(CONFIG))))) == []
    (found,) = said(running.answers(facts(status=status(config="/etc/lbadaptor/blog.toml"))))
    assert f"goes by /etc/lbadaptor/blog.toml, not by {CONFIG}" in found


@pytest.mark.parametrize(
    ("told", "what"),
    [
        (status(), ""),
        (status({"slot": 3, "state": "BACKOFF", "why": "no module shop"}), "slot 3 is BACKOFF: no module shop"),
        (status({"state": "FAILING"}), "slot 0 is FAILING; `lbctl events --slot 0`"),
        (status({"state": "DYING"}), ""),
        (status(release="failed: slot 1: x"), "the release has failed: slot 1: x"),
        (
            status(machine={"leaving": True}),
            "this machine is leaving: it has asked balancers for no new visitors; `lbctl",
        ),
        (status(machine={"leaving": False}), ""),
        (status(problems=["address.text cannot be written"]), "address.text cannot be written"),
    ],
)
def test_what_the_monitor_complains_of(told: dict[str, Any], what: str) -> None:
    found = said(judge_status(told, "lbctl"))
    assert len(found) == bool(what)
    assert what in "".join(found)


# The session cookie.

SHOP = "lbctl --config shop.toml"
"""Cures name the monitor that is meant."""


@pytest.mark.parametrize(
    ("told", "servers", "what"),
    [
        ({"name": "sid", "never_set": "", "seen": True}, [{}], ""),
        (
            {"name": "sid", "never_set": "in 20 answers: sessionid", "seen": False},
            [{}],
            "in 20 answers: sessionid; set",
        ),
        ({"name": "sid", "never_set": "", "seen": False}, [{}, {}], ""),  # too few requests to tell
        (
            {"name": "sid", "never_set": "", "seen": False},
            [{}, {}, {}],
            "1200 requests were served, and no answer set any",
        ),
        ({"name": "sid", "never_set": "", "seen": True}, [{}, {}, {}], ""),
        ({"name": "sid", "never_set": ""}, [{}, {}, {}], ""),  # a monitor of before does not tell
        ({"name": "other", "never_set": ""}, [{}], 'goes by session_cookie = "other" until a release'),
        (
            {"name": "sid", "never_set": "", "seen": True, "refused": "it has SameSite=None without Secure"},
            [{}],
            "browsers refuse the session cookie `sid`, and the ticket with it: it has SameSite=None without Secure",
        ),
    ],
)
def test_the_session_cookie(told: dict[str, Any], servers: list[dict[str, Any]], what: str) -> None:
    found = said(judge_cookie("sid", status(*servers, session_cookie=told), SHOP))
    assert all(f"`{SHOP} restart`" in one for one in found if "restart" in one)
    assert len(found) == bool(what)
    assert what in "".join(found)


def test_before_a_monitor_runs_nobody_knows_the_session_cookie() -> None:
    with pytest.raises(CannotCheck, match="cannot be known before its monitor runs"):
        list(running.session_cookie(facts(status=CannotCheck("no monitor runs"))))
    affinity = settings(application={"session_cookie": "", "affinity": True})
    assert said(running.session_cookie(facts(affinity))) == []


# address.text.

ENTRY = "0.1763805600123.djSVEImjAiUubd9BTOgTSefr9MZK3o61uvta2_ezQas 127.0.0.1:9001 OK 0 1763805600123 100 41\n"
TEXT = f"# address.text 1 · serial 42 · monitor 4711 on web1 · 2026-11-22T10:00:00Z · entries 1\n{ENTRY}"
EMPTY = TEXT.replace("entries 1", "entries 0").replace(ENTRY, "")


@pytest.mark.parametrize(
    ("text", "age", "listening", "what"),
    [
        (TEXT, 14, {9001}, ""),
        (TEXT, 46, {9001}, "is stale: written 46 s ago"),
        (EMPTY, 4600, set(), ""),  # as an ordered stop leaves it
        (TEXT, 14, {9002}, "names AppServers where nobody listens: 127.0.0.1:9001"),
        (TEXT.replace("entries 1", "entries 2"), 0, {9001}, "half written"),
    ],
)
def test_address_text(text: str, age: float, listening: set[int], what: str) -> None:
    found = said(judge_address_text(Path("address.text"), text, age, listening, "lbadaptor", SHOP))
    assert all(f"`{SHOP} status`" in one for one in found if "nobody listens" in one)
    assert len(found) == bool(what)
    assert what in "".join(found)


def test_an_address_text_on_this_machine(tmp_path: Path) -> None:
    given = settings(files={"run_folder": str(tmp_path)})
    with pytest.raises(CannotCheck, match="there is no "):
        list(running.address_text(facts(given, listeners=[])))
    given.address_file.write_text(EMPTY)
    assert said(running.address_text(facts(given, listeners=[]))) == []


def test_a_socket_for_a_group_that_is_not_there(tmp_path: Path) -> None:
    given = settings(files={"run_folder": str(tmp_path), "status_group": "adm"})
    (found,) = said(running.status_socket(facts(given, status=status())))
    assert found == f"[files] status_group is set, and there is no {tmp_path}/status.sock; restart the monitor"
