"""Worker processes: each works on one item at a time and reports what it finds; a lost one is replaced."""

import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from threading import Thread, current_thread, main_thread
from typing import Any, NamedTuple, TypeVar

WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}
"""Environment variables that are read when a process starts, and so can be set for workers alone.

With those of glibc, large blocks are taken from the heap, in huge pages, and not from the kernel at every
operation: a training step takes a quarter less time. Other C libraries ignore them.
"""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Environment variables from which numerical libraries read their number of threads on loading."""

ATTEMPTS = 2
"""Number of worker processes that one item may lose."""

_PROGRAM = (
    "import sys; fd, parent, *sys.path[:] = sys.argv[1:]; "
    "from bnsuite.execute.pool import serve_parent; serve_parent(int(fd), int(parent))"
)
_LOOK_EVERY_S = 0.5
_EXIT_WITHIN_S = 5.0

T = TypeVar("T")
R = TypeVar("R")


class Failed(NamedTuple):
    """Result of an item that no worker could finish; `reason` is one line."""

    reason: str


def side_by_side(
    work: Callable[[T, Callable[[str], None]], R],
    items: Sequence[T],
    workers: int,
    hear: Callable[[T, str], None],
    defaults: Mapping[str, str],
) -> Iterator[tuple[T, R | Failed]]:
    """Yield each item with the result of `work(item, report)`, in the order in which workers finish.

    A worker that is lost, however it ended, costs its own item one retry, and is replaced. The result of an
    item that loses `ATTEMPTS` workers, or that cannot be pickled, is `Failed`. An exception that `work`
    raises is raised here.

    Args:
        work: called in a worker; its `report` calls `hear` in this process.
        items: each is pickled when a worker is free for it; what `__main__` defines, by value.
        workers: number of processes.
        hear: called with an item and a text, for each report.
        defaults: environment variables of the workers; those of this process take precedence.
    """
    due = deque(range(len(items)))
    ends: dict[int, list[str]] = {i: [] for i in due}
    crew: list[_Worker] = []
    environment = {**defaults, **os.environ}
    busy = True
    try:
        while busy:
            while due and (worker := _free(crew, workers, environment)):
                worker.item = due.popleft()
                worker.give((work, items[worker.item]))
            for worker, kind, content in _messages(crew):
                i = worker.item
                if kind == "raised":
                    raise content
                if i is None:  # lost between two items
                    continue
                if kind == "found":
                    hear(items[i], content)
                    continue
                worker.item = None
                if kind == "lost":
                    ends[i].append(content)
                    if len(ends[i]) < ATTEMPTS:
                        hear(items[i], f"worker {content}: trying the cell once more")
                        due.appendleft(i)
                        continue
                    content = Failed(f"lost {ATTEMPTS} worker processes: {' and '.join(ends[i])}")
                yield items[i], content
            busy = bool(due) or any(worker.item is not None for worker in crew)
    finally:
        _end(crew, at_once=busy)


def _end(crew: Sequence["_Worker"], at_once: bool) -> None:
    """End all workers, side by side."""
    for worker in crew:
        worker.dismiss(at_once=at_once)
    for worker in crew:
        worker.end()


class _Worker:
    """A process that works on one item at a time, with this process's end of the pipe to it.

    It runs `_PROGRAM` and never imports this process's `__main__`, so scripts need no guard.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.connection, theirs = Pipe()
        self.item: int | None = None
        with theirs:
            command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid()), *sys.path]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
            )

    def give(self, task: object) -> None:
        """Send a task; a worker that is gone by now is noticed by `hear`."""
        from cloudpickle import dumps

        try:
            message = dumps(task)
        except Exception as error:
            message = pickle.dumps(_one_line(error))
        with suppress(OSError):
            self.connection.send_bytes(message)

    def hear(self, ready: bool) -> tuple[str, Any] | None:
        """Read the worker's next message, a kind and its content; None where there is none.

        Kinds are `found` (a text), `done` (a result), `raised` (an exception) and `lost` (how the process
        ended).

        Looks at the process as well as at the pipe, which a process forked by the worker may hold open.
        """
        try:
            if ready:
                kind, content = self.connection.recv()
                return kind, content
            if self.process.poll() is None or self.connection.poll():
                return None
        except Exception:  # broken off, perhaps within a message, or garbled
            self.connection.close()
        return "lost", self.end()

    def dismiss(self, at_once: bool) -> None:
        """Close the pipe, which ends a worker that waits for an item; `at_once` kills it whatever it does."""
        self.connection.close()
        if at_once:
            self.process.kill()

    def end(self) -> str:
        """Wait for the process, kill it if it goes on, and return how it ended."""
        try:
            return ending(self.process.wait(_EXIT_WITHIN_S))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "stopped, since it fell silent"


def _free(crew: list[_Worker], most: int, environment: Mapping[str, str]) -> _Worker | None:
    """Find a worker without an item, or start one; None where all are busy.

    SIGINT is held back while a worker starts, and blocked in the worker: this process ends its workers.
    """
    for worker in crew:
        if worker.item is None and worker.process.poll() is None:  # one that died idle costs no item
            return worker
    if len(crew) == most:
        return None
    with interrupts_wait():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            crew.append(_Worker(environment))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return crew[-1]


def _messages(crew: list[_Worker]) -> Iterator[tuple[_Worker, str, Any]]:
    """Wait for a message; yield at most one per worker. Lost workers are removed from `crew`."""
    ready = wait([worker.connection for worker in crew], _LOOK_EVERY_S)
    for worker in [*crew]:
        if heard := worker.hear(worker.connection in ready):
            kind, content = heard
            if kind == "lost":
                crew.remove(worker)
                worker.connection.close()
            yield worker, kind, content


def ending(status: int) -> str:
    """Describe the end of a process by its return code: `killed by SIGSEGV`, `ended with exit status 1`."""
    if status >= 0:
        return f"ended with exit status {status}"
    names = {one.value: one.name for one in signal.Signals}
    memory = ", perhaps for memory" if -status == signal.SIGKILL else ""
    return f"killed by {names.get(-status, f'signal {-status}')}{memory}"


def serve_parent(fd: int, parent: int) -> None:
    """Work on what the parent hands over until it closes the pipe: the program of a worker.

    Args:
        fd: file descriptor of the worker's end of the pipe.
        parent: process id.
    """
    os.set_inheritable(fd, False)
    connection = Connection(fd)
    leave_with_parent(parent)

    def say(kind: str, content: object) -> None:
        try:
            connection.send((kind, content))
        except OSError:  # the parent is gone
            os._exit(1)

    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            task = pickle.loads(message)
        except Exception as error:
            task = _one_line(error)
        if isinstance(task, str):
            say(
                "done", Failed(f"cannot be handed to a worker process ({task}). Measure it with --workers 1.")
            )
            continue
        work, item = task
        try:
            answer = "done", work(item, lambda text: say("found", text))
        except Exception as error:
            answer = "raised", _portable(error)
        say(*answer)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _portable(error: Exception) -> Exception:
    """The exception with its traceback as a note; a `RuntimeError` of that text where none can be pickled."""
    words = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(words)
    error.add_note(words)
    return error


def leave_with_parent(parent: int) -> None:
    """End this process within a second of its parent, however that ends.

    A killed run would otherwise leave workers behind, which slow down the run that goes on.

    Args:
        parent: process id of the parent.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Delay the KeyboardInterrupt of a Ctrl-C during the block to its end."""
    if current_thread() is not main_thread():
        yield
        return
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pending:
            signal.raise_signal(signal.SIGINT)
