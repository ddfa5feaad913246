"""Tables of records: their columns, their types, and what comes back from a file."""

import json
import math
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from typer.testing import CliRunner, Result

import bnsuite
from bnsuite.cli import app
from bnsuite.records import RecordError, Sample, Store, read_records
from bnsuite.tables import COLUMNS, SAMPLE_COLUMNS

PUBLISHED = Path(__file__).parents[1] / "leaderboard"


def export(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def results(tmp_path: Path, make_record: Any) -> Path:
    """A folder of two records: a bound that comes from a GPU, and a failure with a traceback."""
    store = Store(tmp_path / "results")
    store.add(make_record(gpu="NVIDIA H200", commit="c0ffee", dirty=False, value=0.1 + 0.2))
    store.add(
        make_record(
            scheme="none",
            value=None,
            low=None,
            outcome="error",
            samples=(),
            error='Traceback:\n  "λ", not finite',
            started="yesterday",
            stacked=None,
        )
    )
    return store.folder


@pytest.mark.parametrize("samples", [False, True])
def test_published_records_are_rows(samples: bool) -> None:
    records = read_records([PUBLISHED]).values()
    table = bnsuite.load_records(PUBLISHED, samples=samples)
    assert table.dtypes.astype(str).to_dict() == (SAMPLE_COLUMNS if samples else COLUMNS)
    assert list(table["id"]) == [record.id for record in records for _ in range(record.n if samples else 1)]
    assert table["started"].notna().all()
    values = [one.value for record in records for one in (record.samples if samples else [record])]
    assert [None if math.isnan(value) else value for value in table["value"]] == values
    assert all(isinstance(json.loads(text), dict) for text in table["settings"])


def test_a_row_holds_what_the_record_holds(results: Path) -> None:
    bound, failure = (row for _, row in bnsuite.load_records(results).iterrows())
    assert (bound["scheme"], bound["value"], bound["outcome"], bound["n"]) == (
        "batchnorm",
        0.1 + 0.2,
        "capped",
        2,
    )
    assert bound["settings"] == '{"depths": [4, 128], "width": 64}'
    assert bound["started"] == pd.Timestamp("2026-01-01", tz="UTC")
    assert bound["dirty"] is False
    assert (failure["outcome"], failure["n"], failure["dirty"]) == ("error", 0, pd.NA)
    assert [
        name for name in ("value", "low", "high", "gpu", "stacked", "started") if pd.notna(failure[name])
    ] == []


def test_a_row_of_a_seed_holds_what_the_seed_gave(results: Path) -> None:
    first, second = (row for _, row in bnsuite.load_records(results, samples=True).iterrows())
    assert (first["seed"], first["value"], first["low"], first["high"]) == (101, 16, 16, 18)
    assert (second["seed"], second["value"], second["outcome"]) == (102, 32, "capped")
    assert first["detail"] == '{"accuracy_passed": 0.9}'


def test_several_folders_are_one_table(results: Path, tmp_path: Path, make_record: Any) -> None:
    other = Store(tmp_path / "other")
    other.add(make_record(scheme="layernorm"))
    table = bnsuite.load_records([str(results), other.folder, results])
    assert sorted(table["scheme"]) == ["batchnorm", "layernorm", "none"]


def test_a_folder_without_records_is_an_empty_table(tmp_path: Path) -> None:
    table = bnsuite.load_records(tmp_path)
    assert table.empty
    assert table.dtypes.astype(str).to_dict() == COLUMNS


@pytest.mark.parametrize("name", ["no such folder", "broken", "beyond 64 bits"])
def test_what_cannot_be_read_is_refused(name: str, tmp_path: Path, make_record: Any) -> None:
    folder = tmp_path / "records"
    if name == "broken":
        folder.mkdir()
        (folder / "broken.json").write_text("{")
    elif name == "beyond 64 bits":
        Store(folder).add(make_record(samples=(Sample(seed=2**70, value=1.0),)))
    with pytest.raises(RecordError, match=r"no such folder|not valid JSON|beyond 64 bits"):
        bnsuite.load_records(folder, samples=True)
    refused = export("--records", folder, "--samples")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert str(folder) in refused.stderr


def _from_csv(content: bytes, columns: dict[str, str]) -> pd.DataFrame:
    exact: Any = (
        {"float_precision": "round_trip"} if pd.__version__ < "3" else {}
    )  # which later is the default
    table = pd.read_csv(BytesIO(content), keep_default_na=False, na_values=[""], **exact)
    return table.assign(started=pd.to_datetime(table["started"], format="ISO8601")).astype(columns)


def _from_json(content: bytes, columns: dict[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(json.loads(content))
    return table.assign(started=pd.to_datetime(table["started"], format="ISO8601")).astype(columns)


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_what_is_exported_reads_back_equal(form: str, samples: bool, results: Path, tmp_path: Path) -> None:
    folders = [results, PUBLISHED / "submissions"]
    out = tmp_path / f"table.{form}"
    flags = [part for folder in folders for part in ("--records", folder)] + ["--samples"] * samples
    done = export("--format", form, "--out", out, *flags)
    assert (done.exit_code, done.output) == (0, "")
    columns = dict(SAMPLE_COLUMNS if samples else COLUMNS)
    readers = {
        "csv": _from_csv,
        "json": _from_json,
        "parquet": lambda content, _: pd.read_parquet(BytesIO(content)),
    }
    assert_frame_equal(
        readers[form](out.read_bytes(), columns),
        bnsuite.load_records(folders, samples=samples),
        check_exact=True,
    )
    if form != "parquet":
        assert export("--format", form, *flags).stdout_bytes == out.read_bytes()


def test_a_parquet_file_needs_a_place_and_pyarrow(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = export("--format", "parquet", "--records", results)
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "--out" in refused.stderr
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "table.parquet"
    refused = export("--format", "parquet", "--records", results, "--out", out)
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'bnsuite[data]'" in refused.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("place", "words"), [("results/table.json", "folder of records"), ("none/table.csv", "cannot be written")]
)
def test_a_table_is_not_written_just_anywhere(place: str, words: str, results: Path, tmp_path: Path) -> None:
    refused = export("--records", results, "--out", tmp_path / place)
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert words in refused.stderr
    assert len(read_records([results])) == 2


def test_a_checkout_exports_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PUBLISHED.parent)
    assert "diffgroupnorm" in set(_from_csv(export().stdout_bytes, dict(COLUMNS))["scheme"])
    monkeypatch.chdir(tmp_path)
    empty = export()
    assert (empty.exit_code, empty.stdout.strip()) == (0, ",".join(COLUMNS))
    assert "no records" in empty.stderr
