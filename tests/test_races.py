"""The scripts that race us against what people use, and the one that shows how cost grows."""

import importlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bnsuite.datasets import digits
from bnsuite.networks import FAMILIES, softplus
from bnsuite.schemes import REFERENCES, SCHEMES

ROOT = Path(__file__).parents[1]
JIT = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script of `benchmarks/peers` by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "peers")
    return importlib.import_module


@pytest.fixture
def serial(peers: Callable[[str], ModuleType]) -> ModuleType:
    return peers("serial")


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.growth")


@pytest.fixture
def small(peers: Callable[[str], ModuleType]) -> Callable[..., list[Any]]:
    """Problems of small networks at initialization, on 2 minibatches of 32."""
    pytest.importorskip("pyhessian")
    operators = peers("operators")
    x, y = digits().train_x[:64].double(), digits().train_y[:64]
    data = operators.Partition(x.view(2, 32, 1, 8, 8), y.view(2, 32))

    def problems(scheme: str, seeds: Any, *, depth: int, width: int = 8, **_: Any) -> list[Any]:
        return [
            operators.Problem.of(
                FAMILIES["mlp"].build(
                    SCHEMES[scheme],
                    depth,
                    width=width,
                    shape=data.x.shape[2:],
                    classes=10,
                    seed=seed,
                    activation=softplus,
                ),
                data,
                True,
            )
            for seed in seeds
        ]

    return problems


@pytest.mark.parametrize("scheme", REFERENCES)
def test_the_plain_loop_and_the_lanes_agree(
    serial: ModuleType, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(serial, "DEPTH", 8)
    monkeypatch.setattr(serial, "EARLY", 2)
    assert serial.early_difference(SCHEMES[scheme], serial.torch.device("cpu")) <= serial.TOLERANCE


def test_the_race_prints_its_table(
    serial: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serial, "LANES", serial.LANES[:2])
    monkeypatch.setattr(serial, "DEPTH", 2)
    assert serial.main(["--schemes", "none", "batchnorm", "--steps", "2", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^none +\d+\.\d\d +\d", printed, re.MULTILINE)
    assert "2 lanes, 2 layers, 2 steps, n = 1 rounds" in printed


def test_the_race_says_when_the_sides_disagree(
    serial: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serial, "early_difference", lambda scheme, device: math.inf)
    monkeypatch.setattr(serial, "LANES", serial.LANES[:2])
    monkeypatch.setattr(serial, "DEPTH", 2)
    assert serial.main(["--schemes", "none", "--steps", "2", "--rounds", "1"]) == 1
    assert "NO" in capsys.readouterr().out


@pytest.mark.parametrize("scheme", ["batchnorm", "layernorm"])
@JIT
def test_every_side_is_sure_of_the_same_eigenvalue(
    peers: Callable[[str], ModuleType],
    small: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scheme: str,
) -> None:
    script = peers("top_eigenvalue")
    monkeypatch.setattr(script, "problems", small)
    table = tmp_path / "rows.json"
    options = ["--schemes", scheme, "--depths", "8", "--networks", "1", "--rounds", "1", "--json", str(table)]
    assert script.main(options) == 0
    rows = json.loads(table.read_text(encoding="utf-8"))
    assert [row["side"] for row in rows] == list(script.SIDES)
    sure = [row for row in rows if row["residual"] is not None]
    assert {"ours", "curvlinops + eigsh", "eigenthings lanczos"} <= {row["side"] for row in sure}
    assert all(row["residual"] <= script.RESIDUAL and row["products"] > 0 for row in sure)
    assert rows[0]["ratio"] == 1.0

    monkeypatch.setitem(script.SIDES, "pyhessian", (script.pyhessian_power, [0.5]))  # stops far from it
    script.main(options)
    assert re.search(r"pyhessian +no λ_max certified", capsys.readouterr().out)


@pytest.mark.parametrize("scheme", ["batchnorm", "layernorm"])
@JIT
def test_every_side_has_the_spectrum_of_the_same_hessian(
    peers: Callable[[str], ModuleType], small: Callable[..., list[Any]], scheme: str
) -> None:
    """That of plain double backward: its ends and tr H² beside each side's quadrature."""
    script = peers("quadratures")
    (problem,) = small(scheme, [1], depth=2, width=2)
    parameters = [*problem.network.parameters()]
    loss = sum(torch.nn.functional.cross_entropy(problem.network(x), y) for x, y in problem.batches) / 2
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    columns = [torch.autograd.grad(entry, parameters, retain_graph=True) for entry in gradient]
    matrix = torch.stack([torch.cat([part.flatten() for part in column]) for column in columns])
    values = torch.linalg.eigvalsh(matrix)
    for name, side in script.SIDES.items():
        same = side.from_matrix(matrix, problem)
        found, truth = (side.density(asked, 4, 2).nodes for asked in (side.operator(problem), same))
        assert torch.allclose(found, truth, rtol=1e-6, atol=1e-9), name
        density = side.density(same, 30, 16)
        assert density.weights.sum(1).tolist() == pytest.approx([1] * 16), name
        ends = [float(density.nodes.min()), float(density.nodes.max())]
        assert ends == pytest.approx([float(values[0]), float(values[-1])], rel=1e-4), name
        squares = (density.weights * density.nodes**2).sum(1)
        error = float(squares.std()) / 4
        assert abs(float(squares.mean() - values.square().mean())) <= 4 * error, name


@JIT
def test_the_density_race_is_at_equal_error(
    peers: Callable[[str], ModuleType],
    small: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = peers("density")
    monkeypatch.setattr(script, "problems", small)
    monkeypatch.setattr(script, "SMALL", {"width": 2, "depth": 2})
    table = tmp_path / "rows.json"
    options = ["--schemes", "none", "--depths", "2", "--order", "3", "--probes", "2", "--rounds", "1"]
    options += ["--json", str(table)]
    monkeypatch.setattr(script, "TARGET", 0.2)
    assert script.main(options) == 0
    rows = json.loads(table.read_text(encoding="utf-8"))
    known, unknown = rows[:4], rows[4:]
    assert [row["side"] for row in known] == [row["side"] for row in unknown] == list(script.SIDES)
    assert all(row["error"] <= script.TARGET for row in known)
    assert {(row["order"], row["probes"], row["error"], row["products"]) for row in unknown} == {
        (3, 2, None, 6)
    }
    assert known[0]["ratio"] == unknown[0]["ratio"] == 1.0

    ours = script.SIDES["ours"]
    other = small("none", [2], depth=2, width=2)[0]
    wrong = ours._replace(operator=lambda problem: ours.operator(other))
    monkeypatch.setitem(script.SIDES, "ours", wrong)
    assert script.main([*options, "--sides", "ours"]) == 1
    assert "NO" in capsys.readouterr().out
    monkeypatch.setattr(script, "TARGET", 0.0)
    script.main([*options, "--sides", "ours"])
    assert re.search(r"ours +no setting of its ladder", capsys.readouterr().out)


def test_a_side_takes_the_fewest_products_that_come_to_the_target(
    peers: Callable[[str], ModuleType], small: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = peers("density")
    (problem,) = small("none", [1], depth=2, width=2)
    truth = script.Truth(problem)
    assert truth.error(truth.density) == 0
    elsewhere = script.Density(truth.density.nodes + 20 * truth.width, truth.density.weights)
    assert 0.5 < truth.error(elsewhere) <= 1.01
    least = {8: 9, 12: 2, 16: 1, 24: 1, 32: 1}  # probes by order that come to the target

    def error(_: Any, density: Any) -> float:
        probes, order = density.nodes.shape
        return 0.0 if probes >= least[order] else 1.0

    monkeypatch.setattr(script.Truth, "error", error)
    zeros = lambda order, probes: script.Density(*torch.zeros(2, probes, order))  # noqa: E731
    assert script.cheapest(zeros, truth) == (16, 1, 0.0)
    least[16] = 2
    assert script.cheapest(zeros, truth) == (12, 2, 0.0)  # as many products as 24 × 1


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_is_that_of_the_power_law(growth: ModuleType, power: float) -> None:
    sizes = [2, 4, 8, 16]
    assert growth.exponent(sizes, [3 * n**power for n in sizes]) == pytest.approx(power, abs=1e-12)
    ladder = growth.Ladder("job", "size", sizes, None)
    cells = growth.row(ladder, growth.Race([[0.003 * n**power] * 3 for n in sizes])).split(" | ")
    assert cells[4:] == [f"{power:.2f}", f"{power:.2f} |"]


def test_every_job_runs_and_has_a_row(
    growth: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [ladder._replace(sizes=(1, 2)) for ladder in growth.ladders("none")]
    monkeypatch.setattr(growth, "ladders", lambda scheme: small)
    assert growth.main(["--rounds", "1", "--scheme", "none"]) == 0
    assert capsys.readouterr().out.count(" | 1, 2 | ") == len(small)
