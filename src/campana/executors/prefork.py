"""The prefork server: a process that imports slow modules once and forks a child a task, in tens of milliseconds instead of seconds.

It owns both ends of one Unix socket: `PreforkServer` in the runner's process, and `python -m campana.executors.prefork FD`. It
forks only while it has a single thread, the one condition under which a fork is sound; otherwise, and once it is gone, it refuses
the task and the caller starts a fresh interpreter. A child runs the very argv that a fresh interpreter would. The server ends with
its parent, and its children with it.

Messages, each a JSON object in one packet:
    to the server    {"do": "start", "key", "argv", "imports"} with two descriptors: the task's stdout, its lock
                     {"do": "signal", "key", "number"}
    from the server  {"key", "started": true or false}, {"key", "exit_code"}
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from campana.core.executor import Hear, Job
from campana.core.work import LOG_NAME
from campana.executors.environment import task_environment
from campana.executors.lines import Lines
from campana.parts import known

MESSAGE_BYTES = 65536
STOPS = (signal.SIGINT, signal.SIGTERM)
"""What asks a task to end."""


class Readable(Protocol):
    """Something that `Local` waits for."""

    def fileno(self) -> int:
        """For a selector."""
        ...

    def read(self) -> None:
        """Take in what is there."""
        ...


class PreforkServer:
    """The runner's end. The server starts with the first task; no call waits for it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_dead = False
        self._asked: dict[str, tuple[Job, Hear]] = {}
        """Tasks of which the server has not said yet whether it forks them; each with a lock descriptor of its own."""
        self._lines: dict[str, tuple[Lines, int]] = {}
        self._refused: list[tuple[Job, Hear]] = []
        self._ended: list[tuple[str, int]] = []

    def start(self, job: Job, hear: Hear) -> bool:
        """Ask for a child for the task; False where that cannot be, and nothing has been done."""
        if self._is_dead:
            return False
        ours, theirs = os.pipe()
        request = {"do": "start", "key": job.key, "argv": job.argv(-1)[1:], "imports": job.imports}
        try:
            socket.send_fds(self._open(), [json.dumps(request).encode()], [theirs, job.lock_descriptor])
        except OSError:
            self._die()
            os.close(ours)
            return False
        finally:
            os.close(theirs)
        self._asked[job.key] = (replace(job, lock_descriptor=os.dup(job.lock_descriptor)), hear)
        self._lines[job.key] = (Lines(job.key, ours, hear), ours)
        return True

    def sources(self) -> list[Readable]:
        """What to wait for."""
        own: list[Readable] = [self] if self._socket is not None and not self._is_dead else []
        return own + [lines for lines, _ in self._lines.values() if not lines.is_over]

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno() if self._socket is not None else -1

    def read(self) -> None:
        """Take in what the server says. Where it died, all its children did."""
        while self._socket is not None and not self._is_dead:
            try:
                packet = self._socket.recv(MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if packet:
                self._note(json.loads(packet))
            else:
                self._die()

    def take_refused(self) -> list[tuple[Job, Hear]]:
        """The tasks that were not forked, for a fresh interpreter. The caller closes their lock descriptors."""
        refused, self._refused = self._refused, []
        return refused

    def take_ended(self) -> list[tuple[str, int]]:
        """The tasks that ended since the last call, with their exit codes; every line of theirs has been told."""
        ended, self._ended = self._ended, []
        for key, _ in ended:
            lines, descriptor = self._lines.pop(key)
            lines.read()
            os.close(descriptor)
        return ended

    def signal(self, key: str, number: int) -> None:
        """Send a signal to a task's process group; the server knows whether it still is."""
        if key in self._lines and self._socket is not None and not self._is_dead:
            with contextlib.suppress(OSError):
                self._socket.send(json.dumps({"do": "signal", "key": key, "number": int(number)}).encode())

    def close(self) -> None:
        """End the server and all children."""
        self._is_dead = True
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.wait()
            self._process = None
        for _, descriptor in self._lines.values():
            os.close(descriptor)
        for job, _ in [*self._asked.values(), *self._refused]:
            os.close(job.lock_descriptor)
        self._lines.clear()
        self._asked.clear()
        self._refused.clear()

    def _open(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "campana.executors.prefork", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**task_environment(), "OPENBLAS_NUM_THREADS": "1"},  # numpy's BLAS would start its threads when it is imported
            )
            theirs.close()
            self._socket = ours
        return self._socket

    def _note(self, row: Mapping[str, Any]) -> None:
        key = str(row["key"])
        if "exit_code" in row:
            self._ended.append((key, int(row["exit_code"])))
        elif row["started"]:
            os.close(self._asked.pop(key)[0].lock_descriptor)
        else:
            self._refuse(key)

    def _refuse(self, key: str) -> None:
        os.close(self._lines.pop(key)[1])
        self._refused.append(self._asked.pop(key))

    def _die(self) -> None:
        self._is_dead = True
        for key in list(self._asked):
            self._refuse(key)
        told = {key for key, _ in self._ended}
        self._ended += [(key, -signal.SIGKILL) for key in self._lines if key not in told]


def serve(descriptor: int) -> int:
    """The server's end: until the parent is gone. Returns, in a child, the exit code of its task."""
    link = socket.socket(fileno=descriptor)
    with contextlib.suppress(Exception):  # what every task needs; a broken part is for the task itself to say
        importlib.import_module("campana.worker")
        known("stage")
    children: dict[int, str] = {}
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # the runner decides when its tasks end
    wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        selector.register(wake_reader, selectors.EVENT_READ)
        while True:
            news = {key.fileobj for key, _ in selector.select()}
            if wake_reader in news:
                os.read(wake_reader, 4096)
            try:
                _reap(link, children)
                if link not in news:
                    continue
                packet, descriptors, _, _ = socket.recv_fds(link, MESSAGE_BYTES, 2)
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                _kill_all(children)
                return 0
            argv = _obey(json.loads(packet), link, children, descriptors)
            if argv is not None:
                signal.set_wakeup_fd(-1)
                os.close(wake_reader)
                os.close(wake_writer)
                break
        selector.close()
    link.close()
    return _run_child(argv, descriptors)


def _obey(request: dict[str, Any], link: socket.socket, children: dict[int, str], descriptors: list[int]) -> list[str] | None:
    """Do what a message asks for. In a forked child, and only there, returns its argv."""
    if request["do"] == "signal":
        for pid in [pid for pid, key in children.items() if key == request["key"]]:
            _send(pid, request["number"])
        return None
    missing = [name for name in request["imports"] if name not in sys.modules]
    for name in missing:
        with contextlib.suppress(Exception):  # the stage itself will say it, in its own process
            importlib.import_module(name)
    if missing:
        gc.collect()
        gc.freeze()  # or the first collection in a child would copy every page of what was imported
    server = os.getpid()
    can_fork = _num_threads() == 1
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # a child that still ignores them, as this process does, would lose them
    pid = os.fork() if can_fork else -1
    if pid == 0:
        os.setsid()
        return [*request["argv"], "--parent", str(server)]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    if can_fork:
        children[pid] = request["key"]
    for descriptor in descriptors:
        os.close(descriptor)
    link.send(json.dumps({"key": request["key"], "started": can_fork}).encode())
    return None


def _run_child(argv: list[str], descriptors: list[int]) -> int:
    """Be what `python -m campana.worker task.json ...` is: the same arguments, descriptors and signals."""
    stdout, lock = descriptors
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    os.dup2(stdout, 1)
    os.close(stdout)
    module, *arguments = argv
    log = os.open(Path(arguments[0]).parent / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)
    os.close(log)
    place = arguments.index("--lock-fd") + 1
    arguments[place] = str(lock)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _reap(link: socket.socket, children: dict[int, str]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            link.send(json.dumps({"key": children.pop(pid), "exit_code": os.waitstatus_to_exitcode(status)}).encode())


def _kill_all(children: dict[int, str]) -> None:
    for pid in children:
        _send(pid, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    """Signal a child that has not been reaped, with its group; alone where it has not made its group yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)


def _num_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[1])))
