"""Questions of many callers, read together: one thread owns the reader, and takes all that waits whenever it is free.

    batches = Batches(reader)
    answers = await batches.answer([Asked("q1", "Where?", "In Rome.")])       # list of ReaderAnswer; Busy where too many wait
    batches.close()                                                            # what waits is answered first

Nobody waits for company: a question that comes alone is read at once, and those that come meanwhile form the next batch. A caller that
gives up (its future is cancelled) is passed over.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from campana.reading.answer import ReaderAnswer
from campana.reading.examples import Example
from campana.reading.reader import Reader
from campana.reading.rows import encodable


class Busy(Exception):  # noqa: N818  # a state of the server, not a mistake
    """Too many questions wait already, or the server is stopping."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, as a caller puts it."""

    id: str
    question: str
    passage: str
    threshold: float | None = None
    nbest: int = 5


@dataclass(frozen=True, eq=False)
class _Job:
    asked: Sequence[Asked]
    done: asyncio.Future[list[ReaderAnswer]]
    loop: asyncio.AbstractEventLoop

    @property
    def characters(self) -> int:
        return sum(len(one.passage) for one in self.asked)


class Batches:
    """A reader behind a queue."""

    def __init__(self, reader: Reader, max_questions: int = 64, max_characters: int = 200_000, max_waiting: int = 512) -> None:
        """A batch holds at most `max_questions` and passages of `max_characters`, one job at least; `max_waiting` questions may wait."""
        self.num_answered = 0
        self.num_batches = 0
        self._reader = reader
        self._max_questions = max_questions
        self._max_characters = max_characters
        self._max_waiting = max_waiting
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="reader", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Questions that no batch has taken yet."""
        with self._changed:
            return sum(len(job.asked) for job in self._jobs)

    @property
    def alive(self) -> bool:
        """Whether the reader's thread runs."""
        return self._thread.is_alive()

    async def answer(self, asked: Sequence[Asked]) -> list[ReaderAnswer]:
        """The answers, in order. Raises Busy, or what the reader raised."""
        loop = asyncio.get_running_loop()
        job = _Job(asked, loop.create_future(), loop)
        with self._changed:
            if not self._open or sum(len(other.asked) for other in self._jobs) + len(asked) > self._max_waiting:
                raise Busy
            self._jobs.append(job)
            self._changed.notify()
        return await job.done

    def close(self) -> None:
        """Take no more, answer what waits, and end the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            try:
                answers = self._read(jobs)
            except Exception as error:  # the callers get it; the server goes on
                for job in jobs:
                    _tell(job, error)
            else:
                self.num_batches += 1
                self.num_answered += sum(len(job.asked) for job in jobs)
                for job, own in zip(jobs, answers, strict=True):
                    _tell(job, own)

    def _next(self) -> list[_Job] | None:
        """The jobs of the next batch; None at the end."""
        with self._changed:
            while True:
                while not self._jobs and self._open:
                    self._changed.wait()
                if not self._jobs:
                    return None
                taken: list[_Job] = []
                questions = characters = 0
                while self._jobs:
                    job = self._jobs[0]
                    if job.done.cancelled():
                        self._jobs.popleft()
                        continue
                    questions, characters = questions + len(job.asked), characters + job.characters
                    if taken and (questions > self._max_questions or characters > self._max_characters):
                        break
                    taken.append(self._jobs.popleft())
                if taken:
                    return taken

    def _read(self, jobs: Sequence[_Job]) -> list[list[ReaderAnswer]]:
        examples = [Example(one.id, encodable(one.question), encodable(one.passage)) for job in jobs for one in job.asked]
        found = self._reader.find(examples)
        return [[self._reader.say(next(found), one.threshold, one.nbest) for one in job.asked] for job in jobs]


def _tell(job: _Job, result: list[ReaderAnswer] | Exception) -> None:
    """Hand the result to the caller's loop; a caller that is gone is none."""

    def set_it() -> None:
        if job.done.done():
            return
        if isinstance(result, Exception):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)

    if not job.loop.is_closed():
        job.loop.call_soon_threadsafe(set_it)
