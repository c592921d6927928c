"""What the adaptor tells Apache for its access log."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scripted import ScriptedServer, answer, hang_up
from stage import Response, Site, cookies

from lbadaptor.contract.address import Address

Serve = Callable[..., ScriptedServer]
ASKED = {"LBADAPTOR_LOG": "1"}
CAME_BACK = {**ASKED, "REDIRECT_LBADAPTOR_GENERATION": "1", "REDIRECT_LBADAPTOR_SLOT": "9"}


def told(response: Response) -> dict[str, str]:
    """All but the time, which has to be there where an AppServer was asked."""
    found = {name: value for name, value in response.headers if name.startswith("LB-")}
    assert (int(found.pop("LB-Time", "-1")) >= 0) == (found.get("LB-Tries", "0") != "0")
    return found


def test_nothing_is_told_unless_apache_asks(site: Site, serve: Serve) -> None:
    [entry] = site.publish_servers(serve(answer(b"yes", "200 OK", "LB-Slot: 7")))
    assert told(site.ask(**cookies(entry.ticket))) == {}
    site.publish_servers(serve(hang_up))
    assert told(site.ask("POST")) == {}


def test_a_first_visit_and_the_holders_visitor(site: Site, serve: Serve) -> None:
    [entry] = site.publish_servers(serve(answer(b"yes")))
    expected = {"LB-Lane": "python", "LB-Tries": "1", "LB-Slot": "0"}
    assert told(site.ask(**ASKED)) == expected | {"LB-Verdict": "none"}
    assert told(site.ask(**ASKED, **cookies(entry.ticket))) == expected | {"LB-Verdict": "held"}
    assert told(site.ask(**ASKED, **cookies("0.1.forged"))) == expected | {"LB-Verdict": "forged"}


def test_a_stream_is_told_too(site: Site, serve: Serve) -> None:
    site.configure(answer_memory=1)
    site.publish_servers(serve(answer(b"y" * 300_000)))
    with site.begin(**ASKED) as response:
        assert told(response) == {"LB-Lane": "python", "LB-Tries": "1", "LB-Slot": "0", "LB-Verdict": "none"}


@pytest.mark.parametrize(("asked", "lane", "more"), [(ASKED, "python", 0), (CAME_BACK, "fast+python", 1)])
def test_a_fail_over_tells_who_answered_and_how_many_were_asked(
    site: Site, serve: Serve, refusing_address: Address, asked: dict[str, str], lane: str, more: int
) -> None:
    entries = site.publish_servers(refusing_address, serve(answer(b"yes")))
    response = site.ask(**asked, **cookies(entries[0].ticket))
    assert response.status == 200
    expected = {"LB-Lane": lane, "LB-Tries": str(3 + more), "LB-Slot": "1", "LB-Verdict": "lost"}
    assert told(response) == expected


def test_an_error_page_tells_who_failed(site: Site, serve: Serve) -> None:
    [entry] = site.publish_servers(serve(hang_up))
    response = site.ask("POST", **ASKED, **cookies(entry.ticket))
    assert response.status == 502
    assert told(response) == {"LB-Lane": "python", "LB-Tries": "1", "LB-Slot": "0", "LB-Verdict": "held"}


def test_where_nobody_was_asked_there_is_no_slot_and_no_time(site: Site) -> None:
    site.configure(wait=0.0)
    site.publish()
    nobody = {"LB-Lane": "python", "LB-Tries": "0", "LB-Slot": ""}
    assert told(site.ask(**ASKED)) == nobody | {"LB-Verdict": "none"}
    assert told(site.ask(**ASKED, HTTP_X_A="a\nb")) == nobody | {"LB-Verdict": ""}
