"""`bnsuite reproduce` on a record of top_eigenvalue asks hessian-eigenthings, too."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bnsuite
from bnsuite.cli import app


def test_reproduce(tmp_path: Path) -> None:
    settings = {"width": 8, "depth": 2, "rates": [0.1], "minibatches": 2, "beside": 0, "loss_ratio": 0.9}
    (record,) = bnsuite.run(
        profile="smoke",
        tasks=["top_eigenvalue"],
        schemes=["batchnorm"],
        families=["mlp"],
        records=tmp_path,
        confirmation=[101],
        **settings,
    )
    command = ["reproduce", record.id, "--records", str(tmp_path)]
    told = CliRunner().invoke(app, [*command, "--json"])
    opinion = json.loads(told.stdout)[0]["second_opinion"]
    assert opinion["seed"] == 101
    assert opinion["ours"] == pytest.approx(record.value, rel=1e-5)
    assert opinion["theirs"] == pytest.approx(opinion["ours"], rel=1e-8)
    agreement, second = CliRunner().invoke(app, command).stdout.splitlines()
    assert agreement.endswith("n 1 seeds): agrees")
    assert second.startswith(f"second opinion: λ_max of seed 101 is {opinion['ours']:.8g} by our Lanczos")
