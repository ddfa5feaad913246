"""Which pull requests are submissions."""

import subprocess
import sys
from pathlib import Path

import pytest

from bnsuite.submission.changes import LARGEST, MOST_FILES, Change, submission_of

HERE = "leaderboard/submissions/mine"
GOOD = [
    Change("100644", "a", f"{HERE}/scheme.py"),
    Change("100644", "b", f"{HERE}/submission.toml"),
    Change(
        "100644", "c", f"{HERE}/records/quick+batch=16/mlp-digits/max_depth/mine-cpu-0123456789abcdef.json"
    ),
    Change("000000", "0", f"{HERE}/records/quick/mlp-digits/max_depth/mine-cpu-0.json"),
]


def test_one_submission_has_a_name() -> None:
    assert submission_of(GOOD, {"a": LARGEST}) == "mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            Change("100644", "d", "README.md"),
            "'README.md': a submission changes leaderboard/submissions/NAME/ alone",
        ),
        (Change("100644", "d", ".github/workflows/ci.yml"), "alone"),
        (Change("100644", "d", "leaderboard/records/quick/x.json"), "alone"),
        (Change("100644", "d", "leaderboard/verification/mine/x.json"), "alone"),
        (Change("100644", "d", f"{HERE}/conftest.py"), "alone"),
        (Change("100644", "d", f"{HERE}/records/../../other/scheme.py"), "alone"),
        (Change("100644", "d", f"{HERE}/records/x.json\n"), "alone"),
        (Change("100644", "d", "leaderboard/submissions/Mine/scheme.py"), "alone"),
        (
            Change("120000", "d", f"{HERE}/scheme.py"),
            "a plain file, git's mode 100644, is wanted: got 120000",
        ),
        (Change("160000", "d", f"{HERE}/scheme.py"), "got 160000"),
        (Change("100755", "d", f"{HERE}/scheme.py"), "got 100755"),
        (Change("100644", "big", f"{HERE}/scheme.py"), f"at most {LARGEST} bytes: got {LARGEST + 1}"),
        (Change("100644", "d", "leaderboard/submissions/other/scheme.py"), "got mine, other"),
    ],
)
def test_anything_else_is_refused(change: Change, words: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        submission_of([*GOOD, change], {"big": LARGEST + 1})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_none_or_too_many() -> None:
    with pytest.raises(ValueError, match="changes nothing"):
        submission_of([], {})
    with pytest.raises(ValueError, match=f"at most {MOST_FILES} files"):
        submission_of(GOOD[:1] * (MOST_FILES + 1), {})


def test_it_reads_git(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        named = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def asked() -> tuple[int, str]:
        program = [sys.executable, "-m", "bnsuite.submission.changes", "base", "HEAD"]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()

    git("init", "-b", "base")
    git("commit", "--allow-empty", "-m", "start")
    git("switch", "-c", "head")
    folder = tmp_path / HERE
    folder.mkdir(parents=True)
    (folder / "scheme.py").write_text("scheme = 1")
    git("add", ".")
    git("commit", "-m", "submit")
    git("switch", "base")
    (tmp_path / "later").write_text("what others did since")
    git("add", ".")
    git("commit", "-m", "later")
    git("switch", "head")
    assert asked() == (0, "mine")
    (folder / "submission.toml").symlink_to("/etc/passwd")
    git("add", ".")
    git("commit", "-m", "a link")
    status, words = asked()
    assert status == 1
    assert words == f"'{HERE}/submission.toml': a plain file, git's mode 100644, is wanted: got 120000"
