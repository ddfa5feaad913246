"""A run on data by path: from the command line, of a foreign scheme, in workers, and measured again."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_sets import as_folders, as_npz, as_parquet
from typer.testing import CliRunner

from bnsuite.cli import app
from bnsuite.datasets import DataError, find, tensor_cache
from bnsuite.execute import run as running
from bnsuite.execute.plan import plan
from bnsuite.execute.run import run
from bnsuite.records import Outcome, Record, Store
from bnsuite.submission.conversation import Limits
from bnsuite.submission.foreign import load_scheme
from bnsuite.submission.sandbox import Sandbox, working_bwrap

SHORT = {"steps": 4, "rates": (0.01, 0.1), "tuning": (1,), "confirmation": (101,), "batch": 8}
SETS = [
    part
    for name, value in SHORT.items()
    for part in ("--set", f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}")
]
FOREIGN = """
from torch import nn
from bnsuite import Scheme
scheme = Scheme("mine", nn.BatchNorm1d)
"""


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def measured(path: Path, records: Path, scheme: Any = "batchnorm", **more: Any) -> Record:
    (record,) = run(
        "smoke",
        tasks=["stable_lr"],
        schemes=[scheme],
        families=["mlp"],
        datasets=[path],
        device="cpu",
        records=records,
        **{**SHORT, **more},
    )
    return record


def test_from_the_command_line_and_again(tmp_path: Path) -> None:
    place, records = as_parquet(tmp_path / "My Set"), tmp_path / "records"
    asked = ["run", "--profile", "smoke", "--task", "stable_lr", "--scheme", "batchnorm", "--family", "mlp"]
    asked += ["--device", "cpu", "--workers", "1", "--records", str(records), "--json", *SETS]
    done = call(*asked, "--dataset", place)
    assert done.exit_code == 0, done.output
    (record,) = map(Record.model_validate, json.loads(done.stdout))
    source = find(place)
    assert (record.dataset, record.provenance.dataset_checksum) == ("my-set", source.checksum)
    assert str(tmp_path) not in record.model_dump_json()
    assert record.outcome is not Outcome.ERROR
    assert "1 of 1 cells were there already" in call(*asked, "--dataset", place).stderr

    again = ["reproduce", record.id, "--records", records]
    refused = call(*again)
    assert refused.exit_code == 2
    assert "measured on 'my-set', a data set by path" in refused.stderr
    assert "got none. Give its files: --dataset PATH." in refused.stderr
    other = as_npz(tmp_path / "other", y_train=np.arange(12) // 4)
    assert "got other with" in call(*again, "--dataset", other).stderr
    same = as_npz(tmp_path / "elsewhere")
    agreed = call(*again, "--dataset", other, "--dataset", same)
    assert agreed.exit_code == 0, agreed.output
    assert "agrees" in agreed.stdout


def test_a_path_that_holds_nothing_is_one_line(tmp_path: Path) -> None:
    refused = call("run", "--dataset", tmp_path / "nowhere")
    assert refused.exit_code == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "nowhere: no such file or folder. Wanted is a folder with" in refused.stderr


@pytest.mark.parametrize("name", ["n" * 300, f"{'n' * 300}.npz", "a\0b.npz"])
def test_a_name_that_no_file_can_have_is_one_line(name: str) -> None:
    for option in ("--dataset", "--scheme"):
        refused = call("run", option, name)
        assert refused.exit_code == 2
        assert len(refused.stderr.strip().splitlines()) <= 2  # what is not protected, and why it is refused
        assert "Traceback" not in refused.stderr


def test_mixed_images_are_run_and_measured_again_by_the_flag(tmp_path: Path) -> None:
    place, records = as_folders(tmp_path / "set"), tmp_path / "My Records (v2) ü"
    Image.open(place / "train/class-0/00.png").convert("L").save(place / "train/class-0/00.png")
    shutil.copytree(place / "test", place / "val")
    asked = ["run", "--profile", "smoke", "--task", "stable_lr", "--scheme", "none", "--device", "cpu", *SETS]
    asked += ["--workers", "1", "--family", "mlp", "--records", records, "--dataset", place]
    refused = call(*asked)
    assert refused.exit_code == 2
    assert "Convert all images to RGB with --to-rgb." in refused.stderr
    done = call(*asked, "--to-rgb")
    assert done.exit_code == 0, done.output
    assert "set: its part val is not used." in done.stderr
    assert f"Next: bnsuite board --records '{records}'" in " ".join(done.stdout.split("\n"))
    (record,) = Store(records)
    again = ["reproduce", record.id, "--records", records, "--dataset", place]
    assert "Convert all images to RGB with --to-rgb." in call(*again).stderr
    agreed = call(*again, "--to-rgb")
    assert agreed.exit_code == 0, agreed.output
    refused = call(*asked[:-2], "--to-rgb")
    assert "--to-rgb converts a data set by path: got none" in refused.stderr


NOISE = {"y_train": (np.arange(40) < 2).astype(int), "y_test": (np.arange(40) < 2).astype(int)}
"""Of two classes, the first of which has 95 %."""

GUESSED = {
    "max_depth": "95.00% of the training part are of class 0, so that max_depth reaches its target of 0.8 by",
    "stable_lr": "entropy of 0.1985 nats, so that stable_lr reaches its loss of 0.3466 by guessing",
    "top_eigenvalue": "entropy of 0.1985 nats, so that top_eigenvalue reaches its loss of 0.3466 by",
    "time_to_accuracy": "95.00% of the training part are of class 0, so that time_to_accuracy reaches its",
    "spectrum": "entropy of 0.1985 nats, so that spectrum reaches its loss of 0.3466 by guessing",
    "mean_shift": "entropy of 0.1985 nats, so that mean_shift reaches its loss of 0.3466 by guessing",
}


@pytest.mark.parametrize("task", GUESSED)
def test_a_goal_that_guessing_reaches_is_refused_before_anything_is_measured(
    tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3, 3))
    source = find(as_npz(tmp_path / "noise", x_train=x, x_test=x, **NOISE))
    monkeypatch.setattr(tensor_cache, "load", None)
    asked: dict[str, Any] = {"schemes": ["none"], "families": ["mlp"], "device": "cpu", "datasets": [source]}
    with pytest.raises(DataError, match=r"^noise: .* by guessing .* Balance the classes") as refused:
        plan("quick", [task], settings={"batch": 8}, **asked)
    assert GUESSED[task] in str(refused.value)
    name, value = ("target", "0.96") if "%" in GUESSED[task] else ("loss_ratio", "0.28")
    assert f"--task {task} --set {name}=" in str(refused.value)
    (job,) = plan("quick", [task], settings={"batch": 8, name: value}, **asked)  # what it says to do
    assert job.data == source
    (other, *_) = plan("quick", ["gradient_growth"], settings={"batch": 8}, **asked)
    assert other.task.reached_by_guessing(source.train_counts, source.test_counts) is None


def test_a_name_is_the_name_whatever_lies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    (job, *_) = plan("smoke", ["stable_lr"], ["none"], ["mlp"], ["digits"], "cpu")
    assert (job.data.name, job.data.file) == ("digits", None)


def test_a_plan_loads_no_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = as_npz(tmp_path / "mine")
    source = find(place)
    monkeypatch.setattr(tensor_cache, "load", None)
    (job,) = plan("smoke", ["stable_lr"], ["none"], ["mlp"], [place, place], "cpu", {"batch": "4"})
    assert job.data == source


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    places = [as_parquet(tmp_path / "a" / "mine"), as_npz(tmp_path / "Mine", y_test=np.zeros(6, int))]
    with pytest.raises(DataError, match=r"names of their own: got mine, mine\. Rename"):
        plan("smoke", None, None, None, places, "cpu")


def test_workers_load_the_cached_tensors(tmp_path: Path) -> None:
    place = as_parquet(tmp_path / "mine")
    wanted = {name: measured(place, tmp_path / "one", name).samples for name in ("none", "batchnorm")}
    chosen: dict[str, Any] = {"schemes": [*wanted], "datasets": [place], **SHORT}
    chosen |= {"tasks": ["stable_lr"], "families": ["mlp"], "device": "cpu"}
    found = running.run("smoke", records=tmp_path / "two", workers=2, **chosen)
    assert {record.scheme: record.samples for record in found} == wanted


@pytest.mark.parametrize("bwrap", [working_bwrap(), None], ids=["bubblewrap", "without"])
def test_a_foreign_scheme_sees_the_tensors_alone(tmp_path: Path, bwrap: str | None) -> None:
    place, file = as_parquet(tmp_path / "mine-set"), tmp_path / "mine.py"
    file.write_text(FOREIGN)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)  # without bubblewrap, a user without an account reads it
    scheme = load_scheme(file, Sandbox(bwrap), Limits(wall_s=600))
    there, here = measured(place, tmp_path / "there", scheme), measured(place, tmp_path / "here")
    assert there.error is None
    assert (there.samples, there.trace) == (here.samples, here.trace)
    assert len(Store(tmp_path / "there")) == 1


def test_what_is_shown_cannot_be_written(tmp_path: Path) -> None:
    if (bwrap := working_bwrap()) is None:
        pytest.skip("bubblewrap is not installed, or may make no namespaces")
    source, file = find(as_parquet(tmp_path / "mine")), tmp_path / "mine.py"
    assert source.file is not None
    file.write_text(
        "import os\n"
        "found = [os.listdir('/data'), len(open('/data/tensors', 'rb').read())]\n"
        "try:\n    open('/data/tensors', 'r+b')\nexcept OSError as error:\n    found.append(error.errno)\n"
        "raise ValueError(found)"
    )
    said = Sandbox(bwrap).ask(file, {"ask": "describe"}, Limits(wall_s=600), data=source.file)
    size = source.file.stat().st_size
    assert f"[['tensors'], {size}, 30]" in said["failed"] or f"[['tensors'], {size}, 13]" in said["failed"]
