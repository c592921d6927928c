"""AppServers that run, and that state.json does not record: named by the old address.text, or found at their sockets.

Here alone is decided which process an answer to a probe comes from, for a new monitor that adopts AppServers as for
`lbctl stop --all`, which ends them. Only a probe with the generation's own key is believed. A new monitor writes no
address.text until each of these AppServers is decided on, or time is up (`Adoption`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lbadaptor.contract.address import Entry, Identity
from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.ticket import Keys
from lbadaptor.log import logs, texts
from monitor.arbiter.processes.child import Child
from monitor.contract.messages import Probed, Target, Unanswered
from monitor.contract.processes import belongs, start_time
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")


class UnrecordedAppServers:
    """Those that are not decided on yet, and those that stay in address.text as they are.

    `named` are those of address.text; `found` those that no file names, which must have been started for
    `run_folder`. `fall`: failed probes until one is waited for no longer.
    """

    def __init__(
        self,
        named: Iterable[Entry],
        keys: Keys,
        fall: int,
        problems: Problems | None = None,
        unix_socket: Callable[[int], str] = lambda slot: "",
        found: Iterable[Entry] = (),
        run_folder: str = "",
    ) -> None:
        self._unix_socket = unix_socket
        self._problems = Problems() if problems is None else problems
        self.entries: dict[Identity, Entry] = {}
        self._keys: dict[Identity, str] = {}
        self._undecided: set[Identity] = set()
        self._failed: dict[Identity, int] = {}
        self._children: dict[Identity, Child] = {}
        self._fall = fall
        self._run_folder = run_folder
        found = tuple(found)
        self._found = {entry.identity for entry in found}
        for entry in (*named, *found):
            try:
                self._keys[entry.identity] = keys.probe_key(entry.ticket)
            except KeyFileError as error:
                log.error(
                    "slot %d of the last address.text is not ours, and is left out: %s", entry.identity.slot, error
                )
                continue
            self.entries[entry.identity] = entry
            self._undecided.add(entry.identity)

    @property
    def undecided(self) -> bool:
        """Whether there are some that no probe has decided on yet."""
        return bool(self._undecided)

    def targets(self) -> list[Target]:
        """Which to probe."""
        return [
            Target(*identity, *entry.address, self._keys[identity], self._unix_socket(identity.slot))
            for identity, entry in self.entries.items()
        ]

    def answered(self, probed: Probed) -> Child | None:
        """One answered. Its process, when it has answered twice from the same one; it is forgotten here then.

        The pid in the answer is confirmed by the kernel already (`Line`); it is 0 where it is not. The process is
        opened after the first answer. The same pid in a second answer, while the opened process has not ended, shows
        that the process that was opened is the one that answers.
        """
        identity = Identity(probed.slot, probed.generation)
        if not self._of_this_run_folder(identity, probed.answer.pid):
            return None
        self._failed.pop(identity, None)
        child = self._children.pop(identity, None)
        if child is not None:
            if child.pid == probed.answer.pid and not child.over():
                self.forget(identity)
                return child
            child.release()
        if not probed.answer.pid:
            self._problems.begin(
                f"unrecorded {identity.slot}",
                f"slot {identity.slot} answers, but the system does not say which process it is: it is not adopted",
            )
            return None
        try:
            self._children[identity] = Child.adopt(probed.answer.pid, start_time(probed.answer.pid))
        except OSError as error:
            self._problems.begin(
                f"unrecorded {identity.slot}",
                f"slot {identity.slot} says that it is process {probed.answer.pid}: {texts.what(error)}",
            )
        return None

    def _of_this_run_folder(self, identity: Identity, pid: int) -> bool:
        """Whether it may be adopted: two monitors may have one key file, and ports in common."""
        if identity not in self._found:
            return True
        ours = belongs(pid, self._run_folder)
        if ours is False:
            log.warning("slot %d is another monitor's, and is not adopted", identity.slot)
            self.forget(identity)
        return bool(ours)  # where that is unknown, the next probe asks again

    def unanswered(self, missed: Unanswered) -> None:
        """One did not answer."""
        identity = Identity(missed.slot, missed.generation)
        self._failed[identity] = self._failed.get(identity, 0) + 1
        if missed.refused or missed.stranger:
            log.info("slot %d has ended meanwhile: %s", identity.slot, missed.why)
            self.forget(identity)
        elif self._failed[identity] >= self._fall and identity in self._undecided:
            log.warning("slot %d does not answer (%s); it stays in address.text as it is", identity.slot, missed.why)
            self._undecided.discard(identity)

    def take_back(self, entry: Entry) -> None:
        """One that was to be adopted could not be."""
        self.entries[entry.identity] = entry

    def forget(self, identity: Identity) -> None:
        """It is gone, adopted, or not ours."""
        self._problems.end(f"unrecorded {identity.slot}")
        del self.entries[identity]
        if child := self._children.pop(identity, None):
            child.release()
        self._undecided.discard(identity)

    def close(self) -> None:
        """Let go of all processes that were opened."""
        for identity in list(self.entries):
            self.forget(identity)
