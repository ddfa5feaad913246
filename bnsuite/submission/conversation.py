"""Conversation with a sandboxed process: messages in JSON, limits on what it may use, and its end."""

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bnsuite.records.store import parse_json
from bnsuite.submission.held_memory import held_memory
from bnsuite.text import clipped

MIB = 1024**2
_LOOK_EVERY_S = 0.1

Message = dict[str, Any]
"""JSON object that the process sends in one line; the last one has `last` set."""


class SandboxError(Exception):
    """Foreign code was stopped, or ended without an answer; the message is one line."""


class OutOfMemoryError(SandboxError):
    """Foreign code needed more memory than it may have."""


@dataclass(frozen=True)
class Limits:
    """Limits of a sandboxed process.

    Attributes:
        wall_s: seconds by the parent's clock.
        memory: bytes of each process's address space, and of what all its processes hold together.
        processes: processes and threads together.
        file: bytes of one file; each folder that it may write to holds twice as much.
        answer: bytes of all its messages together.
    """

    wall_s: float
    memory: int = 8 * 1024 * MIB
    processes: int = 64
    file: int = 64 * MIB
    answer: int = 8 * MIB


def converse(
    process: subprocess.Popen[bytes],
    here: int,
    request: bytes,
    limits: Limits,
    hear: Callable[[Message], None],
    rooms: Sequence[str],
) -> Message:
    """Send the request, and read messages up to the last one, which is returned.

    Args:
        process: the sandboxed process.
        here: file descriptor that its messages come from.
        request: JSON for its standard input.
        limits: limits of the process.
        hear: called with each message before the last one.
        rooms: folders whose tmpfs counts as memory (see `held_memory`).

    Raises:
        OutOfMemoryError: the process holds more memory than it may.
        SandboxError: the process passes another limit, or ends without a last message.
    """
    assert process.stdin is not None
    assert process.stderr is not None
    with suppress(BrokenPipeError):
        process.stdin.write(request)
        process.stdin.close()
    messages, stderr = _Messages(limits.answer, hear), deque[bytes](maxlen=8)
    looked_at, end = 0.0, time.monotonic() + limits.wall_s
    with selectors.DefaultSelector() as streams:
        streams.register(here, selectors.EVENT_READ)
        streams.register(process.stderr, selectors.EVENT_READ)
        while here in streams.get_map():
            now = time.monotonic()
            if now > end:
                raise SandboxError(f"stopped: it did not end within {limits.wall_s:g} s")
            if now > looked_at + _LOOK_EVERY_S:
                looked_at = now
                if (held := held_memory(process.pid, rooms)) > limits.memory:
                    raise OutOfMemoryError(_too_large(held, limits))
            for key, _ in streams.select(_LOOK_EVERY_S):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    streams.unregister(key.fileobj)
                elif key.fd == here:
                    messages.add(chunk)
                else:
                    stderr.append(chunk[-2000:])
    last = messages.last
    if last is None or not last.get("last"):
        if last is not None:
            hear(last)
        status = _status(process)
        lines = b"".join(stderr).decode(errors="replace").strip().splitlines()
        raise SandboxError(
            f"ended without an answer, {_ending(status)}{': ' + clipped(lines[-1], 200) if lines else ''}"
        )
    return last


class _Messages:
    """Messages of a process, one JSON object per line; `hear` gets each of them but the last."""

    def __init__(self, most_bytes: int, hear: Callable[[Message], None]) -> None:
        self.last: Message | None = None
        self._most_bytes, self._hear = most_bytes, hear
        self._bytes, self._parts = 0, list[bytes]()

    def add(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        if self._bytes > self._most_bytes:
            raise SandboxError(f"stopped: it said more than {self._most_bytes // MIB} MiB")
        first, *rest = chunk.split(b"\n")
        self._parts.append(first)
        for part in rest:
            if self.last is not None:
                self._hear(self.last)
            self.last, self._parts = _parsed(b"".join(self._parts)), [part]


def _status(process: subprocess.Popen[bytes]) -> int:
    """Exit status of a process that sends no more messages; kills it if it goes on."""
    try:
        return process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _parsed(line: bytes) -> Message:
    try:
        message = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise SandboxError(f"its answer is not valid JSON ({error})") from error
    if not isinstance(message, dict):
        raise SandboxError("its answer is not a JSON object")
    return message


def _ending(status: int) -> str:
    names = {number.value: number.name for number in signal.Signals}
    return f"by signal {names.get(-status, -status)}" if status < 0 else f"with status {status}"


def _too_large(held: int, limits: Limits) -> str:
    return f"stopped: it held {held / MIB:,.0f} MiB of memory, and may hold {limits.memory // MIB:,} MiB"
