"""Control groups of Linux, version 2: the kernel's limit on all memory that a process causes.

The limit counts what no resident size does: shared pages, page tables, entries of file systems, pipes.
Source: Documentation/admin-guide/cgroup-v2.rst of the kernel.
"""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OWN = "bnsuite-main"
"""Group that the suite moves to: a group with processes of its own gives its children no controllers."""

_CONTROLLERS = {"memory", "pids"}
_OF_BUBBLEWRAP = 8
"""Processes that may run in the group in addition to those of the foreign code."""


def delegated_group(process: Path = Path("/proc/self")) -> Path | None:
    """Find the group in which this process may make groups with limits; None: there is none.

    Either a writable group that holds only this process, as `systemd-run --user --scope -p Delegate=yes`
    makes (this process then moves to `OWN` below it), or the parent of a group named `OWN`. Other groups
    belong to somebody else and are not touched.

    Args:
        process: this process's folder in /proc.
    """
    try:
        own = _group_of(process)
        if own is None:
            return None
        if own.name == OWN:
            controllers = _words(own.parent / "cgroup.subtree_control")
            return own.parent if controllers >= _CONTROLLERS and os.access(own.parent, os.W_OK) else None
        alone = _words(own / "cgroup.procs") == {str(os.getpid())}
        if not alone or not _words(own / "cgroup.controllers") >= _CONTROLLERS:
            return None
        (own / OWN).mkdir()
        (own / OWN / "cgroup.procs").write_text("0", encoding="ascii")  # 0: the process that writes
        (own / "cgroup.subtree_control").write_text("+memory +pids", encoding="ascii")
    except OSError:
        return None
    return own


@contextmanager
def limited_group(parent: Path | None, memory: int, processes: int) -> Iterator[Path | None]:
    """Context with a new group below `parent`; at its end all processes in the group are killed.

    Args:
        parent: result of `delegated_group`; None: the context has no group.
        memory: largest memory in bytes, without swap; beyond it the kernel kills the whole group.
        processes: largest number of processes and threads of the foreign code.

    Raises:
        OSError: the group cannot be made or limited.
    """
    if parent is None:
        yield None
        return
    group = Path(tempfile.mkdtemp(prefix="bnsuite-", dir=parent))
    try:
        (group / "memory.max").write_text(str(memory), encoding="ascii")
        (group / "pids.max").write_text(str(processes + _OF_BUBBLEWRAP), encoding="ascii")
        for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
            with suppress(FileNotFoundError, PermissionError):  # a kernel without swap, or before 4.19
                (group / name).write_text(value, encoding="ascii")
        yield group
    finally:
        with suppress(OSError):  # before Linux 5.14 there is no such file
            (group / "cgroup.kill").write_text("1", encoding="ascii")
        _remove(group)


def ran_out_of_memory(group: Path | None) -> bool:
    """Tell whether the kernel killed a process of the group at its memory limit."""
    if group is None:
        return False
    with suppress(OSError):
        events = (group / "memory.events").read_text(encoding="ascii").splitlines()
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in events)
    return False


def _group_of(process: Path) -> Path | None:
    """Folder of the process's group in the hierarchy of version 2; None: not mounted."""
    lines = (process / "cgroup").read_text(encoding="utf-8").splitlines()
    place = next((line[3:] for line in lines if line.startswith("0::")), None)
    if place is None:
        return None
    for line in (process / "mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        root, mounted = fields[3:5]
        if fields[fields.index("-") + 1] == "cgroup2" and Path(place).is_relative_to(root):
            return Path(mounted) / Path(place).relative_to(root)
    return None


def _words(path: Path) -> set[str]:
    return set(path.read_text(encoding="ascii").split())


def _remove(group: Path) -> None:
    """Remove a group as soon as its killed processes are gone; give up after two seconds."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                return
            time.sleep(0.02)
        else:
            return
