"""Check what a pull request with a submission changes: its own folder, in plain files of a few kinds.

`python -m bnsuite.submission.pull_request BASE HEAD [LOGIN]` prints the name of the submission, or fails with
what is wrong. It reads git's list of changes and the base branch, but no file of the pull request. LOGIN is
the GitHub account that opened the pull request, as reported by GitHub: anybody can write any name into a
commit.
"""

import re
import subprocess
import sys
import tomllib
from typing import NamedTuple

from pydantic import ValidationError

from bnsuite.records.manifest import FILE, NAME, Manifest

FOLDER = "leaderboard/submissions"
VERIFIED = "leaderboard/verification"

MOST_FILES = 400
"""Largest number of files in a submission."""

MOST_FILE_BYTES = 4 * 1024**2
"""Largest size of a file, in bytes."""

_PLAIN, _DELETED = "100644", "000000"
_ALLOWED = re.compile(
    rf"{FOLDER}/({NAME})/(scheme\.py|test_scheme\.py|{re.escape(FILE)}|records/[\w+=,./-]+\.json)"
)


class Change(NamedTuple):
    """Changed file."""

    mode: str  # git's mode after the change; 000000: deleted
    blob: str  # git's id of the content
    path: str


def submission_of(changes: list[Change], sizes: dict[str, int]) -> str:
    """Name of the one submission that all changes belong to.

    Args:
        changes: changed files.
        sizes: blob → its size in bytes.

    Raises:
        ValueError: the changes are not those of one submission; in one line.
    """
    if not changes:
        raise ValueError("the pull request changes nothing")
    if len(changes) > MOST_FILES:
        raise ValueError(f"a submission has at most {MOST_FILES} files: got {len(changes)}")
    names = set()
    for mode, blob, path in changes:
        match = _ALLOWED.fullmatch(path)
        if match is None or ".." in path:
            raise ValueError(
                f"{path!r}: a submission changes {FOLDER}/NAME/ alone: scheme.py, test_scheme.py, {FILE} and "
                "records/**.json. Put other changes into a pull request of their own."
            )
        if mode not in (_PLAIN, _DELETED):
            raise ValueError(f"{path!r}: a plain file, git's mode {_PLAIN}, is wanted: got {mode}")
        if sizes.get(blob, 0) > MOST_FILE_BYTES:
            raise ValueError(f"{path!r}: at most {MOST_FILE_BYTES} bytes: got {sizes[blob]}")
        names.add(match[1])
    if len(names) > 1:
        raise ValueError(
            f"one submission per pull request: got {', '.join(sorted(names))}. Open one for each."
        )
    return names.pop()


def may_change(name: str, changes: list[Change], base: str, login: str) -> None:
    """Refuse changes to an existing entry, unless one of its own accounts makes them.

    An entry exists if the base branch has its folder, or a verification of its name. Its accounts are those
    that the manifest on the base branch names under `github`.

    Args:
        name: name of the submission.
        changes: changed files.
        base: last commit of the base branch, so that what was added there in the meantime counts.
        login: GitHub account that opened the pull request; empty: not known.

    Raises:
        ValueError: the changes are not allowed; in one line.
    """
    for mode, _, path in changes:
        if mode == _DELETED and path in (f"{FOLDER}/{name}/scheme.py", f"{FOLDER}/{name}/{FILE}"):
            raise ValueError(
                f"{path!r}: deleted, which is for a maintainer. Open an issue to remove an entry."
            )
    if not _git("ls-tree", "--full-tree", base, "--", f"{FOLDER}/{name}", f"{VERIFIED}/{name}"):
        return
    accounts = _accounts(base, name)
    if not login or login.lower() not in (account.lower() for account in accounts):
        named = f"names {', '.join(accounts)}" if accounts else "names no account"
        raise ValueError(
            f"{name!r} is an entry already, and its manifest on the base branch {named} under github: got "
            f"{login or 'no account'}. Changing it is for a maintainer; a scheme of yours takes a new name."
        )


def _accounts(base: str, name: str) -> list[str]:
    """GitHub accounts that the manifest of an entry names on the base branch."""
    path = f"{FOLDER}/{name}/{FILE}"
    try:
        return Manifest.model_validate(tomllib.loads(_git("cat-file", "blob", f"{base}:{path}"))).github
    except (subprocess.CalledProcessError, tomllib.TOMLDecodeError, ValidationError):
        return []


def changes_between(base: str, head: str) -> tuple[list[Change], dict[str, int]]:
    """List the changes of `head` since it left `base`, and the size of each blob in bytes.

    Args:
        base: commit of the base branch.
        head: last commit of the pull request.

    Raises:
        subprocess.CalledProcessError: git fails, such as for several merge bases: a difference to one of
        these could
            hide that merging undoes what others did.
    """
    raw = _git("diff", "--raw", "-z", "--no-renames", "--no-abbrev", "--merge-base", base, head, "--").split(
        "\0"
    )
    changes = []
    for described, path in zip(raw[::2], raw[1::2], strict=False):
        _, mode, _, blob, _ = described.split(" ")
        changes.append(Change(mode, blob, path))
    blobs = "\n".join(change.blob for change in changes)
    sizes = (line.split() for line in _git("cat-file", "--batch-check", text=blobs).splitlines())
    return changes, {blob: int(rest[1]) for blob, *rest in sizes if rest[0] == "blob"}


def _git(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], input=text, capture_output=True, text=True, check=True, errors="replace"
    )
    return done.stdout


def main() -> None:
    """Check the pull request that the command line names."""
    try:
        base, head, login = [*sys.argv[1:4], ""][:3]
        changes, sizes = changes_between(base, head)
        name = submission_of(changes, sizes)
        may_change(name, changes, base, login)
        print(name)
    except ValueError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"git {error.cmd[1]}: {error.stderr.strip()}")


if __name__ == "__main__":
    main()
