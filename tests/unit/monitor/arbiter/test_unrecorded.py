"""Unrecorded AppServers: which are adopted, which stay, which are gone."""

import os
from collections.abc import Iterator

import pytest

from lbadaptor.contract.address import Address, Entry, Identity, State
from lbadaptor.contract.ticket import Keys
from monitor.arbiter.processes.unrecorded import UnrecordedAppServers
from monitor.contract.messages import ProbeAnswer, Probed, Unanswered
from monitor.contract.processes import start_time

KEYS = Keys(["k" * 43])
ONE, TWO = Identity(0, 1700), Identity(1, 1701)


def entry(identity: Identity, keys: Keys = KEYS) -> Entry:
    return Entry(keys.ticket(identity), Address("127.0.0.1", 9000 + identity.slot), State.OK, identity)


def answer(identity: Identity, pid: int) -> Probed:
    return Probed(*identity, ProbeAnswer(generation=identity.generation, pid=pid))


@pytest.fixture
def unrecorded() -> Iterator[UnrecordedAppServers]:
    before = len(os.listdir("/proc/self/fd"))
    yield UnrecordedAppServers([entry(ONE), entry(TWO)], KEYS, fall=2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_each_is_probed_with_its_own_key(unrecorded: UnrecordedAppServers) -> None:
    assert [(target.slot, target.key) for target in unrecorded.targets()] == [
        (0, KEYS.probe_key(KEYS.ticket(ONE))),
        (1, KEYS.probe_key(KEYS.ticket(TWO))),
    ]


def test_one_that_another_key_signed_is_not_ours() -> None:
    assert not UnrecordedAppServers([entry(ONE, Keys(["x" * 43]))], KEYS, fall=2).entries


def test_the_same_process_has_to_answer_twice(unrecorded: UnrecordedAppServers) -> None:
    assert unrecorded.answered(answer(ONE, os.getpid())) is None
    assert unrecorded.undecided
    child = unrecorded.answered(answer(ONE, os.getpid()))
    assert child is not None
    assert (child.pid, start_time(child.pid)) == (os.getpid(), start_time(os.getpid()))
    assert list(unrecorded.entries) == [TWO]
    child.release()


def test_one_that_answered_once_and_is_gone_then_is_let_go(unrecorded: UnrecordedAppServers) -> None:
    unrecorded.answered(answer(ONE, os.getpid()))
    unrecorded.unanswered(Unanswered(*ONE, "why", refused=True))
    assert list(unrecorded.entries) == [TWO]


def test_a_pid_that_does_not_exist_is_not_adopted(unrecorded: UnrecordedAppServers) -> None:
    assert unrecorded.answered(answer(ONE, 2**22 + 1)) is None
    assert unrecorded.answered(answer(ONE, 2**22 + 1)) is None
    assert ONE in unrecorded.entries


@pytest.mark.parametrize("how", ["refused", "stranger"])
def test_a_refused_port_and_another_program_mean_that_it_is_gone(unrecorded: UnrecordedAppServers, how: str) -> None:
    unrecorded.unanswered(Unanswered(*ONE, "why", refused=how == "refused", stranger=how == "stranger"))
    assert list(unrecorded.entries) == [TWO]


def test_one_that_does_not_answer_stays_and_is_waited_for_no_longer(unrecorded: UnrecordedAppServers) -> None:
    unrecorded.unanswered(Unanswered(*TWO, "why", refused=True))
    unrecorded.unanswered(Unanswered(*ONE, "no answer"))
    assert unrecorded.undecided
    unrecorded.unanswered(Unanswered(*ONE, "no answer"))
    assert not unrecorded.undecided
    assert list(unrecorded.entries) == [ONE]
