"""The scripts that race us against what people use, and the one that shows how cost grows."""

import importlib
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from bnsuite.datasets import digits
from bnsuite.networks import FAMILIES, softplus
from bnsuite.protocol.search import log_grid
from bnsuite.schemes import REFERENCES, SCHEMES

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SMALL_SWEEP = ["--depth", "2", "--width", "8", "--lanes", "2"]
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
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("growth")


@pytest.fixture
def small(peers: Callable[[str], ModuleType]) -> Callable[..., list[Any]]:
    """Problems of small networks at initialization, on 2 minibatches of 32."""
    pytest.importorskip("pyhessian")
    operators = peers("operators")

    def problems(
        scheme: str, seeds: Any, device: Any = "cpu", *, depth: int, width: int = 8, **_: Any
    ) -> list[Any]:
        images = digits().to(device)
        x, y = images.train_x[:64].double(), images.train_y[:64]
        data = operators.Partition(x.view(2, 32, 1, 8, 8), y.view(2, 32))
        return [
            operators.Problem.of(
                FAMILIES["mlp"]
                .build(
                    SCHEMES[scheme],
                    depth,
                    width=width,
                    shape=data.x.shape[2:],
                    classes=10,
                    seed=seed,
                    activation=softplus,
                )
                .to(device),
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
    monkeypatch.setattr(serial, "EARLY", 2)
    assert serial.early_difference(SCHEMES[scheme], serial.Size(depth=8), CPU) <= serial.TOLERANCE


def test_the_race_prints_its_table(
    serial: ModuleType, device: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "rows.json"
    options = ["--schemes", "none", "batchnorm", "--steps", "2", "--rounds", "1", "--device", device]
    assert serial.main([*options, *SMALL_SWEEP, "--json", str(table)]) == 0
    printed = capsys.readouterr().out
    rows = json.loads(table.read_text(encoding="utf-8"))
    assert [row["scheme"] for row in rows] == ["none", "batchnorm"]
    assert f"{rows[0]['ratio']:.2f}" in printed
    setting = {"cpu": r"\d", "cuda": "(foreach|fused)"}[device]
    assert re.search(rf"^none +\d+\.\d\d +{setting} ", printed, re.MULTILINE)
    assert "2 lanes, 2 layers of width 8, 2 steps, n = 1 rounds" in printed
    assert ("threads" in printed) == (device == "cpu")


def test_lanes_are_two_seeds_of_rates_over_four_decades(serial: ModuleType) -> None:
    default = serial.Size().grid()
    assert [lane.seed for lane in default] == [1, 2] * 9
    assert [lane.rate for lane in default[::2]] == pytest.approx(log_grid(1e-3, 2, 9), rel=1e-12)
    many = serial.Size(lanes=64).grid()
    assert (len(many), many[0].rate, many[-1].rate) == (64, 1e-3, pytest.approx(10))
    assert [lane.rate for lane in serial.Size(lanes=2).grid()] == [1e-3] * 2


def test_the_loop_takes_every_kernel_for_the_same_steps(serial: ModuleType) -> None:
    rung = serial.rung(SCHEMES["batchnorm"], serial.Size(2, 8, 4), CPU)
    plain = serial.loop(*rung, 3).losses
    on_a_gpu = serial.contestants(rung._replace(examples=SimpleNamespace(x=SimpleNamespace(is_cuda=True))), 3)
    assert [(rival.name, rival.setting) for rival in on_a_gpu] == [
        ("loop", "foreach"),
        ("loop", "fused"),
        ("lanes", "–"),
    ]
    for rival in on_a_gpu:
        assert torch.allclose(rival.side(*rung, 3).losses, plain), rival.setting


def test_what_is_built_lies_on_the_device(serial: ModuleType, growth: ModuleType) -> None:
    """A device without data refuses tensors of another."""
    meta = torch.device("meta")
    build, examples, _ = serial.rung(SCHEMES["batchnorm"], serial.Size(2, 8, 4), meta)
    tensors = [*build(1).parameters(), *build(2).buffers(), examples.x, examples.y]
    assert {tensor.device for tensor in tensors} == {meta}
    growth.sweep_step("batchnorm", 2, 2, meta)()
    growth.hessian_product("batchnorm", 2, 2, meta)()


@pytest.mark.parametrize("name", ["serial", "top_eigenvalue", "density", "time_to_accuracy", "growth"])
def test_a_gpu_that_is_not_there_is_told_in_a_line(
    peers: Callable[[str], ModuleType],
    growth: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        peers(name).main(["--device", "cuda"])
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("no GPU: torch sees none here.")


RACES = ["serial", "top_eigenvalue", "density", "time_to_accuracy", "board"]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *((name, "--rounds", value) for name in RACES for value in ("0", "-1", "2.5", "many")),
        *((name, "--json", "nowhere/rows.json") for name in RACES),
        *(("serial", option, "0") for option in ("--steps", "--depth", "--width", "--lanes")),
        ("serial", "--lanes", "7"),
        *(("top_eigenvalue", option, "0") for option in ("--depths", "--networks")),
        *(("density", option, "0") for option in ("--depths", "--order", "--probes")),
        *((name, "--schemes", "nosuch") for name in RACES),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_before_anything_is_measured(
    peers: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], name: str, option: str, value: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        peers(name).main([option, value])
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"argument {option}: ")
    assert repr(value) in said.err


def test_the_head_counts_threads_on_a_cpu_alone(
    peers: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = peers("options").machine
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    assert re.fullmatch(r".+, one thread, \w+, torch \S+", machine(CPU))
    assert re.fullmatch(r"a GPU, \w+, torch \S+", machine(torch.device("cuda")))


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_make_runs_every_race_on_the_device(device: str) -> None:
    command = ["make", "--dry-run", "peers", f"DEVICE={device}"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in printed.splitlines() if "benchmarks/" in line]
    assert all(f"--device {device}" in line for line in lines if "board.py" not in line)
    assert {Path(line.split()[1]).stem for line in lines} >= {"serial", "top_eigenvalue", "density", "growth"}
    assert ("--lanes 64 --width 512" in lines[0]) == (device == "cuda")


def test_the_race_says_when_the_sides_disagree(
    serial: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serial, "early_difference", lambda *_: math.inf)
    assert serial.main(["--schemes", "none", "--steps", "2", "--rounds", "1", *SMALL_SWEEP]) == 1
    assert "NO" in capsys.readouterr().out


@pytest.mark.parametrize("scheme", ["batchnorm", "layernorm"])
@JIT
def test_every_side_is_sure_of_the_same_eigenvalue(
    peers: Callable[[str], ModuleType],
    small: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    device: str,
    scheme: str,
) -> None:
    script = peers("top_eigenvalue")
    monkeypatch.setattr(script, "problems", small)
    table = tmp_path / "rows.json"
    options = ["--schemes", scheme, "--depths", "4", "--networks", "1", "--rounds", "1", "--device", device]
    assert script.main([*options, "--json", str(table)]) == 0
    rows = json.loads(table.read_text(encoding="utf-8"))
    assert [row["side"] for row in rows] == list(script.SIDES)
    sure = [row for row in rows if row["residual"] is not None]
    assert {"ours", "curvlinops + eigsh", "eigenthings lanczos"} <= {row["side"] for row in sure}
    assert all(row["residual"] <= script.RESIDUAL and row["products"] > 0 for row in sure)
    assert rows[0]["ratio"] == 1.0

    monkeypatch.setitem(script.SIDES, "pyhessian", (script.pyhessian_power, [0.5]))  # stops far from it
    script.main([*options, "--sides", "pyhessian"])
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
    device: str,
) -> None:
    script = peers("density")
    monkeypatch.setattr(script, "problems", small)
    monkeypatch.setattr(script, "SMALL", {"width": 2, "depth": 2})
    table = tmp_path / "rows.json"
    options = ["--schemes", "none", "--depths", "2", "--order", "3", "--probes", "2", "--rounds", "1"]
    options += ["--json", str(table), "--device", device]
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
    other = small("none", [2], device, depth=2, width=2)[0]
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
    found = growth.growth("none", ladder, growth.Race([[0.003 * n**power] * 3 for n in sizes]))
    assert str(found).split(" | ")[5:] == [f"{power:.2f}", f"{power:.2f} |"]


def test_every_job_runs_and_has_a_row(
    growth: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    small = [ladder._replace(sizes=(1, 2)) for ladder in growth.ladders("none", torch.device(device))]
    monkeypatch.setattr(growth, "ladders", lambda *_: small)
    assert growth.main(["--rounds", "1", "--schemes", "none", "--device", device]) == 0
    assert capsys.readouterr().out.count(" | 1, 2 | ") == len(small)
