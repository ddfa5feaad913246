"""A run: complete records, the same again from the same seeds, nothing measured twice, errors as results."""

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnsuite.audit import objections_to
from bnsuite.execute import measure as measuring
from bnsuite.execute import plan as planning
from bnsuite.execute import run as running
from bnsuite.execute.measure import relative_traceback
from bnsuite.execute.plan import DeviceError, plan, resolve_device
from bnsuite.execute.run import Event, run
from bnsuite.names import UnknownNameError
from bnsuite.profiles import Profile
from bnsuite.records import Measurement, Outcome, Record, RecordError, Store
from bnsuite.schemes import SCHEMES, Scheme

TINY = Profile.model_validate(
    {
        "name": "tiny",
        "about": "four cells in a second",
        "datasets": ["digits"],
        "schemes": ["none", "batchnorm"],
        "seeds": {"tuning": [1], "confirmation": [101, 102]},
        "families": {"mlp": {"width": 5, "batch": 64}, "cnn": {"width": 2, "batch": 16}},
        "tasks": {
            "stable_lr": {"rates": [0.1], "depth": 1, "steps": 30, "per_decade": 1, "cnn": False},
            "time_to_accuracy": {
                "rates": [0.1],
                "depth": 1,
                "steps": 30,
                "every": 5,
                "target": 0.5,
                "cnn": {"steps": 10},
            },
        },
    }
)
MLP: dict[str, Any] = {"families": ["mlp"], "device": "cpu"}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "load_profile", lambda name: TINY)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that are measured, as they are."""
    cells: list[str] = []
    whole = running.measure

    def counting(job: Any, report: Any) -> Record:
        cells.append(str(job.cell))
        return whole(job, report)

    monkeypatch.setattr(running, "measure", counting)
    return cells


def lasting(record: Record) -> dict[str, Any]:
    """A record without its times, its id, and the commit of a tree that others work in."""
    data = record.model_dump(mode="json", exclude={"id"})
    for name in ("started", "duration_s", "commit", "dirty"):
        del data["provenance"][name]
    for name in ("train_s", "eval_s", "seconds_per_step", "ratio_to_batchnorm", "drift", "idle"):
        data["derived"].pop(name, None)
    return data


class Raising(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("the normalizer is broken")


class Noisy(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x + 0.1 * torch.randn_like(x))


def test_records_come_out_complete(tmp_path: Path) -> None:
    started = time.perf_counter()
    found = run("tiny", records=tmp_path, device="cpu")
    elapsed_s = time.perf_counter() - started
    assert [str(record.cell) for record in found] == [
        *("stable_lr none mlp/digits", "stable_lr batchnorm mlp/digits"),
        *("time_to_accuracy none mlp/digits", "time_to_accuracy batchnorm mlp/digits"),
        *("time_to_accuracy none cnn/digits", "time_to_accuracy batchnorm cnn/digits"),
    ]
    assert sorted(r.id for r in Store(tmp_path)) == sorted(r.id for r in found)
    for record in found:
        assert (record.id, record.key) == (record.expected_id(), record.expected_key())
        assert record.outcome is not Outcome.ERROR, record.error
        assert record.n == 2
        assert record.trace
        assert record.settings["confirmation"] == [101, 102]
        made = record.provenance
        assert made.seeds == {"tuning": [1], "confirmation": [101, 102]}
        assert (made.deterministic, made.tf32, made.flush_subnormals, made.stacked) == (
            True,
            False,
            True,
            True,
        )
        assert made.scheme_source == SCHEMES[record.scheme].source_hash()
        assert (made.torch, made.gpu, made.threads) == (torch.__version__, None, torch.get_num_threads())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", made.started)
        assert made.duration_s > 0
    assert sum(record.provenance.duration_s for record in found) <= elapsed_s + 1e-3 * len(found)
    assert not torch.are_deterministic_algorithms_enabled(), "the caller's ways are restored"
    assert sys.float_info.min / 2 > 0, "subnormals among them"


def test_the_same_seeds_twice_give_the_same_record(tmp_path: Path) -> None:
    schemes = ["batchnorm", Scheme("noisy", Noisy)]
    first = run("tiny", schemes=schemes, records=tmp_path / "a", **MLP)
    torch.manual_seed(123)
    second = run("tiny", schemes=schemes, records=tmp_path / "b", **MLP)
    assert [lasting(record) for record in first] == [lasting(record) for record in second]
    assert [r.provenance.stacked for r in first] == [True, False] * 2


def test_a_second_run_measures_what_is_missing(tmp_path: Path, measured: list[str]) -> None:
    events: list[Event] = []
    first = run("tiny", tasks=["stable_lr"], records=tmp_path, **MLP)
    assert len(measured) == 2
    both = run("tiny", records=tmp_path, observe=events.append, **MLP)
    assert len(measured) == 4
    assert len(set(measured)) == 4
    assert both[:2] == first
    ends = [(event.new, event.record) for event in events if event.record]
    assert ends == [(False, both[0]), (False, both[1]), (True, both[2]), (True, both[3])]
    assert {str(event.cell) for event in events if event.found} == set(measured[2:])
    assert run("tiny", records=tmp_path, **MLP) == both
    assert len(measured) == 4


def test_settings_of_ones_own_are_a_track_of_their_own(tmp_path: Path, measured: list[str]) -> None:
    asked: dict[str, Any] = {**MLP, "tasks": ["stable_lr"], "schemes": ["none"], "records": tmp_path}
    (own,) = run("tiny", **asked)
    (other,) = run("tiny", depth="2", rates="0.1,0.2", **asked)
    assert (own.profile, other.profile) == ("tiny", "tiny+depth=2+rates=0.1,0.2")
    assert other.settings == {**own.settings, "depth": 2, "rates": [0.1, 0.2]}
    assert other.key != own.key
    assert run("tiny", depth=2, rates=(0.1, 0.2), **asked) == [other]
    assert run("tiny", depth=1, **asked) == [own], "what the profile has anyway is no change"
    assert measured == ["stable_lr none mlp/digits", "stable_lr none mlp/digits depth=2 rates=0.1,0.2"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dpth": 3}, "unknown setting of stable_lr 'dpth'. Did you mean depth?"),
        ({"depth": "deep"}, "depth of stable_lr: got 'deep', wanted a whole number, at least 1"),
        ({"rates": "0.1,x"}, "rates of stable_lr: got '0.1,x', wanted 1 to 100 numbers with commas between"),
        ({"width": 0}, "width of stable_lr: got 0, wanted a whole number, at least 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        run("tiny", tasks=["stable_lr"], records=tmp_path, **MLP, **settings)
    assert list(tmp_path.iterdir()) == []


def test_force_adds_and_deletes_none(tmp_path: Path, measured: list[str]) -> None:
    first = run("tiny", tasks=["stable_lr"], records=tmp_path, **MLP)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    again = run("tiny", tasks=["stable_lr"], records=tmp_path, force=True, **MLP)
    assert len(measured) == 4
    assert [r.key for r in again] == [r.key for r in first]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(Store(tmp_path)) == len({r.id for r in [*first, *again]})


def test_what_changes_the_key_is_measured_again(tmp_path: Path, measured: list[str]) -> None:
    def eps(value: float) -> Callable[[int], nn.Module]:
        return lambda num_features: nn.BatchNorm1d(num_features, eps=value)

    for value in (1e-5, 1e-3, 1e-5):
        run("tiny", tasks=["stable_lr"], schemes=[Scheme("mine", eps(value))], records=tmp_path, **MLP)
    assert len(measured) == 2


def test_a_default_dtype_of_the_caller_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure_batchnorm(folder: str) -> dict[str, Any]:
        monkeypatch.setattr(measuring, "_FACETS", {})
        return lasting(
            run("tiny", tasks=["stable_lr"], schemes=["batchnorm"], records=tmp_path / folder, **MLP)[0]
        )

    usual = measure_batchnorm("float32")
    torch.set_default_dtype(torch.float64)
    try:
        assert measure_batchnorm("float64") == usual
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_cell_that_raises_is_a_record_and_the_run_goes_on(tmp_path: Path, measured: list[str]) -> None:
    schemes = [Scheme("raising", Raising), "batchnorm"]
    bad, good = run("tiny", tasks=["stable_lr"], schemes=schemes, records=tmp_path, **MLP)
    assert (bad.outcome, bad.value, bad.n) == (Outcome.ERROR, None, 0)
    assert good.outcome.has_value
    assert bad.error is not None
    assert "RuntimeError: the normalizer is broken" in bad.error
    assert re.search(r"^bnsuite/engine/stack\.py:\d+ ", bad.error, re.MULTILINE)
    assert re.search(r"test_run\.py:\d+ forward: raise RuntimeError", bad.error)
    assert not re.search(r"(^|\s)/", bad.error), "no absolute path"
    assert str(Path.home()) not in bad.error

    again, kept = run("tiny", tasks=["stable_lr"], schemes=schemes, records=tmp_path, **MLP)
    assert measured.count("stable_lr raising mlp/digits") == 2
    assert measured.count("stable_lr batchnorm mlp/digits") == 1
    assert {record.id for record in Store(tmp_path)} == {bad.id, again.id, good.id}
    assert kept == good


class Exiting(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        os._exit(9)


def test_a_cell_that_ends_its_workers_is_a_record_and_the_run_goes_on(tmp_path: Path) -> None:
    schemes = ["none", Scheme("exiting", Exiting), "batchnorm"]
    asked: dict[str, Any] = {"tasks": ["stable_lr"], "schemes": schemes, "records": tmp_path, **MLP}
    heard: list[str] = []
    none, bad, good = run("tiny", **asked, workers=2, observe=lambda event: heard.append(event.found))
    how = "ended with exit status 9"
    assert (bad.outcome, bad.value) == (Outcome.ERROR, None)
    assert bad.error == f"lost 2 worker processes: {how} and {how}"
    assert bad.facets == (), "not tried in this process, which they would end"
    assert objections_to(bad) == []
    assert Outcome.ERROR not in (none.outcome, good.outcome)
    assert len(Store(tmp_path)) == 3
    assert heard.count(f"worker {how}: trying the cell once more") == 1


def test_what_cannot_be_built_is_a_result(tmp_path: Path, measured: list[str]) -> None:
    grouped = Scheme("grouped", lambda num_features: nn.GroupNorm(2, num_features))
    for _ in range(2):
        (found,) = run("tiny", tasks=["stable_lr"], schemes=[grouped], records=tmp_path, **MLP)
        assert (found.outcome, found.value) == (Outcome.UNSUPPORTED, None)
        assert "grouped cannot be built for mlp" in str(found.error)
    assert len(measured) == 1


def test_a_nan_beside_the_value_is_an_error_of_that_cell_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = planning.TASKS["stable_lr"].__call__

    def with_nan(self: Any, subject: Any) -> Measurement:
        measured: Measurement = whole(self, subject)
        if subject.scheme.name == "none":
            return measured.model_copy(update={"derived": {"edge": float("nan")}})
        return measured

    monkeypatch.setattr(planning.TASKS["stable_lr"], "__call__", with_nan)
    bad, good = run("tiny", tasks=["stable_lr"], schemes=["none", "batchnorm"], records=tmp_path, **MLP)
    assert (bad.outcome, good.outcome.has_value) == (Outcome.ERROR, True)
    assert "not JSON compliant" in str(bad.error)
    assert len(Store(tmp_path)) == 2


@pytest.mark.parametrize("home", [Path.home(), Path.cwd()])
def test_a_message_names_no_folder_of_the_machine(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: object, subject: object) -> None:
        raise FileNotFoundError(f"no file {home / 'secret' / 'weights.pt'}")

    monkeypatch.setattr(planning.TASKS["stable_lr"], "__call__", lost)
    (found,) = run("tiny", tasks=["stable_lr"], schemes=["none"], records=tmp_path, **MLP)
    assert str(home) not in str(found.error)
    assert "secret/weights.pt" in str(found.error)


def test_a_wrong_signature_is_an_error(tmp_path: Path) -> None:
    wrong = Scheme("wrong", lambda: nn.Identity())  # type: ignore[arg-type, misc]
    (found,) = run("tiny", tasks=["stable_lr"], schemes=[wrong], records=tmp_path, **MLP)
    assert found.outcome is Outcome.ERROR
    assert "takes 0 positional arguments" in str(found.error)


def test_memory_that_runs_out_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, subject: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(planning.TASKS["stable_lr"], "__call__", full)
    (found,) = run("tiny", tasks=["stable_lr"], schemes=["none"], records=tmp_path, **MLP)
    assert (found.outcome, found.error) == (Outcome.OOM, "no memory")


def test_a_folder_that_cannot_be_written_fails_before_the_work(tmp_path: Path, measured: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot write here"):
        run("tiny", records=tmp_path / "file", **MLP)
    assert measured == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tasks": ["max-depth"]}, "unknown task 'max-depth'. Did you mean max_depth"),
        ({"schemes": ["batch"]}, "unknown scheme 'batch'. Did you mean batchnorm"),
        ({"families": ["mpl"]}, "unknown family 'mpl'. Did you mean mlp"),
        ({"datasets": ["digit"]}, "unknown dataset 'digit'. Did you mean digits"),
    ],
)
def test_unknown_names(asked: dict[str, Any], words: str) -> None:
    settled: dict[str, Any] = dict.fromkeys(("tasks", "schemes", "families", "datasets"))
    with pytest.raises(UnknownNameError, match=re.escape(words)):
        plan("tiny", **{**settled, **asked}, device="cpu")


def test_schemes_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="is a built-in scheme: give yours a name of its own"):
        plan("tiny", None, [Scheme("batchnorm", Noisy)], None, None, "cpu")
    with pytest.raises(ValueError, match="names of their own: got x, x"):
        plan("tiny", None, [Scheme("x"), Scheme("x", Noisy)], None, None, "cpu")
    assert plan("tiny", ["stable_lr"], [SCHEMES["none"]], ["mlp"], None, "cpu")[0].cell.scheme == "none"


def test_a_run_that_would_measure_nothing_says_so() -> None:
    with pytest.raises(ValueError, match="nothing to measure: profile tiny has none of these tasks"):
        plan("tiny", ["stable_lr"], None, ["cnn"], None, "cpu")


def test_what_is_named_twice_is_planned_once() -> None:
    jobs = plan("tiny", ["stable_lr"] * 2, ["none"], ["mlp"] * 2, ["digits"] * 2, "cpu")
    assert len(jobs) == 1


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(DeviceError, match=r"no GPU: torch sees none here\. Use --device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"


def test_a_traceback_names_no_folder_of_the_machine() -> None:
    try:
        re.compile("(")
    except re.error as error:
        lines = relative_traceback(error).splitlines()
    assert re.match(r"test_run\.py:\d+ test_a_traceback", lines[0])
    assert all(not line.startswith("/") for line in lines)
    assert lines[-1].startswith("error: missing )")
