"""The sandbox: foreign code in a process of its own, confined, and spoken to in JSON.

It protects the machine, not the number: what runs inside can say anything, so every answer is checked
by whoever asked. Linux with bubblewrap confines all of it; `Sandbox.gaps` says what is open elsewhere.
"""

import json
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import bnsuite
from bnsuite.processes import WORKER_ENVIRONMENT
from bnsuite.submission.system_calls import refuses_system_calls
from bnsuite.words import clipped

MIB = 1024**2
INSIDE = "bnsuite.submission.inside"
PLACE = Path("/submission/scheme.py")
"""Where the foreign file lies, as bubblewrap shows it."""

DATA = Path("/data/tensors")
"""And where the tensors of a data set lie, to be read alone."""

STRANGERS = 60_578, 606
"""First user id, and how many: of no account and no service. Root becomes one: limits do not bind root."""

_LOOK_EVERY_S = 0.1
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu")
_KEPT = ("LANG", "LC_ALL", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", *WORKER_ENVIRONMENT)

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
        memory: bytes, of each process's address space and of all their resident memory together.
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
    """Runs `bnsuite.submission.inside` on one foreign file.

    Args:
        bwrap: path of bubblewrap, such as `working_bwrap()` finds; None: do without.
    """

    def __init__(self, bwrap: str | None) -> None:
        self.bwrap = bwrap
        self.drops = os.geteuid() == 0 and (bwrap is not None or _open_to_all())

    @property
    def gaps(self) -> list[str]:
        """What is not protected here, a line each."""
        found = []
        if self.bwrap is None:
            network = "" if refuses_system_calls() else ", has the network"
            found.append(
                f"without a working bubblewrap foreign code sees your files{network}, may write what you "
                "may, and what it starts in a session of its own goes on. Time, memory and file sizes are "
                "limited. Install bubblewrap, or read the code."
            )
        elif not refuses_system_calls():
            found.append("no filter of system calls for this machine: memory may be hidden in the kernel.")
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
            [*self._wrapper(path, limits, cuda, data), sys.executable, "-P", "-m", INSIDE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[there],
            env=_environment(),
            cwd="/",
            start_new_session=True,
        )
        os.close(there)
        try:
            return _converse(process, here, asked.encode(), limits, hear)
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
        command += ["--proc", "/proc", "--dev", "/dev"]
        for place in sorted(map(str, Path("/dev").glob("nvidia*"))) if cuda else ():
            command += ["--dev-bind", place, place]
        for place in ("/dev/shm", "/tmp"):  # first, since what comes next may lie in them
            command += ["--perms", "1777", "--size", str(2 * limits.file), "--tmpfs", place]
        shown = [(place, place) for place in (*_SYSTEM, *_of_python())] + [(str(path.resolve()), str(PLACE))]
        if data is not None:
            shown.append((str(data.resolve()), str(DATA)))
        parents = {str(parent) for _, place in shown for parent in Path(place).parents}
        for parent in sorted(parents - {"/", "/dev", "/tmp", "/proc"}):
            command += ["--perms", "0755", "--dir", parent]  # otherwise its own user alone may pass
        for there, here in shown:
            command += ["--ro-bind-try", there, here]
        command += ["--remount-ro", "/dev", "--remount-ro", "/"]
        return [*command, "--setenv", "HOME", "/tmp", "--chdir", "/tmp", "--"]


@cache
def working_bwrap() -> str | None:
    """The path of bubblewrap, where it is installed and may make namespaces."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    trial = [found, "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "--proc", "/proc", "true"]
    trial[1:1] = [] if os.geteuid() == 0 else ["--unshare-user"]
    try:
        done = subprocess.run(trial, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if done.returncode == 0 else None


def _converse(
    process: subprocess.Popen[bytes],
    here: int,
    asked: bytes,
    limits: Limits,
    hear: Callable[[Message], None],
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
                if (resident := _resident(process.pid)) > limits.memory:
                    raise OutOfMemoryError(_too_large(resident, limits))
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


def _too_large(resident: int, limits: Limits) -> str:
    return f"stopped: it held {resident / MIB:,.0f} MiB of memory, and may hold {limits.memory // MIB:,} MiB"


def _resident(pid: int) -> int:
    """Bytes of memory that a process and all below it hold, shared pages once; 0 where nobody tells."""
    total = 0
    for one in _family(pid):
        with suppress(OSError, ValueError, IndexError):
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii")
            total += int(rollup.partition("\nPss:")[2].split()[0]) * 1024
    return total


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _of_python() -> list[str]:
    """What this interpreter and package are read from."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    prefixes.add(str(Path(sys.executable).resolve().parent.parent))
    roots = {Path(prefix, part) for prefix in prefixes for part in ("bin", "lib", "lib64", "pyvenv.cfg")}
    roots |= {Path(bnsuite.__file__).parent, *_site_packages()}  # no more of a prefix, which may be a home
    outer = [root for root in roots if root.exists() and not roots & {*root.parents}]
    return sorted(str(root) for root in outer if not root.is_relative_to("/usr"))


def _site_packages() -> list[Path]:
    """Where packages are installed, a user's own place among them."""
    return [Path(place) for place in sys.path if place.endswith(("site-packages", "dist-packages"))]


def _open_to_all() -> bool:
    """Whether a user without an account could read this interpreter and package."""

    def open_(path: Path) -> bool:
        return all(one.stat().st_mode & stat.S_IXOTH for one in (path, *path.parents))

    return all(open_(Path(place)) for place in _of_python())


def _environment() -> Mapping[str, str]:
    """What a process inside needs of the environment: nothing that names a user or holds a token."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    places = [Path(bnsuite.__file__).parent.parent, *_site_packages()]
    fixed = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(map(str, places))}
    fixed["PYTHONDONTWRITEBYTECODE"] = "1"
    return {**WORKER_ENVIRONMENT, **kept, **fixed}
