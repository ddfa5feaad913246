"""From an empty folder to the board, and back: new, check, run, submit, board, verify, reproduce."""

import errno
import json
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bnsuite.cli import app
from bnsuite.facets import Facets
from bnsuite.names import UnknownNameError
from bnsuite.records import Record, RecordError, Store
from bnsuite.schemes import SCHEMES, Scheme, find_scheme, registry, scheme_names
from bnsuite.specs import RANKED
from bnsuite.submission import folder
from bnsuite.submission.folder import begin
from bnsuite.submission.foreign import ContractReport
from bnsuite.submission.sandbox import Sandbox

SHORT = ["--profile", "smoke", "--family", "mlp", "--workers", "1", "--set", "confirmation=101"]


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments])


def said(done: Any) -> str:
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout, with a scheme that was measured and handed in."""
    place = tmp_path_factory.mktemp("checkout")
    (place / "leaderboard").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for arguments in (["new", "mine"], ["run", "--scheme", "mine", *SHORT]):
            done = command(*arguments)
            assert done.exit_code == 0, said(done)
        refused = command("submit", "mine")
        assert "authors is still 'Your Name'. Say who you are." in said(refused)
        manifest = place / "mine" / "submission.toml"
        manifest.write_text(manifest.read_text().replace("Your Name", "A. Tester"))
        done = command("submit", "mine")
        assert done.exit_code == 0, said(done)
        assert "its records are of profile smoke, which does not rank, and are no submission yet" in said(
            done
        )
    return place


@pytest.fixture
def here(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(checkout)
    return checkout


def test_what_new_writes_passes_its_own_test_and_its_check(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "mine"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    checked = command("check", "mine", "--json")
    assert checked.exit_code == 0
    told = json.loads(checked.stdout)
    assert set(told) == {"ok", "checks", "facets", "costs", "warnings", "error"}
    assert told["ok"] is True
    assert {"name", "ok", "message"} == set(told["checks"][0])
    assert "batch-1" in told["facets"]
    assert told["costs"]["parameters per channel"] == 2


def test_a_submission_is_scheme_manifest_and_records(here: Path) -> None:
    place = here / "leaderboard/submissions/mine"
    assert {path.name for path in place.iterdir()} == {"scheme.py", "submission.toml", "records"}
    records = list(Store(place / "records"))
    assert {record.task for record in records} == {
        "max_depth",
        "stable_lr",
        "top_eigenvalue",
        "time_to_accuracy",
    }
    assert all(record.scheme == "mine" and record.value is not None for record in records)
    done = command("board", "--json")
    assert json.loads(done.stdout)["left_out"] == []
    assert "self-reported" in (here / "leaderboard/site/index.html").read_text()


def test_a_rerun_agrees_and_earns_a_tier_only_when_kept(here: Path) -> None:
    done = command("verify", "leaderboard/submissions/mine", "--cells", "4", "--keep", "--json")
    told = json.loads(done.stdout)
    assert [(one["agrees"], one["relative"]) for one in told] == [(True, 0.0)] * 4
    assert all(f"canary of {name}" in done.stderr for name in (*RANKED, "the clock"))
    assert len(Store(here / "leaderboard/verification/mine")) == 4
    command("board")
    assert "submitted, re-run" in (here / "leaderboard/site/index.html").read_text()
    shutil.rmtree(here / "leaderboard/verification")


def one_of(folder: Path, task: str) -> Record:
    return next(record for record in Store(folder) if record.task == task)


def test_one_record_is_measured_again_by_its_id(here: Path) -> None:
    record = one_of(here / "leaderboard/submissions/mine", "stable_lr")
    done = command("reproduce", record.id[:8])
    assert done.exit_code == 0, said(done)
    assert "stable_lr: reported" in done.stdout
    assert "(+0.0 % [+0.0 %, +0.0 %], n 1 seeds): agrees" in said(done)
    assert not (here / "leaderboard/verification").exists()
    own = ["reproduce", record.id, "--records", "results"]
    assert "no folder above its record has a scheme.py. Say where its file is: --scheme PATH" in said(
        command(*own)
    )
    assert "agrees" in command(*own, "--scheme", "mine").stdout
    done = command("reproduce", "0000000000000000")
    assert "no record with the id '0000000000000000' in results, leaderboard." in said(done)


def test_what_was_changed_since_is_not_compared(here: Path, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    shutil.copytree(here / "leaderboard/submissions/mine", place)
    with (place / "scheme.py").open("a") as file:
        file.write("# changed\n")
    for arguments in (
        ["verify", str(place)],
        ["reproduce", one_of(place, "max_depth").id, "--records", str(place)],
    ):
        done = command(*arguments)
        assert done.exit_code == 2
        assert "the source of the scheme is not what it was: nothing to compare with" in said(done)


def test_a_record_that_does_not_agree_is_told(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invention that agrees with itself: the audit lets it pass, the re-run does not."""
    place = tmp_path / "mine"
    shutil.copytree(here / "leaderboard/submissions/mine", place)
    for path, record in Store(place / "records").paths().items():
        path.unlink()
        if record.task == "top_eigenvalue":
            (sample,) = record.samples
            value = (sample.value or 0) / 10
            changed = sample.model_copy(update={"value": value})
            lied = record.model_copy(
                update={"samples": (changed,), "value": value, "low": value, "high": value}
            )
            path.write_text(lied.sealed().model_dump_json())
    done = command("verify", str(place))
    assert "record" in said(done)
    assert "top_eigenvalue" in said(done)
    assert done.exit_code == 2, "the audit"
    monkeypatch.setattr("bnsuite.submission.folder.objections_to", lambda record: [])
    monkeypatch.setattr("bnsuite.submission.folder.canaries", lambda *_: [])  # which it would pass
    done = command("verify", str(place), "--json")
    assert done.exit_code == 1
    (told,) = json.loads(done.stdout)
    assert (told["agrees"], told["relative"]) == (False, pytest.approx(9, rel=1e-3))
    assert "1 of 1 records do not agree with their re-run" in done.stderr


def test_what_cannot_be_submitted(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "mine"
    shutil.copytree(here / "mine", place)
    assert "no record of this scheme.py, as it is now, for max_depth" in said(
        command("submit", str(place), "--records", str(tmp_path))
    )
    (place / "submission.toml").write_text('name = "mine"\nauthors = "me"\nlicence = "MIT"\n')
    assert "authors: Input should be a valid list, got 'me'" in said(command("submit", str(place)))
    assert "not a folder" in said(command("submit", str(place / "scheme.py")))
    monkeypatch.chdir(tmp_path)
    assert "Submit from the root of a checkout" in said(command("submit", str(place)))


def test_what_cannot_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Mine", "../mine", "<script>", "a\nb", ""):
        done = command("new", name)
        assert done.exit_code == 2
        assert "a name is 1 to 40 lower-case letters, digits and hyphens: got" in said(done)
    assert "is a built-in scheme" in said(command("new", "batchnorm"))
    begin("mine")
    with pytest.raises(RecordError, match="mine: exists already"):
        begin("mine")


def test_a_path_that_is_none_and_a_file_without_a_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "nowhere/mine: no such file or folder" in said(command("run", "--scheme", "nowhere/mine"))
    assert "unknown scheme 'layernrom'. Did you mean layernorm?" in said(
        command("run", "--scheme", "layernrom")
    )
    (tmp_path / "mine.py").write_text("def")
    for arguments in (["run", "--scheme", "mine.py"], ["check", "mine.py"]):
        done = command(*arguments)
        assert done.exit_code == 2
        assert "mine.py: line 1: invalid syntax. Mend the syntax." in said(done)


def bring(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in points.items())
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


def test_an_installed_package_brings_schemes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "theirpackage.py").write_text(
        "from bnsuite import Scheme\nfrom torch.nn import Identity\n"
        "scheme = Scheme('theirs', Identity)\nother = Scheme('other', Identity)\nnone = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    bring(
        monkeypatch,
        theirs="theirpackage:scheme",
        wrong="theirpackage:other",
        broken="nopackage:scheme",
        nothing="theirpackage:none",
        batchnorm="theirpackage:scheme",
    )
    assert isinstance(find_scheme("theirs"), Scheme)
    assert find_scheme("batchnorm") is SCHEMES["batchnorm"]
    assert scheme_names()[: len(SCHEMES)] == list(SCHEMES)
    assert "theirs" in scheme_names()
    for name, words in {
        "wrong": "wanted a Scheme of that name",
        "broken": "ModuleNotFoundError",
        "nothing": "got 3",
    }.items():
        with pytest.raises(ValueError, match=words):
            find_scheme(name)
    with pytest.raises(UnknownNameError, match="Did you mean theirs"):
        find_scheme("their")
    listed = said(command("list", "schemes"))
    assert "theirs plain, Identity" in listed
    assert "broken" in listed


def test_an_entry_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    into = tmp_path / "leaderboard" / "submissions"
    into.parent.mkdir()
    begin("mine")
    manifest = tmp_path / "mine" / "submission.toml"
    manifest.write_text(manifest.read_text().replace("Your Name", "A. Tester"))
    sound = ContractReport("mine", "", (), Facets())
    monkeypatch.setattr(folder, "check_contract", lambda path, sandbox: sound)
    monkeypatch.setattr(folder, "RANKED", ())
    folder.hand_in(tmp_path / "mine", tmp_path, into, Sandbox(None))
    before = (into / "mine" / "scheme.py").read_text()
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.ENOSPC, "no space")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    (tmp_path / "mine" / "scheme.py").write_text("changed")
    with pytest.raises(RecordError, match=r"cannot be written \(no space\)\. Nothing there was changed"):
        folder.hand_in(tmp_path / "mine", tmp_path, into, Sandbox(None))
    assert (into / "mine" / "scheme.py").read_text() == before
