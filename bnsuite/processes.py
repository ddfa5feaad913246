"""Worker processes: a channel by which they tell the parent what they have found so far, and how they end."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from threading import Thread, current_thread, main_thread
from types import TracebackType
from typing import Self

# Large blocks come back from the heap, in huge pages, and not fresh from the kernel at every operation:
# a quarter less time a step (glibc; ignored elsewhere). Read when a process starts, so for workers only.
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}


class Channel:
    """Listens in a thread and hands each (name, text) on; within `with`, its `address` takes messages."""

    def __init__(self, receive: Callable[[str, str], None]) -> None:
        self._receive = receive
        self._key = os.urandom(16)

    def __enter__(self) -> Self:
        self._listener = Listener(authkey=self._key)
        self.address: tuple[str, bytes] = (str(self._listener.address), self._key)
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        send(self.address, "", "")
        self._thread.join(timeout=1)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                with self._listener.accept() as connection:
                    name, text = json.loads(connection.recv_bytes())
            except (OSError, EOFError, ValueError, AuthenticationError):  # a worker that died while speaking
                continue
            if not name:
                return
            self._receive(name, text)


def send(address: tuple[str, bytes], name: str, text: str) -> None:
    """Tell the channel at this address; a parent that is gone ends the worker's cell."""
    place, key = address
    with Client(place, authkey=key) as connection:
        connection.send_bytes(json.dumps([name, text]).encode())


@cache
def leave_with_parent(parent: int) -> None:
    """From now on, end this worker within a second of its parent (a process id), however that ended.

    A killed run would otherwise leave workers behind that measure for nobody, beside the run that goes on.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C during the block is raised at its end."""
    if current_thread() is not main_thread():
        yield
        return
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pending:
            signal.raise_signal(signal.SIGINT)
