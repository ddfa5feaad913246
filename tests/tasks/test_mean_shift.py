"""mean_shift: shares and projected sharpness against an explicit Jacobian and an explicit Hessian."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from by_hand import checkpoint, hessian, partition
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from bnsuite.engine.curvature import unflatten
from bnsuite.records import Outcome
from bnsuite.tasks import Subject
from bnsuite.tasks.mean_shift import MeanShift

CLASSES = 4
TASK = MeanShift(width=6, batch=16, tuning=(1,), confirmation=(101, 102), depth=2, rate=0.1, steps=200)


def moments_by_hand(network: torch.nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ∇E[f] and ∇Var[f], (C, P) each, from the Jacobian of every output in every example."""
    theta = parameters_to_vector(network.parameters()).detach()

    def outputs(theta: Tensor) -> Tensor:
        return torch.cat([functional_call(network, unflatten(theta, network), (part,)) for part in x])

    f, jacobian = outputs(theta), torch.autograd.functional.jacobian(outputs, theta)
    return jacobian.mean(0), 2 * (f.unsqueeze(-1) * jacobian).mean(0) - 2 * f.mean(0)[
        :, None
    ] * jacobian.mean(0)


def projector(rows: Tensor) -> Tensor:
    """Build the projector (P, P) onto the span of the rows, by the pseudo-inverse."""
    rows = rows / rows.norm(dim=1, keepdim=True)
    return torch.linalg.pinv(rows) @ rows


@pytest.mark.parametrize("scheme", ["none", "batchnorm"])
def test_against_explicit_matrices(scheme: str, make_subject: Callable[..., Subject]) -> None:
    subject = make_subject(scheme)
    measured = TASK(subject)
    assert measured.outcome is Outcome.OK
    for sample in measured.samples:
        detail: dict[str, Any] = sample.detail
        network, _ = checkpoint(subject, TASK, sample)
        matrix = hessian(subject, network, TASK)  # makes the network float64
        values, vectors = torch.linalg.eigh(matrix)
        top = vectors[:, -(CLASSES - 1) :]
        means, variances = moments_by_hand(network, partition(subject, TASK)[0])
        for name, rows in (("means", means), ("means_and_variances", torch.cat([means, variances]))):
            span = projector(rows)
            assert detail[name]["rank"] == int(torch.linalg.matrix_rank(span, rtol=1e-6)) == len(rows)
            share = float((span @ top).square().sum()) / (CLASSES - 1)
            assert detail[name]["share"] == pytest.approx(share, abs=2 * detail["subspace_error"] + 1e-6)
            outside = torch.eye(len(span), dtype=torch.float64) - span
            left = float(torch.linalg.eigvalsh(outside @ matrix @ outside)[-1])
            assert detail[name]["lambda_max"] == pytest.approx(left, rel=1e-3)
            assert detail[name]["ratio"] == pytest.approx(left / float(values[-1]), rel=2e-3)
        assert detail["eigenvalues"] == pytest.approx(values.flip(0)[:CLASSES].tolist(), rel=1e-4)
        assert sample.value == detail["means"]["share"] <= detail["means_and_variances"]["share"]
        assert 0 <= detail["subspace_error"] < 0.1
    assert measured.derived["means_share"] == pytest.approx(measured.value)


def test_a_random_subspace_holds_its_share_of_the_dimensions(subject: Subject) -> None:
    many = MeanShift(**{**vars(TASK), "confirmation": tuple(range(101, 113))})(subject)
    size = sum(p.numel() for p in subject.network(2, 6, 1).parameters())
    for name, rank in (("means", CLASSES), ("means_and_variances", 2 * CLASSES)):
        chances = [sample.detail[name]["random"] for sample in many.samples]  # type: ignore[index, call-overload]
        assert sum(chances) / len(chances) == pytest.approx(rank / size, rel=0.25)  # type: ignore[arg-type]
