"""Which pull requests are submissions."""

import subprocess
import sys
from pathlib import Path

import pytest

from bnsuite.submission.pull_request import MOST_FILE_BYTES, MOST_FILES, Change, submission_of

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
    assert submission_of(GOOD, {"a": MOST_FILE_BYTES}) == "mine"


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
        (
            Change("100644", "big", f"{HERE}/scheme.py"),
            f"at most {MOST_FILE_BYTES} bytes: got {MOST_FILE_BYTES + 1}",
        ),
        (Change("100644", "d", "leaderboard/submissions/other/scheme.py"), "got mine, other"),
    ],
)
def test_anything_else_is_refused(change: Change, words: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        submission_of([*GOOD, change], {"big": MOST_FILE_BYTES + 1})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_none_or_too_many() -> None:
    with pytest.raises(ValueError, match="changes nothing"):
        submission_of([], {})
    with pytest.raises(ValueError, match=f"at most {MOST_FILES} files"):
        submission_of(GOOD[:1] * (MOST_FILES + 1), {})


class Repository:
    """A git repository, on its branch `base` with one entry by others, and the program asked in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-b", "base")
        self.commit({f"{THEIRS}/scheme.py": "scheme = 1", f"{THEIRS}/submission.toml": MANIFEST})
        self.git("switch", "-c", "head")

    def git(self, *arguments: str) -> None:
        named = ("-c", "user.name=Them", "-c", "user.email=them@example.org")  # as anybody can write
        subprocess.run(["git", *named, *arguments], cwd=self.folder, check=True, capture_output=True)

    def commit(self, files: dict[str, str | None]) -> None:
        """Commit the contents; None deletes."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            else:
                path.write_text(content)
        self.git("add", "-A", ".")
        self.git("commit", "-m", "change")

    def asked(self, *login: str) -> tuple[int, str]:
        program = [sys.executable, "-m", "bnsuite.submission.pull_request", "base", "HEAD", *login]
        done = subprocess.run(program, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()


THEIRS = "leaderboard/submissions/theirs"
MANIFEST = 'name = "theirs"\nauthors = ["Them", "mallory"]\nlicence = "MIT"\n'


def test_it_reads_git(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.commit({f"{HERE}/scheme.py": "scheme = 1"})
    repository.git("switch", "base")
    repository.commit({"later": "what others did since"})
    repository.git("switch", "head")
    assert repository.asked() == (0, "mine")
    (tmp_path / HERE / "submission.toml").symlink_to("/etc/passwd")
    repository.commit({})
    status, words = repository.asked()
    assert status == 1
    assert words == f"'{HERE}/submission.toml': a plain file, git's mode 100644, is wanted: got 120000"


@pytest.mark.parametrize("login", ["", "Them", "mallory", "them-too"])
@pytest.mark.parametrize(
    "files",
    [
        {f"{THEIRS}/scheme.py": "scheme = 2"},
        {f"{THEIRS}/records/x.json": "{}"},
        {f"{THEIRS}/submission.toml": MANIFEST + 'github = ["mallory", "Them", "them-too"]'},
    ],
    ids=["edits", "adds", "makes itself an author"],
)
def test_an_entry_of_others_is_for_a_maintainer(
    tmp_path: Path, files: dict[str, str | None], login: str
) -> None:
    """Names in commits and in `authors` are no accounts, and the pull request's manifest says nothing."""
    repository = Repository(tmp_path)
    repository.commit(files)
    status, words = repository.asked(login)
    assert status == 1
    assert words.startswith(
        "'theirs' is an entry already, and its manifest on the base branch names no account"
    )
    assert "is for a maintainer" in words
    assert "\n" not in words


@pytest.mark.parametrize(
    "deleted",
    [
        [f"{THEIRS}/scheme.py", f"{THEIRS}/submission.toml"],
        [f"{THEIRS}/scheme.py"],
        [f"{THEIRS}/submission.toml"],
    ],
)
@pytest.mark.parametrize("login", ["mallory", "owner"])
def test_no_entry_is_deleted_without_a_maintainer(tmp_path: Path, deleted: list[str], login: str) -> None:
    repository = Repository(tmp_path)
    repository.git("switch", "base")
    repository.commit({f"{THEIRS}/submission.toml": MANIFEST + 'github = ["owner"]'})
    repository.git("switch", "head")
    repository.git("merge", "base")
    repository.commit(dict.fromkeys(deleted))
    status, words = repository.asked(login)
    assert status == 1
    assert words == f"'{deleted[0]}': deleted, which is for a maintainer. Open an issue to remove an entry."


def test_an_entry_is_changed_by_its_accounts_on_the_base_branch(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.git("switch", "base")
    records = {f"{THEIRS}/records/{n}.json": "{}" for n in "ab"}
    manifest = MANIFEST + 'github = ["Octo-Cat"]'
    repository.commit({f"{THEIRS}/submission.toml": manifest, **records})
    repository.git("switch", "head")
    repository.git("merge", "base")
    files = {f"{THEIRS}/scheme.py": "scheme = 2", f"{THEIRS}/records/a.json": None}
    repository.commit({**files, f"{THEIRS}/records/c.json": "{}"})
    assert repository.asked("octo-cat") == (0, "theirs")
    for other in ("", "octo", "cat", "octo-cat2"):
        status, words = repository.asked(other)
        assert status == 1
        assert f"names Octo-Cat under github: got {other or 'no account'}." in words


@pytest.mark.parametrize("broken", ["name = ", 'name = "theirs"\ngithub = ["mallory"]', "github = 3"])
def test_a_manifest_that_is_not_sound_names_nobody(tmp_path: Path, broken: str) -> None:
    repository = Repository(tmp_path)
    repository.git("switch", "base")
    repository.commit({f"{THEIRS}/submission.toml": broken})
    repository.git("switch", "head")
    repository.git("merge", "base")
    repository.commit({f"{THEIRS}/scheme.py": "scheme = 2"})
    assert "names no account under github: got mallory" in repository.asked("mallory")[1]


@pytest.mark.parametrize(
    "place", ["leaderboard/submissions/mine/scheme.py", "leaderboard/verification/mine/x"]
)
def test_a_name_that_was_taken_since_or_verified_before_is_not_new(tmp_path: Path, place: str) -> None:
    repository = Repository(tmp_path)
    repository.commit({f"{HERE}/scheme.py": "scheme = 1"})
    repository.git("switch", "base")
    repository.commit({place: "others"})
    repository.git("switch", "head")
    assert repository.asked("me")[0] == 1
    assert "'mine' is an entry already" in repository.asked("me")[1]


def test_branches_that_merged_each_other_are_refused(tmp_path: Path) -> None:
    """Seen from one of the places where they left each other nothing of theirs changes; merging undoes it."""
    repository = Repository(tmp_path)
    repository.commit({f"{HERE}/scheme.py": "scheme = 1"})
    repository.git("switch", "base")
    repository.commit({f"{THEIRS}/scheme.py": "scheme = 2"})
    repository.git("branch", "theirs-alone")
    repository.git("merge", "head")
    repository.git("switch", "head")
    repository.git("merge", "-s", "ours", "theirs-alone")
    assert repository.asked("me") == (1, "git diff: fatal: multiple merge bases found")
