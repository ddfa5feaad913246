"""Record: schema, key and id, and which value goes with which outcome."""

import json
import math
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from bnsuite.records import Cell, Measurement, Outcome, Record, Sample
from bnsuite.records.record import digest

NEEDED = [
    "id",
    "key",
    "schema_version",
    "suite_version",
    "task",
    "task_version",
    "scheme",
    "family",
    "dataset",
    "profile",
    "device",
    "settings",
    "value",
    "unit",
    "better",
    "outcome",
    "low",
    "high",
    "samples",
    "derived",
    "trace",
    "provenance",
]


def test_a_record_satisfies_the_exported_schema(make_record: Any) -> None:
    schema = Record.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(make_record().model_dump_json()), schema)


@pytest.mark.parametrize(
    ("field", "value"),
    [("value", "16"), ("outcome", "fine"), ("better", "up"), ("device", "tpu"), ("surprise", 1)],
)
def test_the_schema_refuses_what_the_model_refuses(make_record: Any, field: str, value: object) -> None:
    data = json.loads(make_record().model_dump_json()) | {field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, Record.model_json_schema())
    if field != "value":  # pydantic reads "16" as 16; the id then shows the edit
        with pytest.raises(ValidationError):
            Record.model_validate(data)


def test_the_promised_fields_are_at_the_top(make_record: Any) -> None:
    assert set(NEEDED) <= set(make_record().model_dump())


def test_round_trip_through_json(make_record: Any) -> None:
    record = make_record()
    again = Record.model_validate_json(record.model_dump_json())
    assert again == record
    assert (again.id, again.key) == (record.expected_id(), record.expected_key())


def test_nothing_can_be_set(make_record: Any) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_record().value = 3.0


@pytest.mark.parametrize(
    "change",
    [
        {"task": "stable_lr"},
        {"task_version": 2},
        {"suite_version": 2},
        {"scheme": "layernorm"},
        {"scheme_source": "c" * 64},
        {"family": "cnn"},
        {"dataset": "cifar10"},
        {"dataset_checksum": "c" * 64},
        {"settings": {"width": 65, "depths": [4, 128]}},
        {"device": "cuda"},
    ],
)
def test_the_key_holds_what_determines_a_measurement(make_record: Any, change: dict[str, Any]) -> None:
    assert make_record(**change).key != make_record().key


@pytest.mark.parametrize(
    "change",
    [
        {"profile": "smoke"},
        {"started": "2027-01-01T00:00:00+00:00"},
        {"cpu": "another"},
        {"value": 23.0},
        {"samples": ()},
        {"trace": ()},
    ],
)
def test_the_same_cell_elsewhere_has_the_same_key_and_another_id(
    make_record: Any, change: dict[str, Any]
) -> None:
    assert make_record(**change).key == make_record().key
    assert make_record(**change).id != make_record().id


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_but_a_finite_one(make_record: Any, value: float) -> None:
    for field in ("value", "low", "high", "coverage"):
        with pytest.raises(ValueError, match="finite"):
            make_record(**{field: value})
    with pytest.raises(ValueError, match="finite"):
        Sample(seed=1, value=value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_record(derived={"deep": [{"er": value}]})


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_value_stands_beside_the_outcomes_that_have_one(outcome: Outcome) -> None:
    valued = outcome in (Outcome.OK, Outcome.CAPPED, Outcome.FLOOR, Outcome.TIMEOUT)
    assert outcome.has_value is valued
    right, wrong = (1.0, None) if valued else (None, 1.0)
    for kind in (Measurement, lambda **fields: Sample(seed=1, **fields)):
        assert kind(value=right, outcome=outcome).outcome is outcome
        with pytest.raises(ValidationError, match="do not go together"):
            kind(value=wrong, outcome=outcome)


def test_outcomes_read_aloud() -> None:
    assert len({outcome.sentence for outcome in Outcome}) == len(Outcome)
    bounds = {outcome: outcome.bound for outcome in Outcome if outcome.bound}
    assert bounds == {Outcome.CAPPED: "lower", Outcome.TIMEOUT: "lower", Outcome.FLOOR: "upper"}


def test_digest_is_canonical_and_stable() -> None:
    assert digest({"b": [1, 2.5], "a": None}) == digest({"a": None, "b": [1, 2.5]})
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_cell_reads_as_one_line(make_record: Any) -> None:
    cell = make_record().cell
    assert cell == Cell(
        task="max_depth", scheme="batchnorm", family="mlp", dataset="digits", profile="quick", device="cpu"
    )
    assert str(cell) == "max_depth batchnorm mlp/digits"
    assert make_record().n == 2


def test_a_record_of_an_older_version_keeps_its_id_and_takes_no_newer_field(make_record: Any) -> None:
    data = make_record().model_dump(mode="json")
    old = {name: value for name, value in data.items() if name not in ("about", "costs", "id")}
    old["schema_version"] = 1
    assert Record.model_validate({**old, "id": ""}).expected_id() == digest(old)[:16]
    for name, value in (("about", "better"), ("costs", {"parameters": 0.0})):
        with pytest.raises(ValidationError, match=f"schema_version 1 has no {name}"):
            Record.model_validate({**old, "id": "", name: value})
