"""The sandbox: what foreign code cannot do, what it is told apart by, and what is open without bubblewrap."""

import ast
import errno
import os
import platform
import py_compile
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bnsuite.submission.conversation import MIB, Limits, OutOfMemoryError, SandboxError
from bnsuite.submission.sandbox import Sandbox, working_bwrap

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox confines on Linux")

BWRAP = working_bwrap()
CONFINED = pytest.mark.skipif(BWRAP is None, reason="bubblewrap is not installed, or may make no namespaces")
LIMITS = Limits(wall_s=600, memory=2048 * MIB, processes=16, file=MIB, answer=MIB)
"""Its time bounds a hang alone: a busy machine may take minutes to import torch."""
HANG_S = 600
WITH_AND_WITHOUT = pytest.mark.parametrize(
    "bwrap", [pytest.param(BWRAP, marks=CONFINED), None], ids=["bubblewrap", "without"]
)


def ask(tmp_path: Path, code: str, bwrap: str | None = BWRAP, limits: Limits = LIMITS, **kwargs: Any) -> str:
    """What the sandbox says of a file that is loaded."""
    path = tmp_path / "mine.py"
    path.write_text(code, encoding="utf-8")
    said = Sandbox(bwrap).ask(path, {"ask": "describe"}, limits, **kwargs)
    return str(said.get("failed", said))


REPORT = "raise ValueError('; '.join(found))"
TRIES = """
found = []
def attempt(name, act):
    try:
        found.append(f"{name}: {act()!r}")
    except Exception as error:
        found.append(f"{name}: {type(error).__name__}")
"""


@CONFINED
def test_it_sees_no_files_and_no_network_and_writes_nowhere_but_in_its_own_room(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("token")
    server = socket.create_server(("127.0.0.1", 0))
    package = Path(__file__).parents[2] / "bnsuite"
    code = (
        TRIES
        + f"""
import os, socket, tempfile
attempt("secret", lambda: open({str(secret)!r}).read())
attempt("passwords", lambda: open("/etc/passwd").read())
attempt("network", lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2))
attempt("environment", lambda: sorted(name for name in os.environ if "TOKEN" in name))
for place in ("/submission/x", "/x", "/usr/x", "/dev/x", {str(package / "x")!r}):
    attempt(place, lambda: open(place, "w"))
attempt("room", lambda: tempfile.TemporaryFile("w").write("x"))
attempt("processes", lambda: sum(name.isdigit() for name in os.listdir("/proc")) < 5)
{REPORT}
"""
    )
    os.environ["SOME_TOKEN"] = "s"
    try:
        found = ask(tmp_path, code)
    finally:
        del os.environ["SOME_TOKEN"]
        server.close()
    assert "secret: FileNotFoundError; passwords: " in found
    assert "passwords: 'root" not in found
    assert "network: PermissionError" in found or "network: OSError" in found
    assert "environment: []" in found
    for place in ("/submission/x", "/x", "/usr/x", "/dev/x", str(package / "x")):
        assert f"{place}: OSError" in found or f"{place}: PermissionError" in found
    assert "room: 1; processes: True" in found
    assert not (package / "x").exists()


@CONFINED
def test_it_is_nobody_without_rights(tmp_path: Path) -> None:
    code = (
        TRIES
        + f"""
import os
attempt("user", lambda: os.getuid() == {os.getuid()} == 0)
status = open("/proc/self/status").read().split()
attempt("rights", lambda: status[status.index("CapEff:") + 1])
attempt("root", lambda: os.setuid(0))
{REPORT}
"""
    )
    found = ask(tmp_path, code)
    assert "user: False; rights: '0000000000000000'" in found
    assert os.getuid() != 0 or "root: PermissionError" in found


CALLS = """
import ctypes, fcntl, mmap, os, socket, tempfile
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(number, *arguments) < 0 else 0
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of these calls are x86-64's")
@WITH_AND_WITHOUT
def test_what_the_kernel_would_hide_or_open_is_refused(tmp_path: Path, bwrap: str | None) -> None:
    code = f"""{CALLS}{TRIES}
attempt("memfd", lambda: call(319, b"x", 0))
attempt("shmget", lambda: call(29, 0, 1 << 20, 0o1600))
attempt("unshare", lambda: call(272, 0x10000000))
attempt("keyctl", lambda: call(250, 0, -3, 0))
attempt("clone3", lambda: call(435, 0, 0))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("inet", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("pair", lambda: socket.socketpair())
attempt("vmsplice", lambda: call(278, os.pipe()[1], 0, 0, 0))
attempt("splice", lambda: call(275, -1, 0, -1, 0, 0, 0))
attempt("tee", lambda: call(276, -1, -1, 0, 0))
attempt("inotify", lambda: call(294, 0))
attempt("inotify of old", lambda: call(253))
attempt("landlock", lambda: call(444, 0, 0, 1))
attempt("pidfd_getfd", lambda: call(438, -1, 0, 0))
attempt("shared", lambda: mmap.mmap(-1, 4096))
attempt("huge", lambda: mmap.mmap(-1, 1 << 21, flags=0x40000 | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
attempt("private", lambda: mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) and "there")
with tempfile.TemporaryFile() as file:
    file.truncate(4096)
    attempt("file", lambda: mmap.mmap(file.fileno(), 4096) and "there")
    attempt("lock", lambda: fcntl.lockf(file, fcntl.LOCK_EX, 1, 1))
    attempt("whole", lambda: fcntl.flock(file, fcntl.LOCK_EX))
    attempt("flags", lambda: fcntl.fcntl(file, fcntl.F_GETFD))
attempt("thread", lambda: __import__("threading").Thread(target=print).start())
attempt("fork", lambda: os.waitpid(os.fork() or os._exit(0), 0)[1])
{REPORT}
"""
    found = ask(tmp_path, code, bwrap)
    for name in (
        *("memfd", "shmget", "unshare", "keyctl", "vmsplice", "splice", "tee", "inotify", "inotify of old"),
        *("landlock", "pidfd_getfd"),
    ):
        assert f"{name}: {errno.EPERM};" in found
    assert f"clone3: {errno.ENOSYS};" in found
    for name in ("vsock", "inet", "unix", "pair", "shared", "huge", "lock"):
        assert f" {name}: PermissionError;" in found
    assert "private: 'there'; file: 'there';" in found
    assert "whole: None; flags: 1; thread: None; fork: 0" in found


@CONFINED
def test_no_more_of_a_prefix_is_seen_than_python_needs(tmp_path: Path) -> None:
    code = TRIES + f"import os\nattempt('prefix', lambda: sorted(os.listdir({sys.prefix!r})))\n{REPORT}"
    seen = ask(tmp_path, code).partition("prefix: ")[2]
    assert set(ast.literal_eval(seen)) <= {"bin", "lib", "lib64", "pyvenv.cfg"}


def test_the_file_itself_is_run_and_no_compiled_one(tmp_path: Path) -> None:
    """A compiled file that is never checked against its source would be taken for it."""
    other = tmp_path / "other.py"
    other.write_text("raise ValueError('the compiled one ran')")
    cache = tmp_path / "__pycache__" / f"mine.{sys.implementation.cache_tag}.pyc"
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), str(cache), invalidation_mode=mode)
    assert "the file itself" in ask(tmp_path, "raise ValueError('the file itself')", None)


@CONFINED
def test_it_cannot_fork_without_end(tmp_path: Path) -> None:
    name, code = _named("""
import os, time
n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(3600)
            os._exit(0)
        n += 1
except OSError as error:
    raise ValueError(f"{n < 16} {type(error).__name__}")
""")
    assert "True BlockingIOError" in ask(tmp_path, code)
    _wait_until(lambda: name not in _processes())


@WITH_AND_WITHOUT
def test_memory_and_files_are_limited(tmp_path: Path, bwrap: str | None) -> None:
    assert "MemoryError" in ask(tmp_path, "bytearray(100 * 1024**3)", bwrap)
    code = "import tempfile; tempfile.TemporaryFile().write(bytes(2 * 1024**2))"
    assert "OSError: [Errno 27] File too large" in ask(tmp_path, code, bwrap)


@CONFINED
def test_memory_of_many_processes_counts_together(tmp_path: Path) -> None:
    code = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(os.urandom(1024)) * (300 * 1024)
        time.sleep(3600)
time.sleep(3600)
"""
    with pytest.raises(
        OutOfMemoryError, match=r"stopped: it held [\d,]+ MiB of memory, and may hold 1,024 MiB"
    ):
        ask(tmp_path, code, limits=replace(LIMITS, memory=1024 * MIB))


@CONFINED
def test_files_and_folders_of_its_room_count_as_memory(tmp_path: Path) -> None:
    """An empty file is a KiB and more of the kernel's, and no part of the room's size."""
    code = """
import os, time
for n in range(400_000):
    os.mkdir(f"/tmp/{n}")
time.sleep(3600)
"""
    with pytest.raises(OutOfMemoryError, match="may hold 512 MiB"):
        ask(tmp_path, code, limits=replace(LIMITS, memory=512 * MIB))


@CONFINED
def test_no_device_hides_memory(tmp_path: Path) -> None:
    """A shared mapping of /dev/zero is memory; a pseudo-terminal has buffers."""
    code = f"{TRIES}\nimport os\nattempt('dev', lambda: sorted(os.listdir('/dev')))\n{REPORT}"
    seen = ast.literal_eval(ask(tmp_path, code).partition("dev: ")[2])
    assert seen == ["fd", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom"]


@WITH_AND_WITHOUT
def test_the_kernel_ends_it_first_where_memory_runs_out(tmp_path: Path, bwrap: str | None) -> None:
    """What a parent with CAP_SYS_RESOURCE sets, nobody without it lowers."""
    status = Path("/proc/self/status").read_text().split()
    may_lower = not int(status[status.index("CapEff:") + 1], 16) >> 24 & 1
    code = f"""
PLACE = "/proc/self/oom_score_adj"
attempt("set", lambda: open(PLACE).read().strip())
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: its files in /proc are its own
attempt("lowered", lambda: open(PLACE, "w").write("0") and open(PLACE).read().strip())
{REPORT}
"""
    found = ask(tmp_path, CALLS + TRIES + code, bwrap)
    assert "set: '1000'" in found
    assert may_lower or Sandbox(bwrap).drops is False or "lowered: PermissionError" in found


@WITH_AND_WITHOUT
def test_it_is_stopped_in_time_with_all_that_it_started(tmp_path: Path, bwrap: str | None) -> None:
    name, code = _named("import os, time\nos.fork()\ntime.sleep(3600)")
    started = time.monotonic()
    with pytest.raises(SandboxError, match=r"stopped: it did not end within 1\.5 s"):
        ask(tmp_path, code, bwrap, Limits(wall_s=1.5))
    assert time.monotonic() - started < HANG_S
    _wait_until(lambda: name not in _processes())


ENDS = {
    "import sys; sys.exit(3)": "SystemExit: 3",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "def": "line 1: invalid syntax. Mend the syntax.",
    "x = 1\n1 / 0": "line 2: ZeroDivisionError: division by zero",
    "import no_such_thing": "no module 'no_such_thing' here. A scheme is one file: if no_such",
    "raise ValueError('<script>\\n\\x1b[31m')": "ValueError: <script>",
    "scheme = 3": "wanted scheme = Scheme(…), got 3.",
    "print('noise' * 10**6); x = 1": "wanted scheme = Scheme(…), got nothing of that name.",
}


@pytest.mark.parametrize("code", ENDS)
def test_every_end_has_its_words(tmp_path: Path, code: str) -> None:
    found = ask(tmp_path, code, None)
    assert ENDS[code] in found
    assert "\n" not in found


WRITE = "import os\nfor fd in range(3, 99):\n try:\n  {}\n except OSError: pass"
DEATHS = {
    "import os; os._exit(7)": "ended without an answer, with status 7",
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "ended without an answer, by signal SIGSEGV",
    "import sys, os; print('a last word', file=sys.stderr, flush=True); os._exit(1)": "status 1: a last word",
    WRITE.format("os.write(fd, b'nonsense\\n')"): "not valid JSON",
    WRITE.format("os.write(fd, b'[]\\n')"): "not a JSON object",
    WRITE.format("os.write(fd, b'NaN\\n')"): "not valid JSON",
    WRITE.format("while True: os.write(fd, b'{}\\n' * 999)"): "stopped: it said more than 1 MiB",
}


@pytest.mark.parametrize("code", DEATHS)
def test_a_death_or_nonsense_is_told(tmp_path: Path, code: str) -> None:
    with pytest.raises(SandboxError, match=DEATHS[code]):
        ask(tmp_path, code, None)


def test_messages_before_the_last_are_heard_as_they_come(tmp_path: Path) -> None:
    code = (
        "import os\nfor fd in range(3, 99):\n try: os.write(fd, b'{\"found\": 1}\\n')\n except OSError: pass"
    )
    heard: list[Any] = []
    ask(tmp_path, code, None, hear=heard.append)
    assert heard == [{"found": 1}]


def test_without_bubblewrap_it_says_what_is_not_protected() -> None:
    sandbox = Sandbox(None)
    sandbox.group = Path("/sys/fs/cgroup/ours")
    sandbox.drops = False
    (gap, *_) = sandbox.gaps
    assert "can read your files, and tokens in the environment of your processes, write where you may" in gap
    assert "use the network and sockets such as Docker's" in gap
    assert "Install bubblewrap" in gap
    assert len(sandbox.gaps) == 1 + (os.geteuid() == 0)
    sandbox.drops = True
    (gap,) = sandbox.gaps
    assert "can read what all may read, write where all may" in gap


@CONFINED
def test_with_bubblewrap_what_the_kernel_holds_is_open_where_no_control_group_counts_it() -> None:
    sandbox = Sandbox(BWRAP)
    sandbox.group = Path("/sys/fs/cgroup/ours")
    assert sandbox.gaps == []
    sandbox.group = None
    (gap,) = sandbox.gaps
    assert "no control group counts memory that the kernel holds" in gap
    assert "systemd-run --user --scope -p Delegate=yes" in gap


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_without_bubblewrap_the_environment_of_its_parent_is_open(tmp_path: Path) -> None:
    """What the message says of tokens: its own environment is cleared, and the one above is a file."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom bnsuite.submission.sandbox import *\n"
        "box = Sandbox(None)\nbox.drops = False\n"
        "print(box.ask(Path(sys.argv[1]), {'ask': 'describe'}, Limits(wall_s=600))['failed'])"
    )
    (tmp_path / "mine.py").write_text(
        "import os\nabove = open(f'/proc/{os.getppid()}/environ').read()\n"
        "raise ValueError(f\"{'A_TOKEN' in os.environ} {'A_TOKEN=s3cret' in above}\")"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "mine.py")],
        env={**os.environ, "A_TOKEN": "s3cret"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "False True" in done.stdout


@CONFINED
def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    name, code = _named("import time\ntime.sleep(3600)")
    (tmp_path / "mine.py").write_text(code)
    program = (
        "import sys\nfrom pathlib import Path\nfrom bnsuite.submission.sandbox import *\n"
        "Sandbox(working_bwrap()).ask(Path(sys.argv[1]), {'ask': 'describe'}, Limits(wall_s=600))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "mine.py")])
    _wait_until(lambda: name in _processes())
    parent.kill()
    parent.wait()
    _wait_until(lambda: name not in _processes())


def _wait_until(what: Any) -> None:
    end = time.monotonic() + HANG_S
    while not what():
        assert time.monotonic() < end
        threading.Event().wait(0.1)


_NAMES = (f"bn-{os.getpid()}-{i}" for i in count())


def _named(code: str) -> tuple[str, str]:
    """A name that no other test's process has, and the code whose process takes it (PR_SET_NAME)."""
    name = next(_NAMES)
    return name, f"import ctypes\nctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0)\n{code}"


def _processes() -> set[str]:
    """Names of all processes that live; a child has its parent's."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            found.add(place.read_text(errors="replace").strip())
    return found
