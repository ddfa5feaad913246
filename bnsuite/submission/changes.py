"""What a pull request with a submission may change: its own folder, in plain files of a few kinds.

`python -m bnsuite.submission.changes BASE HEAD` prints the submission's name, or says what is wrong and
fails. It reads git's list of changes, and no file of the pull request.
"""

import re
import subprocess
import sys
from typing import NamedTuple

from bnsuite.records.manifest import FILE, NAME

FOLDER = "leaderboard/submissions"
MOST_FILES = 400
LARGEST = 4 * 1024**2
"""Bytes of one file."""

_PLAIN = "100644"
_ALLOWED = re.compile(
    rf"{FOLDER}/({NAME})/(scheme\.py|test_scheme\.py|{re.escape(FILE)}|records/[\w+=,./-]+\.json)"
)


class Change(NamedTuple):
    """One changed file: git's mode after the change (000000: deleted), its content's id, its path."""

    mode: str
    blob: str
    path: str


def submission_of(changes: list[Change], sizes: dict[str, int]) -> str:
    """The name of the one submission that the changes are of; ValueError, one line, where they are not.

    Args:
        sizes: bytes of each blob.
    """
    if not changes:
        raise ValueError("the pull request changes nothing")
    if len(changes) > MOST_FILES:
        raise ValueError(f"a submission has at most {MOST_FILES} files: got {len(changes)}")
    names = set()
    for mode, blob, path in changes:
        found = _ALLOWED.fullmatch(path)
        if found is None or ".." in path:
            raise ValueError(
                f"{path!r}: a submission changes {FOLDER}/NAME/ alone: scheme.py, test_scheme.py, {FILE} and "
                "records/**.json. Put other changes into a pull request of their own."
            )
        if mode not in (_PLAIN, "000000"):
            raise ValueError(f"{path!r}: a plain file, git's mode {_PLAIN}, is wanted: got {mode}")
        if sizes.get(blob, 0) > LARGEST:
            raise ValueError(f"{path!r}: at most {LARGEST} bytes: got {sizes[blob]}")
        names.add(found[1])
    if len(names) > 1:
        raise ValueError(f"one submission a pull request: got {', '.join(sorted(names))}")
    return names.pop()


def changes_between(base: str, head: str) -> tuple[list[Change], dict[str, int]]:
    """What git says of head since it left base, and how large each file is."""
    raw = _git("diff", "--raw", "-z", "--no-renames", "--no-abbrev", f"{base}...{head}", "--").split("\0")
    changes = []
    for described, path in zip(raw[::2], raw[1::2], strict=False):
        _, mode, _, blob, _ = described.split(" ")
        changes.append(Change(mode, blob, path))
    blobs = "\n".join(change.blob for change in changes)
    sizes = (line.split() for line in _git("cat-file", "--batch-check", asked=blobs).splitlines())
    return changes, {blob: int(rest[1]) for blob, *rest in sizes if rest[0] == "blob"}


def _git(*arguments: str, asked: str | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], input=asked, capture_output=True, text=True, check=True, errors="replace"
    )
    return done.stdout


def main() -> None:
    try:
        print(submission_of(*changes_between(*sys.argv[1:3])))
    except ValueError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"git {error.cmd[1]}: {error.stderr.strip()}")


if __name__ == "__main__":
    main()
