"""Scheme: its messages, its facets, and a source hash that follows what it is made of."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bnsuite.norms import BatchNorm, LayerNorm
from bnsuite.schemes import REFERENCES, SCHEMES, Scheme, catalogue

SOURCE = """
from functools import partial
import math
import torch
from torch import nn
from bnsuite import Scheme

EPS = 1e-5
ONE, TWO, THREE = 1, 1, 2
SHAPES = {"a": [1, 2]}
UNUSED = 0

def deeper(x):
    return x * math.sqrt(2)

def helper(x):
    return deeper(x) + EPS + ONE + TWO + THREE + SHAPES["a"][0]

class Base(nn.Module):
    def __init__(self, c, groups=2):
        super().__init__()
        self.c, self.groups = c, groups

class Mine(Base):
    def forward(self, x):
        return helper(x)

class Settings:
    def __init__(self, groups):
        self.groups = groups
    def __call__(self, c):
        return Mine(c, self.groups)

def closing(groups):
    def build(c):
        return Mine(c, groups)
    return build

def plain(c, groups=3):
    return Mine(c, groups)

scale, other = (lambda c, depth: nn.Identity()), (lambda c, depth: nn.Tanh())
schemes = {
    "class": Scheme("mine", Mine),
    "partial": Scheme("mine", partial(Mine, groups=4)),
    "nested": Scheme("mine", partial(plain, groups=partial(helper, 1))),
    "lambda": Scheme("mine", lambda c: Mine(c, 5)),
    "closure": Scheme("mine", closing(6)),
    "instance": Scheme("mine", Settings(7)),
    "function": Scheme("mine", plain),
    "branch": Scheme("mine", Mine, skip="pre", branch=scale),
}
"""
EDITS = {
    "a class": ("return helper(x)", "return helper(x) + 1", "every"),
    "its base": ("self.c, self.groups = c, groups", "self.c, self.groups = c, groups + 1", "every"),
    "a helper": ("return deeper(x)", "return 3 * deeper(x)", "every"),
    "a helper's helper": ("math.sqrt(2)", "math.sqrt(3)", "every"),
    "a constant": ("EPS = 1e-5", "EPS = 1e-6", "every"),
    "a constant equal to another": ("ONE, TWO, THREE = 1, 1, 2", "ONE, TWO, THREE = 1, 2, 2", "every"),
    "a table": ('{"a": [1, 2]}', '{"a": [2, 2]}', "every"),
    "a partial's argument": ("groups=4", "groups=5", "partial"),
    "a nested partial's argument": ("helper, 1", "helper, 2", "nested"),
    "a lambda": ("Mine(c, 5)", "Mine(c, 6)", "lambda"),
    "what a closure holds": ("closing(6)", "closing(7)", "closure"),
    "what an instance holds": ("Settings(7)", "Settings(8)", "instance"),
    "a default": ("groups=3", "groups=4", "function nested"),
    "a branch": ("(lambda c, depth: nn.Identity())", "(lambda c, depth: nn.Tanh())", "branch"),
}


def hashes(folder: Path, source: str, name: str = "some") -> dict[str, str]:
    """Source hashes of the schemes in a file, loaded anew."""
    path = folder / f"{name}{abs(hash(source))}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("entry", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["entry"] = module
    try:
        spec.loader.exec_module(module)
        return {name: scheme.source_hash() for name, scheme in module.schemes.items()}
    finally:
        del sys.modules["entry"]


@pytest.mark.parametrize("edit", EDITS)
def test_the_hash_follows_what_the_scheme_is_made_of(tmp_path: Path, edit: str) -> None:
    old, new, touched = EDITS[edit]
    assert SOURCE.count(old) == 1
    before, after = hashes(tmp_path, SOURCE), hashes(tmp_path, SOURCE.replace(old, new))
    changed = {name for name in before if after[name] != before[name]}
    assert changed == (set(before) if touched == "every" else set(touched.split()))


@pytest.mark.parametrize(
    "edit",
    [('Scheme("mine"', 'Scheme("another-name"'), ("UNUSED = 0", "UNUSED = 1"), ("nn.Tanh()", "nn.ELU()")],
)
def test_the_hash_is_that_of_nothing_else(tmp_path: Path, edit: tuple[str, str]) -> None:
    assert edit[0] in SOURCE
    moved = "# a comment above\n" + SOURCE.replace(*edit)
    assert hashes(tmp_path, moved) == hashes(tmp_path, SOURCE)


def test_every_scheme_of_the_file_is_told_apart(tmp_path: Path) -> None:
    found = hashes(tmp_path, SOURCE)
    assert len(set(found.values())) == len(found)


def test_the_hash_is_the_same_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "entry.py").write_text(SOURCE)
    program = "import entry\nfor n, s in entry.schemes.items(): print(n, s.source_hash())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert dict(line.split() for line in done.stdout.splitlines()) == hashes(tmp_path, SOURCE)


def test_a_scheme_without_source_has_a_hash_that_follows_its_code() -> None:
    def typed(text: str) -> str:
        space: dict[str, Any] = {"nn": nn, "__name__": "prompt"}
        exec(text, space)
        return Scheme("mine", space["Norm"]).source_hash()

    text = (
        "class Norm(nn.Module):\n def __init__(self, c): super().__init__()\n def forward(self, x): return {}"
    )
    assert typed(text.format("x * 2")) == typed(text.format("x * 2"))
    assert len({typed(text.format(body)) for body in ("x * 2", "x * 3", "x + 2", "x.abs()")}) == 4
    functions = ["Norm = lambda c: nn.GroupNorm(2, c)", "Norm = lambda c: nn.GroupNorm(4, c)"]
    assert len(set(map(typed, functions))) == 2


def test_every_field_counts_but_name_and_paper() -> None:
    base = Scheme("a", BatchNorm, skip="pre")
    assert Scheme("b", BatchNorm, skip="pre", paper="x").source_hash() == base.source_hash()
    others = [
        Scheme("a", LayerNorm, skip="pre"),
        Scheme("a", None, skip="pre"),
        Scheme("a", BatchNorm, skip="post"),
        Scheme("a", BatchNorm),
        Scheme("a", BatchNorm, skip="pre", branch=0.5),
        Scheme("a", BatchNorm, skip="pre", weight=nn.utils.parametrizations.weight_norm),
        Scheme("a", BatchNorm, skip="pre", init=nn.Module.double),  # type: ignore[arg-type]
        Scheme("a", BatchNorm, skip="pre", activation=partial(nn.PReLU, 1)),
        Scheme("a", partial(BatchNorm, eps=1e-3), skip="pre"),
        Scheme("a", partial(BatchNorm, eps=1e-4), skip="pre"),
    ]
    assert len({scheme.source_hash() for scheme in (base, *others)}) == 1 + len(others)


def test_the_built_in_schemes() -> None:
    assert tuple(SCHEMES)[:4] == REFERENCES == ("none", "batchnorm", "residual-batchnorm", "layernorm")
    assert all(name == scheme.name for name, scheme in SCHEMES.items())
    assert SCHEMES["none"].norm is None
    assert SCHEMES["residual-batchnorm"].skip == "pre"
    assert len({scheme.source_hash() for scheme in SCHEMES.values()}) == len(SCHEMES)


def test_the_catalogue_is_published_as_it_is() -> None:
    path = Path(__file__).parents[1] / "leaderboard" / "SCHEMES.md"
    renew = "bnsuite list schemes --markdown > leaderboard/SCHEMES.md"
    assert path.read_text(encoding="utf-8") == catalogue(), f"renew it: {renew}"
    assert all(f"## {name}\n" in catalogue() for name in SCHEMES)
    assert "- α_l is `SkipInit(start=1.0)`: " in catalogue()


def test_facets() -> None:
    assert SCHEMES["batchnorm"].facets == ()
    assert SCHEMES["residual-batchnorm"].facets == ("residual",)

    def own(num_features: int) -> nn.Module:
        return nn.Tanh()

    everything = Scheme("x", skip="post", init=lambda n: None, activation=own, weight=lambda m: m)
    expected = ("residual", "post-norm", "own-init", "own-activation", "weight-parametrization")
    assert everything.facets == expected


@pytest.mark.parametrize("name", ["", "Batch", "a b", "-a", "a_b", "é", "a" * 41, "../a", "a\n"])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 40 lower-case letters, digits and hyphens: got"):
        Scheme(name)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: Scheme("x", BatchNorm(64)), TypeError, r"Try Scheme\(name, MyNorm\) in place of"),
        (lambda: Scheme("x", "batch"), TypeError, "norm builds a module from num_features"),
        (lambda: Scheme("x", skip="both"), ValueError, "skip is 'none', 'pre' or 'post': got 'both'"),
        (lambda: Scheme("x", branch=0.5), ValueError, "a branch scale needs a branch: give skip='pre'"),
        (lambda: Scheme("x", branch=lambda c, d: nn.Identity()), ValueError, "needs a branch"),
    ],
)
def test_what_cannot_be_is_refused(build: Callable[[], Scheme], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build()


def test_a_scheme_is_a_value() -> None:
    assert Scheme("x", BatchNorm) == Scheme("x", BatchNorm)
    with pytest.raises(AttributeError):
        Scheme("x").name = "y"  # type: ignore[misc]
