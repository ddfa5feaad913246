"""The front door and the notebooks; `make docs` checks every link between the pages."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from bnsuite.claims.catalogue import CLAIMS
from bnsuite.schemes import SCHEMES

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "leaderboard/RULES.md", "benchmarks/README.md"]
)
def test_links_lead_to_files(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_executed_in_order_without_an_error(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert outputs


def test_numbers_in_words_are_those_of_the_suite() -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    verdicts = Counter(re.findall(r"\| (holds with a condition|holds|does not hold here) \|", results))
    assert len(SCHEMES) == 30, "README, start.md and normalizer.md say thirty"
    assert len(CLAIMS) == 14, "README and commands.md say fourteen"
    assert verdicts == {"holds": 7, "holds with a condition": 7}, "README says half and half"


def test_the_example_on_ones_own_model_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/own-model.md").read_text(encoding="utf-8"), re.DOTALL
    )
    exec(compile(code, "docs/own-model.md", "exec"), {})
    assert "StableRate(value=" in capsys.readouterr().out
