"""The runner: build what is missing, inputs first, as much at once as the machine holds.

It owns the order, the limits and what a failure blocks. It refuses nothing that the store or an executor can decide: built is what
the store has, and who may build is who holds the key's lock.

    result = run([report], store, Local(), observer)
    if result.failed: ...

A failure blocks its descendants only. Another run's live build is waited for and reused; a dead one's lock is gone with it. On
Ctrl-C or SIGTERM the tasks are stopped and the store is left so that the same call goes on.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from campana.core.disk import disk_errors
from campana.core.executor import Ended, Executor, Job, Notice
from campana.core.graph import by_key, input_keys
from campana.core.machine import this_machine
from campana.core.observer import (
    Blocked,
    Built,
    Failed,
    Interrupted,
    Observer,
    Planned,
    Progressed,
    Reused,
    Started,
    Stopping,
    Waiting,
    ignore,
)
from campana.core.plan import needed_keys
from campana.core.spec import Expected, Resources, Stage
from campana.core.store import Store
from campana.core.task import NAME, Task
from campana.errors import StoreError

TICK_SECONDS = 0.2
GRACE_SECONDS = 30.0
"""Between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. Keys, in the order in which they ended."""

    built: tuple[str, ...]
    reused: tuple[str, ...]
    failed: dict[str, str]
    """Key -> error, in words for a person."""
    blocked: dict[str, str]
    """Key -> the failed key that it needs."""
    interrupted: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is in the store."""
        return not (self.failed or self.blocked or self.interrupted)


def run(
    targets: Sequence[Stage],
    store: Store,
    executor: Executor,
    observer: Observer = ignore,
    resources: Resources | None = None,
    grace_seconds: float = GRACE_SECONDS,
    expected: Mapping[str, Expected] | None = None,
) -> RunResult:
    """Build the targets and all they need that is missing. Stages that only built stages need are left alone.

    `resources`: what may be used at once; None: the machine. A stage that asks for more runs alone. The executor is not closed.
    `expected`: by key, what stages were predicted to take: they are given that much memory, and it is recorded with them.
    Raises `StudyError` on a cycle, `StoreError` where the store cannot be written.
    """
    stages = by_key(targets)
    built = {key for key in stages if store.has(key)}
    needed = needed_keys(stages, [target.key for target in targets], built)
    observer(Planned(tuple(stages[key] for key in stages if key in built), tuple(stages[key] for key in stages if key in needed)))
    for key in stages:
        if key in built:
            observer(Reused(stages[key]))
    pending = [key for key in stages if key in needed]
    state = _Run(stages, store, executor, observer, resources or this_machine(), done=built, pending=pending, expected=expected or {})
    state.reused = [key for key in stages if key in built]
    if needed:
        in_use = store.in_use()
        if in_use is None:
            raise StoreError("`campana gc` is deleting from this store", where=str(store.root), hint="wait until it has ended")
        try:
            state.go(grace_seconds)
        finally:
            in_use.release_shared()
    return RunResult(tuple(state.built), tuple(state.reused), state.failed, state.blocked, state.interrupted)


@dataclass
class _Run:
    """The state of a run: which keys are where. Each needed key goes from `pending` to `running` and to one of the ends."""

    stages: dict[str, Stage]
    store: Store
    executor: Executor
    observer: Observer
    limit: Resources
    done: set[str]
    pending: list[str]
    expected: Mapping[str, Expected]
    running: dict[str, Resources] = field(default_factory=dict[str, Resources])
    waiting: set[str] = field(default_factory=set[str])
    built: list[str] = field(default_factory=list[str])
    reused: list[str] = field(default_factory=list[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    blocked: dict[str, str] = field(default_factory=dict[str, str])
    interrupted: bool = False
    errors: dict[str, str] = field(default_factory=dict[str, str])
    """What running tasks said of their failure, until they end."""

    def go(self, grace_seconds: float) -> None:
        """Until nothing is pending and nothing runs, or a signal comes."""
        with _signals(self.executor.is_serial) as signals:
            try:
                while (self.pending or self.running) and not signals.count:
                    self._start_ready(lambda: signals.count > 0)
                    if self.running or self.waiting:
                        self.executor.wait(TICK_SECONDS)
                if signals.count:
                    self._interrupt(grace_seconds, lambda: signals.count > 1)
            except KeyboardInterrupt:
                self._interrupt(grace_seconds, lambda: True)
            except BaseException:
                self._stop(grace_seconds, lambda: True)
                raise

    def _start_ready(self, is_over: Callable[[], bool]) -> None:
        for key in list(self.pending):
            if is_over():
                return
            if key not in self.blocked and self.done.issuperset(input_keys(self.stages[key])) and self._fits(key):
                self._try(key)

    def _share(self, key: str) -> Resources:
        """What the stage gets: what it is predicted to need, or else asks for, within the machine."""
        wanted, told = self.stages[key].resources, self.expected.get(key)
        memory = wanted.memory_bytes if told is None or told.memory_bytes is None else told.memory_bytes
        return Resources(min(wanted.cores, self.limit.cores), min(memory, self.limit.memory_bytes), wanted.ranks)

    def _fits(self, key: str) -> bool:
        share = self._share(key)
        cores = sum(each.cores for each in self.running.values()) + share.cores
        memory = sum(each.memory_bytes for each in self.running.values()) + share.memory_bytes
        return cores <= self.limit.cores and memory <= self.limit.memory_bytes

    def _try(self, key: str) -> None:
        """Start the key, or reuse it, or wait for the run that builds it."""
        stage = self.stages[key]
        lock = self.store.lock(key)
        if lock is None:
            if key not in self.waiting:
                self.waiting.add(key)
                self.observer(Waiting(stage))
            return
        self.waiting.discard(key)
        try:
            self.store.settle(key)
            if self.store.has(key):
                self._leave(key)
                self.done.add(key)
                self.reused.append(key)
                self.observer(Reused(stage))
                lock.release()
                return
            self._launch(key, lock.descriptor)
        except BaseException:
            self.running.pop(key, None)
            self.store.settle(key, "interrupted")
            lock.release()
            raise
        if not self.executor.is_serial:
            lock.hand_over()
        else:
            lock.release()

    def _launch(self, key: str, lock_descriptor: int) -> None:
        stage, share = self.stages[key], self._share(key)
        task_path = self.store.work_dir(key) / NAME
        with disk_errors(task_path):
            Task.of(stage, self.store.root, share, self.expected.get(key)).write(task_path)
        self._leave(key)
        self.running[key] = share
        self.observer(Started(stage))
        self.executor.start(Job(key, task_path.resolve(), lock_descriptor, stage.spec.imports), self._hear)

    def _leave(self, key: str) -> None:
        self.pending.remove(key)

    def _hear(self, news: Notice | Ended) -> None:
        if isinstance(news, Ended):
            self._end(news)
        elif news.row.get("event") == "progress":
            row = news.row
            self.observer(Progressed(self.stages[news.key], row["done"], row["total"], row["unit"], row["figures"]))
        elif news.row.get("event") == "failed":
            self.errors[news.key] = str(news.row["error"])

    def _end(self, news: Ended) -> None:
        key, stage = news.key, self.stages[news.key]
        self.running.pop(key, None)
        told = self.errors.pop(key, None)
        if self.store.has(key):
            self.done.add(key)
            self.built.append(key)
            self.observer(Built(stage, self.store.manifest(key).seconds))
            return
        error = told or ("interrupted" if self.interrupted else _end_in_words(news.exit_code))
        self._settle(key, error)
        if self.interrupted:
            return
        self.failed[key] = error
        self.observer(Failed(stage, error))
        self._block(key)

    def _settle(self, key: str, error: str) -> None:
        """Charge a try that could not say its own end. Where something of it still lives, the next run does so."""
        if self.executor.is_serial:
            self.store.settle(key, error)
            return
        lock = self.store.lock(key)
        if lock is not None:
            with lock:
                self.store.settle(key, error)

    def _block(self, failed: str) -> None:
        lost = {failed}
        for key in list(self.pending):
            if not lost.isdisjoint(input_keys(self.stages[key])):
                lost.add(key)
                self._leave(key)
                self.waiting.discard(key)
                self.blocked[key] = failed
                self.observer(Blocked(self.stages[key], self.stages[failed]))

    def _interrupt(self, grace_seconds: float, at_once: Callable[[], bool]) -> None:
        self.interrupted = True
        stages = tuple(self.stages[key] for key in self.running)
        if stages and not at_once():
            self.observer(Stopping(stages))
        self._stop(grace_seconds, at_once)
        self.observer(Interrupted(stages))

    def _stop(self, grace_seconds: float, at_once: Callable[[], bool]) -> None:
        """End all tasks: ask, and then make them."""
        self.interrupted = True
        deadline = time.monotonic() + grace_seconds
        self.executor.stop(tuple(self.running), at_once=False)
        while self.running and time.monotonic() < deadline and not at_once():
            self.executor.wait(TICK_SECONDS / 4)
        self.executor.stop(tuple(self.running), at_once=True)
        last = time.monotonic() + GRACE_SECONDS
        while self.running and time.monotonic() < last:
            self.executor.wait(TICK_SECONDS / 4)


def _end_in_words(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL\nhint: was the machine out of memory? `dmesg` would say; ask for more memory or fewer cores"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"its process ended with code {exit_code} and without a result"


class _Signals:
    """How often the person asked the run to stop."""

    count = 0


@contextlib.contextmanager
def _signals(is_serial: bool) -> Generator[_Signals]:
    """Count SIGINT and SIGTERM; where the stage runs in this thread, raise KeyboardInterrupt in it instead.

    Only the main thread can; elsewhere signals are its business.
    """
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        signals.count += 1
        if is_serial:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
