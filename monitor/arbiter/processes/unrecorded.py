"""AppServers that the old address.text names and state.json does not: whose are they, and do they live?

Only a probe with the generation's own key can tell. Until each is decided on, a new monitor writes nothing;
one that does not answer, and whose port is not refused either, stays in address.text as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lbadaptor.contract.address import Entry, Identity
from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.ticket import Keys
from lbadaptor.log import logs, texts
from monitor.arbiter.files.state_json import start_time
from monitor.arbiter.processes.child import Child
from monitor.contract.messages import Probed, Target, Unanswered
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")


class Strays:
    """All that are not decided on, or stay as they are. `patience` is in seconds, `fall` in failed probes."""

    def __init__(
        self,
        entries: Iterable[Entry],
        keys: Keys,
        fall: int,
        until: float,
        problems: Problems | None = None,
        unix_socket: Callable[[int], str] = lambda slot: "",
    ) -> None:
        self._unix_socket = unix_socket
        self._problems = Problems() if problems is None else problems
        self.entries: dict[Identity, Entry] = {}
        self._keys: dict[Identity, str] = {}
        self._undecided: set[Identity] = set()
        self._failed: dict[Identity, int] = {}
        self._children: dict[Identity, Child] = {}
        self._fall = fall
        self._until = until
        for entry in entries:
            try:
                self._keys[entry.identity] = keys.probe_key(entry.ticket)
            except KeyFileError as error:
                log.error(
                    "slot %d of the last address.text is not ours, and is left out: %s", entry.identity.slot, error
                )
                continue
            self.entries[entry.identity] = entry
            self._undecided.add(entry.identity)

    def undecided(self, now: float) -> bool:
        """Whether to go on waiting."""
        return bool(self._undecided) and now < self._until

    def targets(self) -> list[Target]:
        """Whom to probe."""
        return [
            Target(*identity, *entry.address, self._keys[identity], self._unix_socket(identity.slot))
            for identity, entry in self.entries.items()
        ]

    def answered(self, probed: Probed) -> Child | None:
        """One answered. The process to adopt, when it has answered twice from the same one.

        The pid is its own word, confirmed by the kernel (`peers`); 0 where it is not. The process is opened after the
        first answer; that the same pid answers again, and that one has not ended, says that they are one.
        """
        identity = Identity(probed.slot, probed.generation)
        self._failed.pop(identity, None)
        child = self._children.pop(identity, None)
        if child is not None:
            if child.pid == probed.vitals.pid and not child.over():
                self.forget(identity)
                return child
            child.release()
        if not probed.vitals.pid:
            self._problems.begin(
                f"stray {identity.slot}",
                f"slot {identity.slot} answers, but the system does not say which process it is: it is not adopted",
            )
            return None
        try:
            self._children[identity] = Child.adopt(probed.vitals.pid, start_time(probed.vitals.pid))
        except OSError as error:
            self._problems.begin(
                f"stray {identity.slot}",
                f"slot {identity.slot} says that it is process {probed.vitals.pid}: {texts.what(error)}",
            )
        return None

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
        """It is gone, adopted, or none of ours."""
        self._problems.end(f"stray {identity.slot}")
        del self.entries[identity]
        if child := self._children.pop(identity, None):
            child.release()
        self._undecided.discard(identity)
