"""Strays: who is adopted, who stays, who is gone."""

import os
from collections.abc import Iterator

import pytest

from lbadaptor.contract.address import Address, Entry, Identity, State
from lbadaptor.contract.ticket import Keys
from monitor.arbiter.files.state_json import start_time
from monitor.arbiter.processes.unrecorded import Strays
from monitor.contract.messages import Probed, Unanswered, Vitals

KEYS = Keys(["k" * 43])
ONE, TWO = Identity(0, 1700), Identity(1, 1701)


def entry(identity: Identity, keys: Keys = KEYS) -> Entry:
    return Entry(keys.ticket(identity), Address("127.0.0.1", 9000 + identity.slot), State.OK, identity)


def answer(identity: Identity, pid: int) -> Probed:
    return Probed(*identity, Vitals(generation=identity.generation, pid=pid))


@pytest.fixture
def strays() -> Iterator[Strays]:
    before = len(os.listdir("/proc/self/fd"))
    yield Strays([entry(ONE), entry(TWO)], KEYS, fall=2, until=100.0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_each_is_probed_with_its_own_key(strays: Strays) -> None:
    assert [(target.slot, target.key) for target in strays.targets()] == [
        (0, KEYS.probe_key(KEYS.ticket(ONE))),
        (1, KEYS.probe_key(KEYS.ticket(TWO))),
    ]


def test_one_that_another_key_signed_is_not_ours() -> None:
    assert not Strays([entry(ONE, Keys(["x" * 43]))], KEYS, fall=2, until=100.0).entries


def test_the_same_process_has_to_answer_twice(strays: Strays) -> None:
    assert strays.answered(answer(ONE, os.getpid())) is None
    assert strays.undecided(0.0)
    child = strays.answered(answer(ONE, os.getpid()))
    assert child is not None
    assert (child.pid, start_time(child.pid)) == (os.getpid(), start_time(os.getpid()))
    assert list(strays.entries) == [TWO]
    child.release()


def test_one_that_answered_once_and_is_gone_then_is_let_go(strays: Strays) -> None:
    strays.answered(answer(ONE, os.getpid()))
    strays.unanswered(Unanswered(*ONE, "why", refused=True))
    assert list(strays.entries) == [TWO]


def test_a_pid_that_does_not_exist_is_not_adopted(strays: Strays) -> None:
    assert strays.answered(answer(ONE, 2**22 + 1)) is None
    assert strays.answered(answer(ONE, 2**22 + 1)) is None
    assert ONE in strays.entries


@pytest.mark.parametrize("how", ["refused", "stranger"])
def test_a_refused_port_and_a_stranger_mean_that_it_is_gone(strays: Strays, how: str) -> None:
    strays.unanswered(Unanswered(*ONE, "why", refused=how == "refused", stranger=how == "stranger"))
    assert list(strays.entries) == [TWO]


def test_one_that_does_not_answer_stays_and_is_waited_for_no_longer(strays: Strays) -> None:
    strays.unanswered(Unanswered(*TWO, "why", refused=True))
    strays.unanswered(Unanswered(*ONE, "no answer"))
    assert strays.undecided(0.0)
    strays.unanswered(Unanswered(*ONE, "no answer"))
    assert not strays.undecided(0.0)
    assert list(strays.entries) == [ONE]


def test_nobody_is_waited_for_for_ever(strays: Strays) -> None:
    assert strays.undecided(99.9)
    assert not strays.undecided(100.0)
