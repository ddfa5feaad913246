"""Memory that a sandboxed process holds, as its parent sees it in /proc."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

ENTRY = 2048
"""Bytes that the kernel keeps for a file or folder of a tmpfs: inode, directory entry and a long name."""


def held_memory(pid: int, rooms: Sequence[str] = ()) -> int:
    """Bytes that a process and all below it hold, shared pages once; 0 where nobody tells.

    Resident and swapped pages, page tables, and the files and folders of its tmpfs mounts without their
    content, which the mounts themselves limit.

    Args:
        pid: process id of bubblewrap, or of Python where there is none.
        rooms: where the tmpfs mounts lie, as bubblewrap's child sees them.
    """
    family = [*_family(pid)]
    total = 0
    for one in family:
        with suppress(OSError, ValueError):
            total += _kib(f"/proc/{one}/smaps_rollup", "Pss:", "SwapPss:") * 1024
            total += _kib(f"/proc/{one}/status", "VmPTE:") * 1024
    for room in rooms if len(family) > 1 else ():
        with suppress(OSError):
            place = f"/proc/{family[1]}/root{room}"
            if os.stat(place).st_dev != os.stat(room).st_dev:  # the same while bubblewrap makes its mounts
                found = os.statvfs(place)
                total += (found.f_files - found.f_ffree) * ENTRY
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
