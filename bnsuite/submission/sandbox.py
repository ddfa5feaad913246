"""Sandbox: runs foreign code in a confined process of its own, and talks to it in JSON.

The sandbox protects the machine, not the numbers: code inside can answer anything, so whoever asks checks the
    answer.
Linux with bubblewrap confines the code fully; `Sandbox.gaps` lists what is not protected elsewhere.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bnsuite.submission.control_groups import delegated_group, limited_group, ran_out_of_memory
from bnsuite.submission.held_memory import held_memory
from bnsuite.submission.interpreter import environment, open_to_all, python_files
from bnsuite.submission.seccomp import refuses_system_calls
from bnsuite.text import clipped

MIB = 1024**2

INSIDE = "bnsuite.submission.worker"
"""Module that runs inside the sandbox."""

PLACE = Path("/submission/scheme.py")
"""Path of the foreign file inside bubblewrap."""

DATA = Path("/data/tensors")
"""Path of a data set's tensors inside bubblewrap, read-only."""

STRANGERS = 60_578, 606
"""First user id of a range without accounts, and its length: root, whom limits do not bind, becomes one."""

ROOMS = ("/dev/shm", "/tmp")
"""Folders in which foreign code may write, each a tmpfs."""

_LOOK_EVERY_S = 0.1
# If memory runs out, the kernel ends this process first; what root sets nobody else can lower.
_START = """{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null
[ -z "$0" ] || echo 0 >"$0/cgroup.procs" || exit
exec "$@"
"""
_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")  # no /dev/zero: mapped, it is uncounted memory
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu")

Message = dict[str, Any]


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


class Sandbox:
    """Confined process that runs `bnsuite.submission.worker` on one foreign file.

    Args:
        bwrap: path of bubblewrap, such as `working_bwrap()` finds; None: do without bubblewrap.

    Attributes:
        drops: whether the process switches from root to a user of no account.
        group: control group in which limits can be set; None: there is none.
    """

    def __init__(self, bwrap: str | None) -> None:
        self.bwrap = bwrap
        self.drops = os.geteuid() == 0 and (bwrap is not None or open_to_all())
        self.group = delegated_group()

    @property
    def gaps(self) -> list[str]:
        """Gaps in the protection on this machine, one line each."""
        gaps = []
        if self.bwrap is None:
            files = "your files, and tokens in the environment of your processes"
            read, write = ("what all may read", "all") if self.drops else (files, "you")
            where = "on a GPU " if refuses_system_calls() else ""
            gaps.append(
                f"without a working bubblewrap foreign code can read {read}, write where {write} may, "
                f"{where}use the network and sockets such as Docker's, and leave processes behind. Only "
                "time, memory and file sizes are limited. Install bubblewrap, or read the code."
            )
        elif not refuses_system_calls():
            gaps.append("no filter of system calls for this machine: memory may be hidden in the kernel.")
        if self.group is None and sys.platform == "linux":
            gaps.append(
                "no control group counts memory that the kernel holds for foreign code: mappings and pipes, "
                "and on a GPU shared pages and socket buffers. Where systemd runs, start with: "
                "systemd-run --user --scope -p Delegate=yes bnsuite …"
            )
        if os.geteuid() == 0 and not self.drops:
            gaps.append(
                "foreign code runs as root, whom process limits do not bind, since no other user can read "
                "this Python. Run as another user, or install bubblewrap."
            )
        return gaps

    def ask(
        self,
        path: Path,
        question: Message,
        limits: Limits,
        hear: Callable[[Message], None] = lambda _: None,
        cuda: bool = False,
        data: Path | None = None,
    ) -> Message:
        """Ask a new process one question; returns its last message.

        Args:
            path: foreign file.
            question: question for `worker`.
            limits: limits of the process.
            hear: called with each message before the last one.
            cuda: whether the process may use the GPU.
            data: data file that the process may also read; the question's `data_file` tells it the path.

        Raises:
            SandboxError: the process was stopped at a limit, died, or sent something other than a JSON
                object.
        """
        with ExitStack() as stack:
            try:
                group = stack.enter_context(limited_group(self.group, limits.memory, limits.processes))
            except OSError as error:
                raise SandboxError(f"no control group can be made for the process ({error})") from error
            try:
                return self._ask(path, question, limits, hear, cuda, data, group)
            except SandboxError as error:
                if ran_out_of_memory(group):
                    most = f"{limits.memory // MIB:,} MiB"
                    raise OutOfMemoryError(f"stopped: it needed more memory than {most}") from error
                raise

    def _ask(
        self,
        path: Path,
        question: Message,
        limits: Limits,
        hear: Callable[[Message], None],
        cuda: bool,
        data: Path | None,
        group: Path | None,
    ) -> Message:
        here, there = os.pipe()
        place = PLACE if self.bwrap else path.resolve()
        bound = {
            "address_space": 0 if cuda else limits.memory,  # CUDA reserves more addresses than memory
            "processes": limits.processes,
            "file": limits.file,
            "user": STRANGERS[0] + os.getpid() % STRANGERS[1] if self.drops else None,
            "filter": refuses_system_calls() and not cuda,  # a GPU driver needs calls of its own
        }
        data_file = None if data is None else str(DATA if self.bwrap else data.resolve())
        places = {"path": str(place), "data_file": data_file, "answer_to": there}
        request = json.dumps({**places, "limits": bound, **question})
        process = subprocess.Popen(
            [*_starter(group), *self._wrapper(path, limits, cuda, data), sys.executable, "-P", "-m", INSIDE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[there],
            env=environment(),
            cwd="/",
            start_new_session=True,
        )
        os.close(there)
        rooms = ROOMS if self.bwrap else ()
        try:
            return _converse(process, here, request.encode(), limits, hear, rooms)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stderr):
                assert stream is not None
                with suppress(OSError):
                    stream.close()
            os.close(here)

    def _wrapper(self, path: Path, limits: Limits, cuda: bool, data: Path | None) -> list[str]:
        if self.bwrap is None:
            return []
        command = [self.bwrap, "--die-with-parent", "--new-session", "--hostname", "sandbox", "--unshare-uts"]
        command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-cgroup-try"]
        command += ["--cap-drop", "ALL"]
        if self.drops:  # the worker switches users inside, before it loads the code
            command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            command += ["--unshare-user"]
        command += ["--proc", "/proc"]
        if cuda:  # the driver may need any device
            command += ["--dev", "/dev"]
        else:
            command += ["--perms", "0755", "--tmpfs", "/dev"]
            for name, file in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
                command += ["--symlink", f"/proc/self/fd{file}", f"/dev/{name}"]
        for place in map(str, sorted(Path("/dev").glob("nvidia*"))) if cuda else _DEVICES:
            command += ["--dev-bind", place, place]
        for place in ROOMS:  # before the files, which may lie in these folders
            command += ["--perms", "1777", "--size", str(2 * limits.file), "--tmpfs", place]
        shown = [(place, place) for place in (*_SYSTEM, *python_files())] + [
            (str(path.resolve()), str(PLACE))
        ]
        if data is not None:
            shown.append((str(data.resolve()), str(DATA)))
        parents = {str(parent) for _, place in shown for parent in Path(place).parents}
        for parent in sorted(parents - {"/", "/dev", "/tmp", "/proc"}):
            command += ["--perms", "0755", "--dir", parent]  # by default only the owner may enter
        for there, here in shown:
            command += ["--ro-bind-try", there, here]
        command += ["--remount-ro", "/dev", "--remount-ro", "/"]
        return [*command, "--setenv", "HOME", "/tmp", "--chdir", "/tmp", "--"]


def _starter(group: Path | None) -> list[str]:
    """Command that joins the control group, and then becomes the command that follows it."""
    return ["/bin/sh", "-c", _START, str(group or "")] if sys.platform == "linux" else []


@cache
def working_bwrap() -> str | None:
    """Path of bubblewrap, if it is installed and may make namespaces; otherwise None."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return None
    trial = [bwrap, "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "--proc", "/proc", "true"]
    trial[1:1] = [] if os.geteuid() == 0 else ["--unshare-user"]
    try:
        done = subprocess.run(trial, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bwrap if done.returncode == 0 else None


def _converse(
    process: subprocess.Popen[bytes],
    here: int,
    request: bytes,
    limits: Limits,
    hear: Callable[[Message], None],
    rooms: Sequence[str],
) -> Message:
    """Send the request and read messages to the last; raises at the first limit that the process passes."""
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
    def refuse(number: str) -> float:
        raise ValueError(f"{number} is not a finite number")

    try:
        message = json.loads(line, parse_constant=refuse)
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
