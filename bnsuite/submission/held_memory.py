"""Memory that a sandboxed process holds, as its parent reads it from /proc."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

ENTRY = 2048
"""Bytes that the kernel needs for a file or folder of a tmpfs: inode, directory entry and a long name."""


def held_memory(pid: int, rooms: Sequence[str] = ()) -> int:
    """Bytes that a process and its descendants hold, shared pages counted once; 0 where /proc does not say.

    Counts resident and swapped pages, page tables, and entries of its tmpfs mounts; the mounts themselves
    limit the content of their files.

    Args:
        pid: process id of bubblewrap, or of Python without bubblewrap.
        rooms: folders of the tmpfs mounts, as bubblewrap's child sees them.
    """
    family = [*_family(pid)]
    total = 0
    for member in family:
        with suppress(OSError, ValueError):
            total += _kib(f"/proc/{member}/smaps_rollup", "Pss:", "SwapPss:") * 1024
            total += _kib(f"/proc/{member}/status", "VmPTE:") * 1024
    for room in rooms if len(family) > 1 else ():
        with suppress(OSError):
            place = f"/proc/{family[1]}/root{room}"
            if os.stat(place).st_dev != os.stat(room).st_dev:  # equal until bubblewrap has made its mounts
                status = os.statvfs(place)
                total += (status.f_files - status.f_ffree) * ENTRY
    return total


def _kib(path: str, *names: str) -> int:
    """Sum of the named lines of a file in /proc."""
    lines = (line.split() for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines())
    return sum(int(words[1]) for words in lines if words and words[0] in names)


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
