"""What was set at run time wins over lbadaptor.toml, and goes together with it."""

from __future__ import annotations

from typing import Any

import pytest

from lbadaptor.contract.settings import Application, AppServers, Settings
from monitor.policy.run_time import RunTime


def settings(**values: Any) -> Settings:
    return Settings(Application("app:app", "sid"), appservers=AppServers(**values))


def test_nothing_set_changes_nothing_but_names_the_slots() -> None:
    given = settings(servers=4, weights=(1, 2))
    got = RunTime().applied(given)
    assert (got.appservers.servers, got.appservers.weights, got.slots) == (4, (1, 2), given.slots)
    assert RunTime().differences(given) == []


def test_the_number_of_slots_is_that_of_the_file() -> None:
    """Apache's configuration for the fast lane names each slot."""
    got = RunTime(servers=6).applied(settings(servers=4))
    assert (got.appservers.servers, got.slots) == (6, 16)


@pytest.mark.parametrize(
    ("weights", "slot", "weight", "wanted"),
    [((), 2, 50, (100, 100, 50)), ((7, 8, 9), 1, 0, (7, 0, 9)), ((7,), 0, 5, (5,))],
)
def test_a_weight_takes_the_place_of_the_file_s(
    weights: tuple[int, ...], slot: int, weight: int, wanted: tuple[int, ...]
) -> None:
    given = settings(servers=4, weights=weights)
    assert RunTime().with_weight(slot, weight).applied(given).appservers.weights == wanted


def test_it_is_taken_back() -> None:
    given = settings(servers=4, weights=(7,))
    run_time = RunTime(6, {0: 5, 1: 6}, leaving=True)
    assert run_time.with_servers(None) == RunTime(None, {0: 5, 1: 6}, leaving=True)
    assert run_time.with_weight(0, None) == RunTime(6, {1: 6}, leaving=True)
    assert run_time.with_leaving(False) == RunTime(6, {0: 5, 1: 6})
    assert run_time.differences(given) == [
        "servers = 6, not 4",
        "the weight of slot 0 is 5, not 7",
        "the weight of slot 1 is 6, not 100",
        "this machine is leaving",
    ]


@pytest.mark.parametrize(
    ("run_time", "why"),
    [
        (RunTime(servers=8), "servers = 8: slots = 8 leaves no slot for a replacement; more slots need a change of"),
        (RunTime(weights={8: 1}), "there is no slot 8: slots = 8"),
    ],
)
def test_what_does_not_go_together_is_refused(run_time: RunTime, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        run_time.applied(settings(servers=2, slots=8))


def test_the_standby_counts() -> None:
    with pytest.raises(ValueError, match=r"servers = 6 and standby = 2: slots = 8 leaves no slot"):
        RunTime(servers=6).applied(settings(servers=2, slots=8, standby=2))
    RunTime(servers=5).applied(settings(servers=2, slots=8, standby=2))
