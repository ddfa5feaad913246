"""Calibration: all known cases hold, and an instrument that is broken on purpose fails its case."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hessian_eigenthings import CurvatureOperator
from scipy.linalg import eigh_tridiagonal
from torch import Tensor
from typer.testing import CliRunner

from bnsuite import calibration
from bnsuite.calibration import CASES, Accept, KnownCase, Reading, measure_case, readings, searches
from bnsuite.calibration import curvature as known_curvature
from bnsuite.calibration import gradients as known_gradients
from bnsuite.claims.catalogue import CENTERING
from bnsuite.cli import app
from bnsuite.engine import curvature
from bnsuite.engine.curvature import Density, Ritz, Spectrum, spectral_density
from bnsuite.names import UnknownNameError
from bnsuite.protocol import climb
from bnsuite.protocol.arrival import ArrivalSearch
from bnsuite.protocol.climb import Bracket
from bnsuite.records import CALIBRATION, Store
from bnsuite.statistics import Interval
from bnsuite.tasks import TASKS, first_step, gradient_growth, overflow_depth, scale_law
from bnsuite.tasks.smoothness import along_gradient

Patch = pytest.MonkeyPatch


def known_case(instrument: str, part: str) -> KnownCase:
    (case,) = [case for case in CASES if case.instrument == instrument and part in case.experiment]
    return case


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Clear what known cases share, so that every test measures it again."""
    caches = [known_gradients.first_step, known_gradients.scale_law, known_curvature.sharpness_at_init]
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def wrong_exponent(patch: Patch) -> None:
    right = gradient_growth._rate
    patch.setattr(gradient_growth, "_rate", lambda *args: math.sqrt(right(*args)))


def no_step(patch: Patch) -> None:
    patch.setattr(first_step, "train", lambda network, batches, rate: None)


def too_narrow(patch: Patch) -> None:
    patch.setattr(overflow_depth, "DTYPES", {"float32": torch.float16})


def unscaled(patch: Patch) -> None:
    patch.setattr(scale_law, "scaled", lambda network, layer, scale: network)


def wrong_rate(patch: Patch) -> None:
    right = searches.training_step

    def faster(
        forward: Any, params: Any, velocity: Any, x: Any, y: Any, rate: Tensor, *more: Any, **and_: Any
    ) -> Any:
        return right(forward, params, velocity, x, y, 1.1 * rate, *more, **and_)

    patch.setattr(searches, "training_step", faster)


def late(patch: Patch) -> None:
    right = ArrivalSearch.reached
    patch.setattr(ArrivalSearch, "reached", lambda self, curve: (n := right(self, curve)) and n + 2)


def unorthogonal(operator: CurvatureOperator, seed: int) -> Iterator[Ritz]:
    """Run Lanczos by its three-term recurrence alone: orthogonality is lost, and eigenvalues appear twice."""
    start = torch.randn(operator.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis, alphas, betas = [start / start.norm()], list[float](), list[float]()
    while True:
        w = operator.matvec(basis[-1])
        alphas.append(float(basis[-1] @ w))
        w = w - alphas[-1] * basis[-1] - (betas[-1] * basis[-2] if betas else 0)
        values, vectors = eigh_tridiagonal(alphas, betas)
        yield Ritz(values, vectors, float(w.norm()), torch.stack(basis))
        betas.append(float(w.norm()))
        basis.append(w / betas[-1])


def lost_reorthogonalization(patch: Patch) -> None:
    patch.setattr(curvature, "lanczos", unorthogonal)


def a_little_off(patch: Patch) -> None:
    right = known_curvature.extreme_eigenvalues

    def off(operator: CurvatureOperator, **more: Any) -> Spectrum:
        spectrum = right(operator, **more)
        top = spectrum.top[0]
        return spectrum._replace(top=(top._replace(value=top.value * (1 + 1e-5)),))

    patch.setattr(known_curvature, "extreme_eigenvalues", off)


def wrong_distance(patch: Patch) -> None:
    def twice_as_far(network: Any, x: Tensor, y: Tensor, steps: Any, loss: Any) -> Any:
        return along_gradient(network, x, y, [2 * step for step in steps], loss=loss)

    patch.setattr(known_curvature, "along_gradient", twice_as_far)


def wrong_weights(patch: Patch) -> None:
    def unsquared(*args: Any) -> Density:
        right = spectral_density(*args)
        roots = right.weights.sqrt()
        return Density(right.nodes, roots / roots.sum(1, keepdim=True))

    patch.setattr(known_curvature, "spectral_density", unsquared)


def first_input_alone(patch: Patch) -> None:
    right = known_curvature.output_moments
    patch.setattr(
        known_curvature,
        "output_moments",
        lambda network, x, stacked: right(network, x[:, :1], stacked=stacked),
    )


def shifted_bracket(patch: Patch) -> None:
    right = climb.bracket

    def shifted(verdicts: dict[int, bool]) -> Bracket:
        passed, failed = right(verdicts)
        return Bracket(passed and passed + 4, failed and failed + 4)

    patch.setattr(climb, "bracket", shifted)


def narrow(patch: Patch) -> None:
    patch.setattr(searches, "median_interval", lambda n: Interval(1, n - 2, 0.96875))


def one_sided(patch: Patch) -> None:
    right = searches.sign_flip_p
    patch.setattr(searches, "sign_flip_p", lambda differences: right(differences) / 2)


FAULTS: list[tuple[str, str, Callable[[Patch], None]]] = [
    ("gradient_growth", "batchnorm, ReLU, batch 16", wrong_exponent),
    ("first_step", "grows by", no_step),
    ("overflow_depth", "float32", too_narrow),
    ("scale_law", "weight gradient", unscaled),
    ("stable_lr", "plain SGD", wrong_rate),
    ("time_to_accuracy", "Nesterov", wrong_rate),
    ("time_to_accuracy", "from step 38", late),
    ("top_eigenvalue", "above a bulk: λ_2", lost_reorthogonalization),
    ("top_eigenvalue", "above a bulk: λ_1 over", a_little_off),
    ("smoothness", "loss range", wrong_distance),
    ("smoothness", "gradient change", wrong_distance),
    ("spectrum", "about 1", wrong_weights),
    ("mean_shift", "share", first_input_alone),
    ("max_depth", "brackets", shifted_bracket),
    ("intervals", "coverage", narrow),
    ("intervals", "false positives", one_sided),
]


@pytest.mark.parametrize(("instrument", "part", "fault"), FAULTS)
def test_a_fault_is_seen(
    instrument: str, part: str, fault: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    case = known_case(instrument, part)
    assert measure_case(case).ok
    for cache in (known_gradients.first_step, known_gradients.scale_law):
        cache.cache_clear()
    fault(monkeypatch)
    assert not measure_case(case).ok


def test_every_instrument_is_broken_once() -> None:
    assert {case.instrument for case in CASES} == {instrument for instrument, _, _ in FAULTS}
    assert {case.instrument for case in CASES} - {"intervals"} <= set(TASKS)


def test_the_cases_that_a_claim_reads_exist() -> None:
    experiments = {case.experiment for case in CASES}
    assert {CENTERING.format(mean) for mean in ("0", ".5")} <= experiments


QUICK = [
    case
    for case in CASES
    if case.instrument in ("scale_law", "smoothness", "spectrum", "mean_shift", "max_depth")
]


@pytest.mark.parametrize("case", QUICK, ids=[case.experiment for case in QUICK])
def test_known_cases_hold(case: KnownCase) -> None:
    assert measure_case(case).ok


def test_only_one_instrument() -> None:
    measured = list(readings("intervals"))
    assert [reading.instrument for reading in measured] == ["intervals", "intervals"]
    with pytest.raises(UnknownNameError, match=r"unknown instrument 'interval'\. Did you mean intervals"):
        list(readings("interval"))


def test_what_is_not_finite_is_off() -> None:
    reading = measure_case(KnownCase("x", "y", lambda: math.nan, Accept(None, -math.inf, math.inf)))
    assert (reading.measured, reading.ok, reading.tolerance) == (None, False, (None, None))


@pytest.fixture
def two_cases(monkeypatch: Patch) -> None:
    cases = (
        KnownCase("a", "right", lambda: 1.0, Accept(1, 0.9, 1.1)),
        KnownCase("b", "wrong", lambda: 2.0, Accept(1, 0.9, 1.1)),
    )
    monkeypatch.setattr(calibration, "CASES", cases)


def test_the_command(tmp_path: Path, two_cases: None) -> None:
    result = CliRunner().invoke(app, ["calibrate", "--records", str(tmp_path), "--json"])
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert [(reading["instrument"], reading["measured"], reading["ok"]) for reading in printed] == [
        ("a", 1, True),
        ("b", 2, False),
    ]
    assert set(printed[0]) == set(Reading._fields)
    assert "1 of 2 readings are off" in result.stderr
    (record,) = Store(tmp_path)
    assert (record.task, record.value) == (CALIBRATION, 0.5)
    assert [(row["experiment"], row["tolerance"]) for row in record.trace] == [
        ("right", [0.9, 1.1]),
        ("wrong", [0.9, 1.1]),
    ]


def test_the_command_as_a_person_sees_it(tmp_path: Path, two_cases: None) -> None:
    result = CliRunner().invoke(app, ["calibrate", "--records", str(tmp_path), "--only", "a"])
    assert result.exit_code == 0
    assert result.stdout.split() == ["ok", "1", "0.9", "…", "1.1", "a:", "right"]
    assert list(Store(tmp_path)) == [], "a part is no calibration"
    assert CliRunner().invoke(app, ["calibrate", "--only", "c"]).exit_code == 2
