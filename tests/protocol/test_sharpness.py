"""Rules of a λ_max in a record: each bound at its edge, where nothing is said, and one beyond."""

from typing import Any

import pytest

from bnsuite.protocol.sharpness import SharpnessSearch
from bnsuite.records import Measurement, Outcome, Sample

TUNED = {"phase": "tune", "seed": 1, "outcome": "ok", "first_loss": 2.3}
TRACE = [{**TUNED, "rate": rate, "loss": rate} for rate in (0.1, 0.2)]
AT_BEST = {"value": 4.0, "residual": 1e-4, "rate": 0.1, "edge": 0.1 * 4.0 / 2}
DETAIL: dict[str, Any] = {
    "step": 400,
    "rate": 0.1,
    "loss": 0.5,
    "accuracy": 0.8,
    "residual": 1e-3,
    "products": 60,
    "eigenvalues": [10.0, 6.0, 3.0],  # 10 = 2 · EDGE / rate
    "residuals": [1e-3, 2e-3, 3e-3],
    "lambda_min": -1.0,
    "lambda_min_residual": 1e-3,
    "at_init": {"value": 3.0, "residual": 1e-4},
    "at_best_rate": AT_BEST,
}
ALONE: dict[str, Any] = {
    "eigenvalues": [9.0],
    "residuals": [1e-3],
    "products": 59,
    "lambda_min": None,
    "lambda_min_residual": None,
}


def search(**changes: Any) -> SharpnessSearch:
    settings: dict[str, Any] = {"tuning": (1,), "confirmation": (101,), "rates": (0.1, 0.2), "steps": 400}
    settings |= {"rate": 0.1, "tolerance": 1e-3, "max_products": 58, "eigenvalues": 3, "beside": 1}
    settings |= {"classes": 10}
    return SharpnessSearch.model_validate({**settings, **changes})


def said(detail: dict[str, Any], **changes: Any) -> list[str]:
    """Objections to one sample, without the comparison of value and derived values."""
    asked = search(**changes)
    trace = [asked.row_type("tune").model_validate(row) for row in TRACE]
    sample = Sample(seed=101, value=None, outcome=Outcome.UNCONVERGED, detail=detail)
    measured = Measurement(value=None, low=None, high=None, outcome=Outcome.UNCONVERGED, samples=(sample,))
    start = "samples[seed 101].detail."
    return [line.removeprefix(start) for line in asked.objections(measured, trace) if line.startswith(start)]


@pytest.mark.parametrize(
    "edge",
    [
        {},
        {"step": 5},
        {"rate": 0.1 / 2**8, "step": 400 * 2**8},
        {"products": 5},  # 3 steps for 3 eigenvalues, and one product for each certified end
        {"eigenvalues": [10.0, 6.0, 6.0 + 9e-9]},
        {**ALONE, "eigenvalues": [-1.0], "lambda_min": -1.0, "lambda_min_residual": 1e-3, "products": 3},
    ],
    ids=str,
)
def test_at_its_edge_a_checkpoint_is_accepted(edge: dict[str, Any]) -> None:
    assert said({**DETAIL, **edge}) == []


@pytest.mark.parametrize(
    ("beyond", "line"),
    [
        ({"rate": 0.1 / 2**9}, f"rate: got {0.1 / 2**9}, must be 0.1 / 2^k, k from 0 to 8"),
        ({"rate": 0.2, "eigenvalues": [5, 3, 1]}, "rate: got 0.2, must be 0.1 / 2^k, k from 0 to 8"),
        ({"step": 4}, "step: got 4, must be from 5 to 400 at rate 0.1"),
        ({"step": 401}, "step: got 401, must be from 5 to 400 at rate 0.1"),
        ({"rate": 0.025, "step": 1601}, "step: got 1601, must be from 5 to 1600 at rate 0.025"),
        (
            {"eigenvalues": [10.5, 6.0, 3.0]},
            "eigenvalues: got 10.5, must be at most 10.0, allowed by its rate",
        ),
        ({"residual": 2e-3}, "residual: got 0.002, must be that of the first eigenvalue, [0.001]"),
        (
            {"residuals": [1e-3, 2e-3]},
            "residuals: got 2, must be one for each of 3 eigenvalues and lambda_min",
        ),
        (
            {"lambda_min_residual": None},
            "residuals: got 3, must be one for each of 3 eigenvalues and lambda_min",
        ),
        ({"products": 61}, "products: got 61, must be from 3 to 60"),
        (
            {"eigenvalues": [9.0, 6.0], "residuals": [1e-3] * 2},
            "eigenvalues: got 2, must be 3 at 60 products",
        ),
        (
            {"lambda_min": None, "lambda_min_residual": None, "products": 59},
            "lambda_min: got None, must be there",
        ),
        (
            {"eigenvalues": [10.0, 6.0, 6.0 + 2e-8]},
            f"eigenvalues: got {[10.0, 6.0, 6.0 + 2e-8, -1.0]}, must descend, and lambda_min last",
        ),
        (
            {"lambda_min": 4.0},
            "eigenvalues: got [10.0, 6.0, 3.0, 4.0], must descend, and lambda_min last",
        ),
        ({"at_init": None}, "at_init: got None, must be there"),
        (
            {"at_best_rate": {**AT_BEST, "rate": 0.2, "edge": 0.4}},
            "at_best_rate.rate: got 0.2, must be the best rate 0.1",
        ),
        (
            {"at_best_rate": {**AT_BEST, "edge": 0.3}},
            "at_best_rate.edge: got 0.3, must be 0.2, rate · λ/2",
        ),
    ],
    ids=str,
)
def test_one_beyond_it_is_objected_to(beyond: dict[str, Any], line: str) -> None:
    assert said({**DETAIL, **beyond}) == [line]


def test_a_seed_after_the_first_lists_one_eigenvalue_and_nothing_beside() -> None:
    left_out = {**DETAIL, **ALONE, "at_init": None, "at_best_rate": None}
    assert said(left_out, eigenvalues=1, beside=0) == []
    assert said({**left_out, "products": 2}, eigenvalues=1, beside=0) == []
    assert said({**left_out, "products": 2}, eigenvalues=1, beside=0, max_products=0) == []
    assert said({**left_out, "products": 3}, eigenvalues=1, beside=0, max_products=1) == [
        "products: got 3, must be from 2 to 2"
    ]
    assert said({**left_out, "products": 1}, eigenvalues=0, classes=None, beside=0) == [
        "products: got 1, must be from 2 to 59"
    ]
    assert said({**DETAIL, **ALONE}, eigenvalues=1, beside=0) == [
        "at_init: got value=3.0 residual=0.0001, must be left out",
        "at_best_rate: got one, must be left out",
    ]
    below = {**left_out, "lambda_min": -1.0, "lambda_min_residual": 1e-3}
    assert said(below, eigenvalues=1, beside=0) == ["lambda_min: got -1.0, must be left out"]


def test_two_listed_eigenvalues_have_a_lowest_one() -> None:
    two = {**DETAIL, "eigenvalues": [9.0, 6.0], "residuals": [1e-3, 2e-3]}
    assert said(two, eigenvalues=2) == []
