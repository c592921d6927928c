"""The plain schedule: one thread polls, and others take requests from a queue. See `schedule`."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.at_work import Worker
from lbadaptor.appserver.http.own_errors import OwnErrors

Task = TypeVar("Task")


class PlainSchedule(Generic[Task]):
    """One thread for each request that may be at work, and the one that polls."""

    def __init__(
        self,
        admission: Admission[Task],
        poll: Callable[[], object],
        serve: Callable[[Task], object],
        give_up: Callable[[Task], object],
        errors: OwnErrors,
    ) -> None:
        self._admission = admission
        self._poll = poll
        self._serve = serve
        self._give_up = give_up
        self._errors = errors
        self._queue: SimpleQueue[Task | None] = SimpleQueue()
        """requests that have begun; None ends a thread"""
        self._over = False
        self._workers = [
            Thread(target=self._work, args=(admission.worker(),), name=f"gateway-{number}", daemon=True)
            for number in range(admission.threads)
        ]
        self.threads = [Thread(target=self._poll_on, name="gateway-poll", daemon=True), *self._workers]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self._over = True

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        self._over = True

    def intact(self) -> bool:
        return True

    def _poll_on(self) -> None:
        while not self._over:
            try:
                self._queue_waiting()
                self._poll()
            except BaseException:
                self._errors.report("an error in the thread that polls; it begins anew, and no connection is lost")
        for _ in self._workers:  # by this thread, so that no request comes after them
            self._queue.put(None)

    def _queue_waiting(self) -> None:
        task = self._admission.begin()
        while task is not None:
            try:
                self._queue.put(task)
            except BaseException:  # MemoryError
                self._give_up(task)
                task = self._admission.end(0.0)
            else:
                task = self._admission.begin()

    def _work(self, worker: Worker[Task]) -> None:
        while (task := self._queue.get()) is not None:
            while task is not None:
                worker.since = monotonic()
                worker.task = task
                try:
                    self._serve(task)
                except BaseException:
                    self._give_up(task)
                worker.task = None
                task = self._end(worker.since)

    def _end(self, began: float) -> Task | None:
        try:
            return self._admission.end(monotonic() - began)
        except BaseException:
            self._errors.report("an error in a thread that serves requests; it begins anew")
            return None
