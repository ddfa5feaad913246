"""The public namespace: what `import bnsuite` shows."""

import inspect
import subprocess
import sys

import pytest

import bnsuite

NAMES = [name for name in dir(bnsuite) if not name.startswith("_")]


def test_every_name_is_there_and_documented() -> None:
    assert {*NAMES, "__version__"} == {*bnsuite.__all__} == {*dir(bnsuite)}
    assert {"Family", "Scheme", "gradient_growth", "max_stable_lr", "run", "sharpness", "spectrum"} <= {
        *NAMES
    }
    for name in NAMES:
        assert inspect.getdoc(getattr(bnsuite, name)), name


def test_names_come_by_star() -> None:
    names: dict[str, object] = {}
    exec("from bnsuite import *", names)
    assert {*names} - {"__builtins__"} == {*bnsuite.__all__}


def test_nothing_else_is_public() -> None:
    """What the module defines and does not show is a typing name, a sub-package, or underscored."""
    code = "import bnsuite, sys; print(*(n for n in vars(bnsuite) if n[0] != '_'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["TYPE_CHECKING", "Any"]
    with pytest.raises(AttributeError, match="module 'bnsuite' has no attribute 'sharpnes'"):
        bnsuite.sharpnes  # type: ignore[attr-defined]  # noqa: B018
