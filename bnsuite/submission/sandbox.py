"""The sandbox: foreign code in a process of its own, confined, and spoken to in JSON.

It protects the machine, not the number: what runs inside can say anything, so every answer is checked
by whoever asked. Linux with bubblewrap confines all of it; `Sandbox.gaps` says what is open elsewhere.
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
PLACE = Path("/submission/scheme.py")
"""Where the foreign file lies, as bubblewrap shows it."""

DATA = Path("/data/tensors")
"""And where the tensors of a data set lie, to be read alone."""

STRANGERS = 60_578, 606
"""First user id, and how many: of no account and no service. Root becomes one: limits do not bind root."""

ROOMS = ("/dev/shm", "/tmp")
"""Where it may write: a tmpfs each."""

_LOOK_EVERY_S = 0.1
# Where memory runs out, the kernel ends this first. What root sets nobody else can lower.
_START = """{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null
[ -z "$0" ] || echo 0 >"$0/cgroup.procs" || exit
exec "$@"
"""
_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")  # no /dev/zero: mapped, it is uncounted memory
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu")

Message = dict[str, Any]


class SandboxError(Exception):
    """What ran inside was stopped, or ended without an answer; the message is one line."""


class OutOfMemoryError(SandboxError):
    """It needed more memory than it may have."""


@dataclass(frozen=True)
class Limits:
    """What a process inside may use.

    Attributes:
        wall_s: seconds by the parent's clock.
        memory: bytes, of each process's address space and of all that they hold together.
        processes: processes and threads together.
        file: bytes of one file; what it can write to holds twice as much.
        answer: bytes of everything that it says.
    """

    wall_s: float
    memory: int = 8 * 1024 * MIB
    processes: int = 64
    file: int = 64 * MIB
    answer: int = 8 * MIB


class Sandbox:
    """Runs `bnsuite.submission.worker` on one foreign file.

    Args:
        bwrap: path of bubblewrap, such as `working_bwrap()` finds; None: do without.
    """

    def __init__(self, bwrap: str | None) -> None:
        self.bwrap = bwrap
        self.drops = os.geteuid() == 0 and (bwrap is not None or open_to_all())
        self.group = delegated_group()

    @property
    def gaps(self) -> list[str]:
        """What is not protected here, a line each."""
        found = []
        if self.bwrap is None:
            files = "your files, and tokens in the environment of your processes"
            read, write = ("what all may read", "all") if self.drops else (files, "you")
            where = "on a GPU " if refuses_system_calls() else ""
            found.append(
                f"without a working bubblewrap foreign code can read {read}, write where {write} may, "
                f"{where}use the network and sockets such as Docker's, and leave processes behind. Only "
                "time, memory and file sizes are limited. Install bubblewrap, or read the code."
            )
        elif not refuses_system_calls():
            found.append("no filter of system calls for this machine: memory may be hidden in the kernel.")
        if self.group is None and sys.platform == "linux":
            found.append(
                "no control group counts memory that the kernel holds for foreign code: mappings and pipes, "
                "and on a GPU shared pages and socket buffers. Where systemd runs, start with: "
                "systemd-run --user --scope -p Delegate=yes bnsuite …"
            )
        if os.geteuid() == 0 and not self.drops:
            found.append(
                "foreign code runs as root, whom process limits do not bind, since no other user can read "
                "this Python. Run as another user, or install bubblewrap."
            )
        return found

    def ask(
        self,
        path: Path,
        question: Message,
        limits: Limits,
        hear: Callable[[Message], None] = lambda message: None,
        cuda: bool = False,
        data: Path | None = None,
    ) -> Message:
        """The last message that a process gives to a question; `hear` takes those before it.

        Args:
            data: a file that it may read besides, whose place is the question's `data_file`.

        Raises:
            SandboxError: it was stopped at a limit, died, or spoke what is no JSON object.
        """
        with ExitStack() as stack:
            try:
                group = stack.enter_context(limited_group(self.group, limits.memory, limits.processes))
            except OSError as error:
                raise SandboxError(f"no control group can be made for it ({error})") from error
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
            "address_space": 0 if cuda else limits.memory,  # CUDA reserves more than there is
            "processes": limits.processes,
            "file": limits.file,
            "user": STRANGERS[0] + os.getpid() % STRANGERS[1] if self.drops else None,
            "filter": refuses_system_calls() and not cuda,  # a driver has calls of its own
        }
        data_file = None if data is None else str(DATA if self.bwrap else data.resolve())
        places = {"path": str(place), "data_file": data_file, "answer_to": there}
        asked = json.dumps({**places, "limits": bound, **question})
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
            return _converse(process, here, asked.encode(), limits, hear, rooms)
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
        if self.drops:  # within, before the code is loaded
            command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            command += ["--unshare-user"]
        command += ["--proc", "/proc"]
        if cuda:  # its driver may want any device
            command += ["--dev", "/dev"]
        else:
            command += ["--perms", "0755", "--tmpfs", "/dev"]
            for name, file in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
                command += ["--symlink", f"/proc/self/fd{file}", f"/dev/{name}"]
        for place in map(str, sorted(Path("/dev").glob("nvidia*"))) if cuda else _DEVICES:
            command += ["--dev-bind", place, place]
        for place in ROOMS:  # first, since what comes next may lie in them
            command += ["--perms", "1777", "--size", str(2 * limits.file), "--tmpfs", place]
        shown = [(place, place) for place in (*_SYSTEM, *python_files())] + [
            (str(path.resolve()), str(PLACE))
        ]
        if data is not None:
            shown.append((str(data.resolve()), str(DATA)))
        parents = {str(parent) for _, place in shown for parent in Path(place).parents}
        for parent in sorted(parents - {"/", "/dev", "/tmp", "/proc"}):
            command += ["--perms", "0755", "--dir", parent]  # otherwise its own user alone may pass
        for there, here in shown:
            command += ["--ro-bind-try", there, here]
        command += ["--remount-ro", "/dev", "--remount-ro", "/"]
        return [*command, "--setenv", "HOME", "/tmp", "--chdir", "/tmp", "--"]


def _starter(group: Path | None) -> list[str]:
    """What joins the control group and then becomes the command that follows."""
    return ["/bin/sh", "-c", _START, str(group or "")] if sys.platform == "linux" else []


@cache
def working_bwrap() -> str | None:
    """The path of bubblewrap, where it is installed and may make namespaces."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    trial = [found, "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "--proc", "/proc", "true"]
    trial[1:1] = [] if os.geteuid() == 0 else ["--unshare-user"]
    try:
        done = subprocess.run(trial, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if done.returncode == 0 else None


def _converse(
    process: subprocess.Popen[bytes],
    here: int,
    asked: bytes,
    limits: Limits,
    hear: Callable[[Message], None],
    rooms: Sequence[str],
) -> Message:
    """Ask, hear, and stop it at the first limit that it passes."""
    assert process.stdin is not None
    assert process.stderr is not None
    with suppress(BrokenPipeError):
        process.stdin.write(asked)
        process.stdin.close()
    last: Message | None = None
    said, parts, complaints = 0, list[bytes](), deque[bytes](maxlen=8)
    looked, end = 0.0, time.monotonic() + limits.wall_s
    with selectors.DefaultSelector() as streams:
        streams.register(here, selectors.EVENT_READ)
        streams.register(process.stderr, selectors.EVENT_READ)
        while here in streams.get_map():
            now = time.monotonic()
            if now > end:
                raise SandboxError(f"stopped: it did not end within {limits.wall_s:g} s")
            if now > looked + _LOOK_EVERY_S:
                looked = now
                if (held := held_memory(process.pid, rooms)) > limits.memory:
                    raise OutOfMemoryError(_too_large(held, limits))
            for key, _ in streams.select(_LOOK_EVERY_S):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    streams.unregister(key.fileobj)
                elif key.fd != here:
                    complaints.append(chunk[-2000:])
                else:
                    said += len(chunk)
                    if said > limits.answer:
                        raise SandboxError(f"stopped: it said more than {limits.answer // MIB} MiB")
                    first, *rest = chunk.split(b"\n")
                    parts.append(first)
                    for part in rest:
                        if last is not None:
                            hear(last)
                        last, parts = _parsed(b"".join(parts)), [part]
    if last is None or not last.get("last"):
        if last is not None:
            hear(last)
        status = _status(process)
        words = b"".join(complaints).decode(errors="replace").strip().splitlines()
        raise SandboxError(
            f"ended without an answer, {_ending(status)}{': ' + clipped(words[-1], 200) if words else ''}"
        )
    return last


def _status(process: subprocess.Popen[bytes]) -> int:
    """How a process ended that says nothing more; one that goes on is killed."""
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
    names = {one.value: one.name for one in signal.Signals}
    return f"by signal {names.get(-status, -status)}" if status < 0 else f"with status {status}"


def _too_large(held: int, limits: Limits) -> str:
    return f"stopped: it held {held / MIB:,.0f} MiB of memory, and may hold {limits.memory // MIB:,} MiB"
