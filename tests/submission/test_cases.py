"""Schemes as people write them, each with one fault: one failure is told, in words that help."""

import runpy
from pathlib import Path

import pytest
from torch import nn

from bnsuite.execute.run import run
from bnsuite.facets import facets_of
from bnsuite.records import Outcome, RecordError
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.submission.contract import NOT_TRIED, contract
from bnsuite.submission.conversation import Limits
from bnsuite.submission.foreign import check_contract, load_scheme
from bnsuite.submission.sandbox import Sandbox, working_bwrap

SANDBOX = Sandbox(working_bwrap())
HEAD = """
import functools
import torch
from torch import nn
from bnsuite import Scheme

class AnyShape(nn.modules.batchnorm._BatchNorm):
    def _check_input_dim(self, x):
        pass

def across(x):  # dimensions of a channel's statistics, and the shape in which they meet x
    return [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
"""
BATCH_STATISTICS_ALWAYS = """
scheme = Scheme("case", lambda n: AnyShape(n, track_running_stats=False))
"""
ONE_FOR_ALL = """
scheme = Scheme("case", functools.cache(AnyShape))
"""
LAZY = """
scheme = Scheme("case", lambda n: nn.LazyBatchNorm1d())
"""
OLD_WEIGHT_NORM = """
scheme = Scheme("case", weight=torch.nn.utils.weight_norm)
"""
UNBIASED_OVER_POSITIONS = """
class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        flat = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
        variances = flat.var(2, keepdim=True), flat.var((1, 2), keepdim=True)
        share = self.mix.softmax(0)
        return x / (sum(s * v for s, v in zip(share, variances)) + 1e-5).sqrt().reshape(
            len(x), -1, *[1] * (x.dim() - 2)
        )

scheme = Scheme("case", Norm)
"""
PLAIN_ATTRIBUTES = """
class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.mean, self.std, self.seen = torch.zeros(n), torch.ones(n), 0

    def forward(self, x):
        over, shape = across(x)
        if not self.training:
            return (x - self.mean.view(shape)) / self.std.view(shape)
        mean, std = x.mean(over), x.std(over) + 1e-5
        self.seen += 1
        limit = 1 + min(2.0, self.seen / 50)
        ratio = (std / self.std).detach().clamp(1 / limit, limit)
        self.mean = self.mean + (mean.detach() - self.mean) / 10
        self.std = self.std + (std.detach() - self.std) / 10
        return (x - mean.view(shape)) / std.view(shape) * ratio.view(shape)

scheme = Scheme("case", Norm)
"""
FAULTS = {
    "bn-notrack": (BATCH_STATISTICS_ALWAYS, "evaluation", "Use running statistics in evaluation"),
    "renorm-counter": (PLAIN_ATTRIBUTES, "dtype", "norms.0.mean, which stays torch.float32"),
    "shared": (ONE_FOR_ALL, "builds", "the same AnyShape from the factory each time, such as norms.0"),
    "switch": (UNBIASED_OVER_POSITIONS, "finite", "128 of 128 values not finite from norms.0 (Norm) for (8,"),
    "old-wn": (OLD_WEIGHT_NORM, "builds", "Use torch.nn.utils.parametrizations.weight_norm"),
    "lazy": (LAZY, "builds", "Build it from num_features: BatchNorm1d(num_features)"),
}


def written(folder: Path, body: str) -> Path:
    path = folder / "scheme.py"
    path.write_text(HEAD + body)
    return path


def scheme_of(folder: Path, body: str) -> Scheme:
    found = runpy.run_path(str(written(folder, body)))["scheme"]
    assert isinstance(found, Scheme)
    return found


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:var\\(\\):UserWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.parametrize(("body", "name", "words"), FAULTS.values(), ids=FAULTS)
def test_one_cause_is_one_failure(tmp_path: Path, body: str, name: str, words: str) -> None:
    failed = [one for one in contract(scheme_of(tmp_path, body)) if not one.ok]
    told = [one for one in failed if not one.message.startswith(NOT_TRIED)]
    assert [one.name for one in told] == [name]
    assert words in told[0].message


def test_parts_without_state_may_be_shared() -> None:
    relu = nn.ReLU()
    scheme = Scheme("case", SCHEMES["layernorm"].norm, activation=lambda n: relu)
    assert next(contract(scheme)).ok


IN_DIRECT = """
scheme = Scheme("case", nn.InstanceNorm1d)
"""


def test_instance_norm_on_rows_is_refused(tmp_path: Path) -> None:
    scheme = scheme_of(tmp_path, IN_DIRECT)
    builds = next(contract(scheme))
    assert builds.ok
    assert "for transformer; mlp refuses: InstanceNorm1d reads (8, 16) as one example" in builds.message
    (record,) = run(
        "smoke",
        tasks=["stable_lr"],
        schemes=[scheme],
        families=["mlp"],
        device="cpu",
        records=tmp_path / "records",
    )
    assert record.outcome is Outcome.UNSUPPORTED
    assert "InstanceNorm1d reads (32, 16) as one example without a batch dimension" in str(record.error)


ASKS_FOR_GRADIENTS = """
class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("var", torch.ones(n))

    def forward(self, x):
        over, shape = across(x)
        mean, var = self.mean, self.var
        if torch.is_grad_enabled():
            mean, var = x.mean(over), x.var(over, unbiased=False)
            self.mean = 0.9 * self.mean + 0.1 * mean.detach()
            self.var = 0.9 * self.var + 0.1 * var.detach()
        y = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
        return self.gamma.view(shape) * y + self.beta.view(shape)

scheme = Scheme("case", Norm)
"""


def test_a_norm_that_follows_the_gradient_mode_has_the_facets_of_batch_norm(tmp_path: Path) -> None:
    found = facets_of(scheme_of(tmp_path, ASKS_FOR_GRADIENTS))
    assert {*found.words} == {*facets_of(SCHEMES["batchnorm"]).words} - {"stackable"}
    assert found.costs["operations per element"] > 5


FLOAT32_INSIDE = """
class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        h = x.movedim(1, -1).float()
        h = h * (h.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return (self.weight * h.to(x.dtype)).movedim(-1, 1)

scheme = Scheme("case", Norm)
"""


def test_a_norm_that_computes_in_float32_has_the_facets_of_rms_norm(tmp_path: Path) -> None:
    scheme = scheme_of(tmp_path, FLOAT32_INSIDE)
    assert facets_of(scheme).words == facets_of(SCHEMES["rmsnorm"]).words
    found = {one.name: one for one in contract(scheme)}
    assert all(one.ok for one in found.values())
    assert found["gradient"].message.startswith("that of the output, to ")
    assert found["second derivative"].message.endswith("and the gradient changes so")


def test_a_file_beside_the_scheme_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "norms.py").write_text("from torch.nn import Identity\n")
    path = written(tmp_path, "from norms import Identity\nscheme = Scheme('case', Identity)\n")
    for ask in (
        lambda: load_scheme(path, SANDBOX, Limits(wall_s=600)),
        lambda: check_contract(path, SANDBOX),
    ):
        with pytest.raises(RecordError, match=r"no module 'norms' here\. A scheme is one file: if norms\.py"):
            ask()


def test_warnings_of_its_code_are_heard_once(tmp_path: Path) -> None:
    heard: list[str] = []
    check_contract(written(tmp_path, OLD_WEIGHT_NORM), SANDBOX, warn=heard.append)
    assert len(heard) == 1
    assert heard[0].startswith("FutureWarning: `torch.nn.utils.weight_norm` is deprecated")
