"""The simulated machines look to HAProxy like real ones."""

import json
import re

from monitor.haproxyconfig.compose import TICKET
from tests.bench import front_scale
from tests.bench.front_machines import Machines, address, ticket


def test_tickets_have_the_shape_of_real_ones_and_no_two_are_alike() -> None:
    tickets = {ticket(number, 200) for number in range(1000)}
    assert len(tickets) == 1000
    assert all(re.fullmatch(TICKET, text) for text in tickets)


def test_each_machine_has_an_address_of_its_own() -> None:
    assert len({address(machine) for machine in range(1000)}) == 1000
    assert address(299) == "127.20.1.50"


def test_machines_say_what_they_are_told_and_count_from_then_on() -> None:
    machines = Machines(4)
    machines.counts["agent"] = 7
    assert machines.order("word 1 2 drain # leaving") == ""
    assert machines.words == [b"up 100%\n", b"drain # leaving\n", b"drain # leaving\n", b"up 100%\n"]
    assert json.loads(machines.order("told"))["agent"] == 0


def test_a_head_is_a_whole_request() -> None:
    text = front_scale.head("/page", ticket(5, 4))
    assert text.startswith("GET /page HTTP/1.1\r\n")
    assert f"__PRT__={ticket(5, 4)}\r\n" in text
    assert text.endswith("\r\n\r\n")
    assert "Cookie" not in front_scale.head("/begin")
