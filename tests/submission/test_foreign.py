"""Foreign schemes: what becomes of bad ones, each told apart, and that a good one is measured as ours are."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bnsuite.execute.run import run
from bnsuite.facets import facets_of
from bnsuite.records import Outcome, Record, RecordError
from bnsuite.schemes import Scheme
from bnsuite.submission import foreign
from bnsuite.submission.contract import CONTRACT
from bnsuite.submission.conversation import MIB, Limits
from bnsuite.submission.foreign import Foreign, check_contract, load_scheme, scheme_file, source_of
from bnsuite.submission.sandbox import Sandbox, working_bwrap

SANDBOX = Sandbox(working_bwrap())
LIMITS = Limits(wall_s=600)
"""Its time bounds a hang alone: a busy machine may take minutes to import torch."""
NORM = """
import torch
from torch import nn
from bnsuite import Scheme

class Norm(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.inner = nn.BatchNorm1d(num_features)

    def forward(self, x):
        {}

scheme = Scheme("mine", Norm)
"""
SOUND = "return self.inner(x)"


def written(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(NORM.format(body))
    return path


def measured(scheme: Foreign | Scheme, records: Path) -> Record:
    (record,) = run(
        "smoke",
        tasks=["stable_lr"],
        schemes=[scheme],
        families=["mlp"],
        device="cpu",
        records=records,
        steps=10,
        rates=(0.01, 0.1),
        tuning=(1,),
        confirmation=(101,),
    )
    return record


def test_a_foreign_scheme_is_measured_as_one_of_ours(tmp_path: Path) -> None:
    path = written(tmp_path, SOUND)
    scheme = load_scheme(path, SANDBOX, LIMITS)
    there = measured(scheme, tmp_path / "there")
    ours = runpy.run_path(str(path))["scheme"]
    here = measured(ours, tmp_path / "here")
    assert there.samples == here.samples
    assert there.trace == here.trace
    assert there.provenance.stacked
    assert there.provenance.scheme_source == source_of(path)
    assert there.about == "plain, Norm"
    assert ({*there.facets, "unchecked"}, there.costs) == ({*here.facets}, here.costs)
    assert "scale-invariant" in there.facets


ENDS = {
    "raise SystemExit(3)": (Outcome.ERROR, "SystemExit: 3"),
    "import os; os._exit(7)": (Outcome.ERROR, "ended without an answer, with status 7"),
    "torch.zeros(25 * 1024**3)": (Outcome.OOM, "allocate"),
    "import socket; socket.create_connection(('192.0.2.1', 80), 1)": (Outcome.ERROR, "PermissionError"),
    "import os; [os.fork() for _ in range(99)]": (Outcome.ERROR, "BlockingIOError"),
}


@pytest.mark.parametrize("body", ENDS, ids=[body.split("(")[0].split()[-1] for body in ENDS])
def test_a_bad_end_is_an_outcome_and_the_run_goes_on(
    tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if SANDBOX.bwrap is None and ("socket" in body or "fork" in body):
        pytest.skip("bubblewrap is not installed")
    outcome, words = ENDS[body]
    described = foreign._Described(name="mine", about="plain, Norm", words=[], costs={})
    path = written(tmp_path, body)
    limits = replace(LIMITS, memory=3072 * MIB)
    scheme = Foreign("mine", "plain, Norm", described.known(), path, source_of(path), SANDBOX, limits)
    record = measured(scheme, tmp_path / "records")
    assert (record.outcome, record.value) == (outcome, None)
    assert words in str(record.error)


class Liar(Sandbox):
    """Answers what it is told to."""

    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__(None)
        self.said = said

    def ask(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.said


SAMPLE = {"seed": 101, "value": 5.0, "outcome": "ok", "low": 5.0, "high": 6.0}
LIES: list[tuple[dict[str, Any], str]] = [
    ({}, "measured: Field required"),
    ({"failed": "no\nluck"}, "no luck"),
    ({"measured": {}, "stacked": True}, "value: Field required"),
    ({"measured": {"value": 9.9, "samples": [SAMPLE]}, "stacked": True}, "its answer cannot be: "),
    ({"measured": {"value": 5.0, "samples": [SAMPLE]}, "stacked": True}, "its answer cannot be: "),
    ({"measured": {"value": None, "outcome": "error", "error": "x"}, "stacked": "yes"}, "stacked"),
    ({"measured": {"value": 1.0}, "stacked": True, "provenance": {}}, "provenance: Extra inputs"),
]


@pytest.mark.parametrize(("said", "words"), LIES)
def test_what_it_says_is_doubted(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    path = written(tmp_path, SOUND)
    none = foreign._Facets(words=[], costs={}).known()
    scheme = Foreign("mine", "", none, path, source_of(path), Liar(said), LIMITS)
    record = measured(scheme, tmp_path / "records")
    assert record.outcome is Outcome.ERROR
    assert words in str(record.error)


def test_a_file_that_changes_while_it_is_measured_gives_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, SOUND)
    none = foreign._Facets(words=[], costs={}).known()
    record = measured(Foreign("mine", "", none, path, "0" * 64, SANDBOX, LIMITS), tmp_path / "records")
    assert "mine.py was changed while it was measured" in str(record.error)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"name": "<script>", "about": "", "words": [], "costs": {}}, "name: String should match"),
        ({"name": "../x", "about": "", "words": [], "costs": {}}, "1 to 40 letters, digits and hyphens"),
        ({"name": "mine\n", "about": "", "words": [], "costs": {}}, "name: String should match"),
        ({"name": "mine", "about": 3, "words": [], "costs": {}}, "about: Input should be a valid string"),
        (
            {"name": "mine", "about": "", "words": [], "costs": {"a": float("inf")}},
            "costs.a: Input should be a finite",
        ),
        ({"failed": "mine.py, line 3: invalid syntax. Mend the syntax."}, "line 3: invalid syntax"),
    ],
)
def test_a_description_that_cannot_be(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    with pytest.raises(RecordError) as caught:
        load_scheme(written(tmp_path, SOUND), Liar(said), LIMITS)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_words_that_have_a_definition_are_taken() -> None:
    found = foreign._Facets(words=["best", "batch-1"], costs={"parameters per channel": 2.0, "price": 1.0})
    assert found.known().words == ("batch-1",)
    assert found.known().costs == {"parameters per channel": 2.0}


def test_a_folder_of_plain_files_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(RecordError, match=r"scheme\.py: no such file"):
        scheme_file(folder)
    written(tmp_path, SOUND).rename(folder / "scheme.py")
    assert scheme_file(folder) == folder / "scheme.py"
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(RecordError, match="link: a submission holds plain files and folders, and no links"):
        scheme_file(folder)
    with pytest.raises(RecordError, match="no such file or folder"):
        scheme_file(tmp_path / "none")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(RecordError, match="a scheme is a Python file"):
        scheme_file(tmp_path / "mine.txt")
    large = tmp_path / "large.py"
    large.write_text("#" * (foreign.MOST_SOURCE_BYTES + 1))
    with pytest.raises(RecordError, match=r"larger than 1024 KiB"):
        source_of(large)


def test_a_check_that_ends_the_process_is_the_one_that_failed(tmp_path: Path) -> None:
    path = written(tmp_path, "import os; os._exit(1) if x.dtype.is_floating_point else None")
    found = check_contract(path, SANDBOX)
    assert [one.name for one in found.checks if not one.ok] == [found.checks[-1].name]
    assert "ended without an answer, with status 1" in found.checks[-1].message
    assert not found.facets.words


NAMED = {"name": "mine", "about": "\x1b]0;title\x07 plain\n::error::"}
ALL = [{"check": {"name": name, "ok": True, "message": ""}} for name in CONTRACT]
END = {"words": [], "costs": {}, "last": True}


class Speaker(Liar):
    """Says several messages."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        super().__init__(messages[-1])
        self.before = messages[:-1]

    def ask(self, path: Path, question: Any, limits: Limits, hear: Any = None, cuda: bool = False) -> Any:
        for message in self.before:
            hear(message)
        return self.said


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([NAMED, END], "its answer leaves out the rest"),
        ([NAMED, *ALL[1:], END], "which is not due"),
        ([NAMED, *ALL, ALL[0], END], "which is not due"),
        ([NAMED, {"check": 5}, END], "its answer is none: "),
        ([NAMED, *ALL[:2], {"failed": "\x1b[31m late"}], "\ufffd[31m late"),
    ],
)
def test_a_check_that_is_invented_is_none(tmp_path: Path, messages: list[Any], words: str) -> None:
    found = check_contract(written(tmp_path, SOUND), Speaker(*messages))
    assert not found.ok
    assert words in found.checks[-1].message
    assert found.about == "\ufffd]0;title\ufffd plain ::error::"


def test_what_says_nothing_of_itself_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, SOUND)
    with pytest.raises(RecordError, match=r"it did not say what it is|its answer"):
        check_contract(path, Speaker(END))
    with pytest.raises(RecordError, match="name: Input should be a valid string"):
        check_contract(path, Speaker({"name": 5, "about": ""}, END))
    assert check_contract(path, Speaker(NAMED, *ALL, END)).ok


def test_a_sound_scheme_passes_its_check(tmp_path: Path) -> None:
    heard: list[str] = []
    found = check_contract(written(tmp_path, SOUND), SANDBOX, lambda one: heard.append(one.name))
    assert found.ok
    assert heard == [one.name for one in found.checks]
    assert found.facets == facets_of(runpy.run_path(str(tmp_path / "mine.py"))["scheme"])
