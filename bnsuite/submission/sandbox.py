"""Sandbox: runs foreign code in a confined process of its own, and talks to it in JSON.

The sandbox protects the machine, not the numbers: code inside can answer anything, so whoever asks checks the
answer. Linux with bubblewrap confines the code fully; `Sandbox.gaps` lists what is not protected elsewhere.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from bnsuite.submission.control_groups import delegated_group, limited_group, ran_out_of_memory
from bnsuite.submission.conversation import MIB, Limits, Message, OutOfMemoryError, SandboxError, converse
from bnsuite.submission.interpreter import open_to_all, python_files, sandbox_environment
from bnsuite.submission.seccomp import refuses_system_calls

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

# If memory runs out, the kernel ends this process first; what root sets nobody else can lower.
_START = """{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null
[ -z "$0" ] || echo 0 >"$0/cgroup.procs" || exit
exec "$@"
"""
_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")  # no /dev/zero: mapped, it is uncounted memory
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu")


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
        with self._limited(limits) as group:
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
            program = [sys.executable, "-P", "-m", INSIDE]
            process = subprocess.Popen(
                [*_starter(group), *self._wrapper(path, limits, cuda, data), *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[there],
                env=sandbox_environment(),
                cwd="/",
                start_new_session=True,
            )
            os.close(there)
            rooms = ROOMS if self.bwrap else ()
            try:
                return converse(process, here, request.encode(), limits, hear, rooms)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                for stream in (process.stdin, process.stderr):
                    assert stream is not None
                    with suppress(OSError):
                        stream.close()
                os.close(here)

    @contextmanager
    def _limited(self, limits: Limits) -> Iterator[Path | None]:
        """Context with a control group for one process; tells an end for memory from other ends."""
        with ExitStack() as stack:
            try:
                group = stack.enter_context(limited_group(self.group, limits.memory, limits.processes))
            except OSError as error:
                raise SandboxError(f"no control group can be made for the process ({error})") from error
            try:
                yield group
            except SandboxError as error:
                if ran_out_of_memory(group):
                    most = f"{limits.memory // MIB:,} MiB"
                    raise OutOfMemoryError(f"stopped: it needed more memory than {most}") from error
                raise

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
