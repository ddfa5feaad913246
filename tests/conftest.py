"""Set before torch is imported: one thread a process, and Hypothesis without a clock or a memory."""

import os
import signal
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job in the background, and its children
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("seeded", derandomize=True, deadline=None, database=None)
settings.load_profile("seeded")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return str(request.param)


@pytest.fixture
def make_record() -> Any:
    """A sealed record of a made-up measurement; keyword arguments change its fields."""
    from bnsuite.records import Outcome, Provenance, Record, Sample

    def make(**changes: Any) -> Record:
        flags: dict[str, Any] = {
            "package_version": "0.1.0",
            "scheme_source": "a" * 64,
            "dataset_checksum": "b" * 64,
            "commit": None,
            "dirty": None,
            "torch": "2.13.0",
            "python": "3.11.9",
            "os": "Linux x86_64",
            "cpu": "a processor",
            "gpu": None,
            "driver": None,
            "threads": 1,
            "deterministic": True,
            "tf32": False,
            "flush_subnormals": True,
            "stacked": True,
            "seeds": {"tuning": [1], "confirmation": [101, 102]},
            "started": "2026-01-01T00:00:00+00:00",
            "duration_s": 1.5,
        }
        flags |= {name: changes.pop(name) for name in list(changes) if name in flags}
        fields: dict[str, Any] = {
            "id": "",
            "key": "",
            "task": "max_depth",
            "task_version": 1,
            "question": "How deep can it train?",
            "scheme": "batchnorm",
            "family": "mlp",
            "dataset": "digits",
            "profile": "quick",
            "device": "cpu",
            "settings": {"width": 64, "depths": [4, 128]},
            "unit": "layers",
            "better": "higher",
            "value": 24.0,
            "low": 16.0,
            "high": None,
            "coverage": 0.5,
            "samples": (
                Sample(seed=101, value=16, low=16, high=18, detail={"accuracy_passed": 0.9}),
                Sample(seed=102, value=32, outcome=Outcome.CAPPED),
            ),
            "outcome": Outcome.CAPPED,
            "derived": {"non_monotone": False},
            "trace": ({"depth": 4, "outcome": "ok"},),
        }
        return Record(**{**fields, **changes}, provenance=Provenance(**flags)).sealed()

    return make
