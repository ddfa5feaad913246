"""Fuzz records: published ones with odd values, sealed again, then read, audited and drawn."""

import copy
import json
import math
import tempfile
from collections.abc import Iterable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bnsuite.board.site import RecordFolder, build_site
from bnsuite.board.submissions import admit
from bnsuite.records import Record, RecordError
from bnsuite.records.record import digest
from bnsuite.records.store import read_record

PUBLISHED = Path(__file__).parents[2] / "leaderboard" / "records"
EVERY = 400
"""Cases after which a board of what was admitted is built."""

_NUMBERS = [0, -0.0, 1, -1, 5e-324, 1e-310, 1e308, -1e308, 10**400, 2**63, math.nan, math.inf, 0.5, 1e-299]
_WORDS = ["", "a", "a\x00b", "\u202ex", "\ud800", "../x", "x" * 300, "a\nb", "<b>", "ok", "64", "digits"]
_MOMENTS = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "yesterday"]
ODD = st.sampled_from([*_NUMBERS, *_WORDS, *_MOMENTS, None, True, False, [], {}, [64], {"a": 1}, "deep"])

FREE = ("provenance", "costs", "facets", "about", "error")
"""Fields that do not follow from the trace, so that an odd value may stand."""

STRATEGY = st.tuples(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 10**6), ODD, st.booleans()), min_size=1, max_size=3),
    st.sampled_from([True, True, True, False]),
)
"""(which record, changes as (place, value, whether the field is free), whether it is sealed again)."""

_calls = count(1)
_admitted: dict[str, str] = {}


@cache
def originals() -> list[str]:
    """The published records of quick, as text, under the name of a submission."""
    paths = sorted((PUBLISHED / "quick").rglob("*-cpu-*.json"))
    return [json.dumps({**json.loads(path.read_text(encoding="utf-8")), "scheme": "mine"}) for path in paths]


def _places(data: dict[str, Any], fields: Iterable[str]) -> list[tuple[Any, Any]]:
    """Every (holder, key) in some fields of a record."""
    found: list[tuple[Any, Any]] = [(data, name) for name in fields]
    waiting = [data[name] for name in fields if isinstance(data[name], (dict, list))]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(min(len(holder), 3))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])
    return found


def _deep() -> Any:
    value: Any = []
    for _ in range(300):
        value = [value]
    return value


def mutated(case: Any) -> str:
    """The text of the record that a case stands for."""
    which, changes, seal = case
    data = json.loads(originals()[which % len(originals())])
    for place, value, free in changes:
        places = _places(data, [name for name in FREE if name in data] if free else [*data])
        holder, key = places[place % len(places)]
        holder[key] = _deep() if value == "deep" else copy.deepcopy(value)  # one value serves many cases
    if seal:
        try:
            data = json.loads(Record.model_validate(data).sealed().model_dump_json())
        except (ValueError, RecursionError):
            data["id"] = "0" * 16
    return json.dumps(data)


def try_one(case: Any, folder: Path) -> str:
    """Admit the record as a submission of its own; `accepted` or `refused`.

    Raises:
        AssertionError: it is refused by more than one line, or admitted though it cannot be shown.
    """
    text = mutated(case)
    with tempfile.TemporaryDirectory(dir=folder) as room:
        place = Path(room, "mine")
        (place / "records").mkdir(parents=True)
        (place / "submission.toml").write_text('name = "mine"\nauthors = ["A"]\nlicence = "MIT"\n')
        path = place / "records" / "one.json"
        path.write_text(text, encoding="utf-8")
        try:
            record = read_record(path)
        except RecordError as error:
            return _one_line(str(error))
        found = admit([place / "records"], {})
    assert len(found.left_out) == 1 - len(found.manifests)
    if found.left_out:
        assert "\n" not in found.left_out[0]
        return "refused"
    _assert_sound(record)
    _admitted[record.id] = text
    if next(_calls) % EVERY == 0:
        build(folder)
    return "accepted"


def _one_line(message: str) -> str:
    assert "\n" not in message, message
    return "refused"


def _assert_sound(record: Record) -> None:
    waiting: list[Any] = [record.model_dump(mode="json")]
    digest(waiting[0])
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            assert "\x00" not in value, repr(value)
        elif isinstance(value, (int, float)) and value:
            assert 1e-300 <= abs(value) <= 1e300, value


def build(folder: Path) -> None:
    """Build one board of everything admitted so far; all of it is drawn."""
    with tempfile.TemporaryDirectory(dir=folder) as room:
        place = Path(room, "mine")
        (place / "records").mkdir(parents=True)
        (place / "submission.toml").write_text('name = "mine"\nauthors = ["A"]\nlicence = "MIT"\n')
        for name, text in _admitted.items():
            (place / "records" / f"{name}.json").write_text(text, encoding="utf-8")
        left_out: list[str] = []
        build_site([RecordFolder(place / "records", "submitted")], Path(room, "site"), left_out)
        assert all("\n" not in line for line in left_out)
    _admitted.clear()
