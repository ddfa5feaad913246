"""Claims: every verdict follows from the records, and changes with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_records import record, sample, write
from typer.testing import CliRunner

from bnsuite.board.figures.evidence import evidence_figures
from bnsuite.claims.catalogue import BN, CLAIMS, DEEP, DEEPER, NONE
from bnsuite.claims.judge import CONDITION, FAILS, HOLDS, UNMEASURED, Need, answers, judge
from bnsuite.cli import app
from bnsuite.records import CALIBRATION, Json, Outcome, Record

RESIDUAL = "residual-batchnorm"
Numbers = Mapping[str, Any]


def measured(need: Need, value: float, n: int = 6, **detail: Any) -> Record:
    """Make a record that answers a need, with values and details of its seeds close to the given ones."""
    around = [1 + 0.01 * (k - (n - 1) / 2) for k in range(n)]

    def moved(part: Any, by: float) -> Any:
        if isinstance(part, dict):
            return {key: moved(value, by) for key, value in part.items()}
        return part * by

    samples = [sample(100 + k, value * by, detail=moved(detail, by)) for k, by in enumerate(around)]
    changed = "".join(f"+{name}={setting}" for name, setting in need.settings)
    return record(
        need.task,
        need.scheme,
        samples,
        profile=f"quick{changed}",
        settings={"width": 64, "depth": 8, **dict(need.settings)},
        derived={name: number for name, number in detail.items() if isinstance(number, float)},
    )


def calibration(zero: float, half: float) -> Record:
    rows: list[dict[str, Json]] = [
        {"experiment": f"softmax regression, d = 100, inputs of mean {mean}", "measured": value}
        for mean, value in (("0", zero), (".5", half))
    ]
    return record(
        CALIBRATION, NONE, [], outcome=Outcome.OK, value=1.0, trace=tuple(rows), profile=CALIBRATION
    )


def smoothness(scheme: str, settings: Any, later: float, init: float) -> Record:
    return measured(
        Need("smoothness", scheme, settings),
        later,
        effective_beta_at_init=init,
        loss_range=later / 10,
        gradient_change=later / 20,
    )


def as_the_threads_say() -> list[Record]:
    """Make records by which every claim holds."""
    growth = [need for claim in CLAIMS if claim.id == "Y3" for need in claim.needs if need.scheme == BN]
    overflow = [
        need for claim in CLAIMS if claim.id == "Y4" for need in claim.needs if need.task == "overflow_depth"
    ]
    beyond = {"nonfinite": 140.0, "half": 40.0, "half_nonfinite": 50.0}
    step = {"before": 1e8, "gradient_before": 1e8, "gradient_after": 1e-3, "weight_growth": 1e5}
    return [
        *(measured(need, 1.4, first_to_last=1e6) for need in growth),
        measured(Need("gradient_growth", NONE), 1.0),
        measured(Need("gradient_growth", RESIDUAL), 1.05, first_to_last=140.0),
        *(measured(need, 100, **beyond) for need in overflow),
        measured(Need("max_depth"), 60),
        measured(Need("max_depth", NONE), 16),
        measured(Need("max_depth", RESIDUAL), 128),
        measured(Need("scale_law"), -1.0, hidden_exponent=-1.0, without_norm=0.3),
        measured(Need("first_step"), 1e-5, **step),
        smoothness(BN, (), 5, 300), smoothness(NONE, (), 20, 30),
        smoothness(BN, DEEP, 3, 300), smoothness(NONE, DEEP, 4, 30),
        smoothness(BN, DEEPER, 500, 3000), smoothness(NONE, DEEPER, 20, 30),
        measured(Need("stable_lr"), 5), measured(Need("stable_lr", NONE), 0.3),
        measured(Need("time_to_accuracy"), 10), measured(Need("time_to_accuracy", NONE), 150),
        calibration(0.15, 2.6),
        measured(Need("spectrum"), 1.3, outliers=0.0, at_init={"ratio": 1.4}),
        measured(Need("spectrum", NONE), 8, outliers=9.0, at_init={"ratio": 3.0}),
        measured(Need("mean_shift"), 0.01, means={"ratio": 1.0}, means_and_variances={"share": 0.02}),
        measured(
            Need("mean_shift", NONE),
            0.9,
            means={"ratio": 0.2, "random": 0.001},
            means_and_variances={"share": 0.95},
        ),
    ]  # fmt: skip


def without_effect() -> list[Record]:
    """Make records by which batch norm behaves like no normalization."""
    world = {(r.task, r.scheme, r.profile): r for r in as_the_threads_say()}
    same = []
    for (task, scheme, profile), answer in world.items():
        if task == CALIBRATION:
            same.append(calibration(1.0, 1.0))
        elif task in ("max_depth", "gradient_growth"):
            same.append(_like(answer, [1.0] * 6))
        elif task == "overflow_depth":
            same.append(
                _like(answer, [512] * 6, {"nonfinite": 900.0, "half": 500.0, "half_nonfinite": 500.0})
            )
        elif task == "scale_law":
            same.append(_like(answer, [0.3] * 6, detail={"hidden_exponent": 0.0, "without_norm": -1.0}))
        elif task == "first_step":
            same.append(
                _like(answer, [1.0] * 6, detail={"before": 1.0, "gradient_after": 1.0, "weight_growth": 1.0})
            )
        elif task == "spectrum":
            same.append(_like(answer, [8.0] * 6, detail={"outliers": 9.0, "at_init": {"ratio": 8.0}}))
        elif task == "mean_shift":
            same.append(_like(answer, [0.01] * 6, detail={"means": {"ratio": 1.0}}))
        else:
            other = world[task, NONE, profile]
            same.append(other.model_copy(update={"scheme": scheme}).sealed())
    return same


def _like(
    original: Record, values: list[float], derived: Numbers | None = None, detail: Numbers | None = None
) -> Record:
    samples = [sample(100 + k, value, detail=dict(detail or {})) for k, value in enumerate(values)]
    return record(
        original.task,
        original.scheme,
        samples,
        profile=original.profile,
        settings=original.settings,
        derived=dict(derived or {}),
    )


def changed(world: list[Record], *replacements: Record) -> list[Record]:
    """Replace records of equal cells in a world."""
    cells = {(r.task, r.scheme, r.profile) for r in replacements}
    return [*(r for r in world if (r.task, r.scheme, r.profile) not in cells), *replacements]


def verdicts(records: list[Record], profile: str = "quick") -> dict[str, str]:
    return {judged.claim.id: judged.finding.verdict for judged in judge(CLAIMS, records, profile)}


def test_a_world_in_which_all_holds() -> None:
    by_claim = verdicts(as_the_threads_say())
    assert list(by_claim) == [f"Y{k}" for k in range(1, 9)] + [f"P{k}" for k in range(1, 7)]
    assert set(by_claim.values()) == {HOLDS}


def test_a_world_without_effect() -> None:
    by_claim = verdicts(without_effect())
    assert set(by_claim.values()) == {FAILS}


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.id for claim in CLAIMS])
def test_what_is_missing_is_not_measured(claim: Any) -> None:
    for need in claim.needs:
        records = [r for r in as_the_threads_say() if not answers(r, need)]
        (judged,) = judge([claim], records)
        assert judged.finding.verdict == UNMEASURED
        assert f"1 of {len(claim.needs)} records are missing." in judged.finding.condition


def test_the_newest_record_decides() -> None:
    later = record("stable_lr", BN, [sample(100 + k, 0.3) for k in range(6)], day=9)
    assert verdicts([*as_the_threads_say(), later])["P1"] == FAILS


def test_few_seeds_and_missing_values_give_no_verdict() -> None:
    world, p1 = as_the_threads_say(), [claim for claim in CLAIMS if claim.id == "P1"]
    two = [measured(Need("stable_lr", scheme), 5, n=2) for scheme in (BN, NONE)]
    assert verdicts(changed(world, *two))["P1"] == UNMEASURED
    stuck = record("stable_lr", NONE, [sample(100 + k, None, Outcome.STUCK) for k in range(6)])
    (judged,) = judge(p1, changed(world, stuck))
    assert judged.finding.verdict == UNMEASURED
    assert "of none has no value: stayed finite and did not reach its target" in judged.finding.condition


def test_a_calibration_without_the_rows_of_a_claim_gives_no_verdict() -> None:
    bare = record(CALIBRATION, NONE, [], outcome=Outcome.OK, value=1.0, profile=CALIBRATION)
    assert verdicts(changed(as_the_threads_say(), bare))["P3"] == UNMEASURED


def test_the_words_have_their_numbers_from_the_settings() -> None:
    fast = measured(Need("stable_lr"), 5).model_copy(update={"settings": {"depth": 5}})
    (judged,) = judge([c for c in CLAIMS if c.id == "P1"], changed(as_the_threads_say(), fast.sealed()))
    assert judged.finding.condition.startswith("5 layers: ")


def test_settings_that_nobody_asked_for_answer_nothing() -> None:
    wide = record("stable_lr", BN, profile="quick+width=128", settings={"width": 128})
    assert not answers(wide, Need("stable_lr"))
    assert answers(wide, Need("stable_lr", BN, (("width", 128),)))
    assert verdicts(as_the_threads_say(), "full")["P1"] == UNMEASURED


def overflow(value: float, **derived: float) -> list[Record]:
    needs = [
        need for claim in CLAIMS if claim.id == "Y4" for need in claim.needs if need.task == "overflow_depth"
    ]
    return [measured(need, value, **derived) for need in needs]


STEP = {"before": 1e8, "weight_growth": 1e5}
TURNS: list[tuple[str, str, list[Record]]] = [
    ("Y2", CONDITION, [measured(Need("scale_law"), -0.7, hidden_exponent=-1.0, without_norm=0.3)]),
    ("Y4", CONDITION, overflow(235, nonfinite=470.0, half=48.0)),
    ("Y4", FAILS, [*overflow(235, nonfinite=470.0, half=300.0), measured(Need("max_depth"), 29)]),
    ("Y5", CONDITION, [smoothness(BN, (), 5, 10)]),
    ("Y6", CONDITION, [measured(Need("first_step"), 1e-5, gradient_after=1.6, **STEP)]),
    ("Y7", CONDITION, [smoothness(BN, DEEPER, 1, 3000)]),
    ("Y8", CONDITION, [measured(Need("max_depth", RESIDUAL), 50)]),
    ("P2", CONDITION, [measured(Need("time_to_accuracy"), 75)]),
    ("P3", FAILS, [calibration(1.0, 1.5)]),
    ("P4", CONDITION, [measured(Need("spectrum"), 3, outliers=4.0)]),
    ("P5", CONDITION, [measured(Need("mean_shift", NONE), 0.3, means={"ratio": 0.9})]),
    ("P6", CONDITION, [smoothness(BN, DEEP, 3, 20), smoothness(BN, (), 5, 3)]),
]


@pytest.mark.parametrize(("name", "verdict", "found"), TURNS)
def test_a_verdict_turns_with_its_records(name: str, verdict: str, found: list[Record]) -> None:
    assert verdicts(changed(as_the_threads_say(), *found))[name] == verdict


def test_every_claim_has_a_figure_and_its_numbers() -> None:
    for judged in judge(CLAIMS, as_the_threads_say()):
        figures = evidence_figures(judged.claim.id, judged.finding.measured)
        assert figures, judged.claim.id
        assert judged.command == f"bnsuite claims --profile quick --only {judged.claim.id}"
        assert all(row.value is not None for row in judged.finding.measured), judged.claim.id
        assert set(judged.as_json()) == {
            "id",
            "claim",
            "source",
            "experiment",
            "measured",
            "verdict",
            "condition",
            "parts",
            "command",
        }


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r", as_the_threads_say())
    arguments = ["claims", "--no-measure", "--records", str(tmp_path / "r")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    assert "P1  holds: Batch norm trains at much higher learning rates." in shown.stdout
    nothing_missing = CliRunner().invoke(
        app, ["claims", "--only", "P1", "--json", "--records", str(tmp_path / "r"), "--device", "cpu"]
    )
    assert '"verdict": "holds"' in nothing_missing.stdout
    wrong = CliRunner().invoke(app, [*arguments, "--only", "P9"])
    assert wrong.exit_code == 2
    assert "unknown claim 'P9'" in wrong.stderr
