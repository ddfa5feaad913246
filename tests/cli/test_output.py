"""What the system refuses to the command line is one line, and the exit status says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def bnsuite(*arguments: str, out: str | int, folder: Path) -> tuple[int, str]:
    with open(out, "w") if isinstance(out, str) else os.fdopen(out, "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "bnsuite", *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
            cwd=folder,
        )
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["list", "families", "--json"], ["schema"], ["--version"], ["--help"]])
def test_a_full_standard_output_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    code, said = bnsuite(*arguments, out="/dev/full", folder=tmp_path)
    assert code == 2
    assert (
        said
        == "bnsuite: standard output: No space left on device. Give another path, or free what is full.\n"
    )


def test_a_reader_that_leaves_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code, said = bnsuite("schema", out=writer, folder=tmp_path)
    assert code in (1, 2)
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 1


@pytest.mark.parametrize("arguments", [["check"], ["board", "--records"], ["board", "--out"], ["verify"]])
def test_a_name_too_long_for_the_system_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    code, said = bnsuite(*arguments, "a" * 300, out=os.devnull, folder=tmp_path)
    assert code == 2
    assert "Traceback" not in said
    assert "File name too long" in said
