"""Fuzz manifests: random TOML, sound ones with odd values, and bytes that are no TOML."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bnsuite.records import RecordError
from bnsuite.records.manifest import read_manifest

_KEYS = [
    *["name", "authors", "licence", "requires", "paper", "notes", "licens", "a"] * 5,
    ".".join(["a"] * 3000),
]
_VALUES = [
    '"mine"',
    '["A"]',
    '"MIT"',
    "[]",
    "1",
    "1e400",
    "nan",
    "true",
    '""',
    "{a = 1}",
    "[" * 500,
    '"\\u0000"',
]
_TEXT = st.text(max_size=40).map(lambda text: json.dumps(text, ensure_ascii=False))
_LINE = st.tuples(st.sampled_from(_KEYS), st.sampled_from(_VALUES) | _TEXT).map(" = ".join)
_SOUND = {
    "name": '"mine"',
    "authors": '["A"]',
    "licence": '"MIT"',
    "paper": '"arXiv 1502.03167"',
    "notes": '"two\\nlines"',
    "requires": '["e3nn==0.6.0"]',
    "github": '["somebody"]',
}


def _changed(changes: list[tuple[str, str | None]]) -> bytes:
    fields: dict[str, str | None] = {**_SOUND, **dict(changes)}
    return "\n".join(f"{key} = {value}" for key, value in fields.items() if value is not None).encode()


STRATEGY = st.one_of(
    st.lists(
        st.tuples(st.sampled_from([*_SOUND]), st.none() | st.sampled_from(_VALUES) | _TEXT), max_size=3
    ).map(_changed),
    st.lists(st.tuples(st.sampled_from(["paper", "notes"]), _TEXT), max_size=2).map(_changed),
    st.lists(_LINE, max_size=5).map(lambda lines: "\n".join(lines).encode()),
    st.binary(max_size=60),
)
"""The bytes of a submission.toml."""


def try_one(case: Any, folder: Path) -> str:
    """Read the bytes as a manifest; `accepted` or `refused`.

    Raises:
        AssertionError: it is refused by more than one short line, or accepted with a control character.
    """
    with tempfile.TemporaryDirectory(dir=folder) as room:
        place = Path(room, "mine")
        place.mkdir()
        (place / "submission.toml").write_bytes(case)
        try:
            manifest = read_manifest(place)
        except RecordError as error:
            return _one_short_line(str(error).replace(str(place), ""))
    assert manifest.name == "mine"
    for line in (manifest.licence, manifest.paper, *manifest.authors, *manifest.requires):
        assert not set(line) & {chr(code) for code in (*range(32), 127)}, repr(line)
    return "accepted"


def _one_short_line(message: str) -> str:
    assert "\n" not in message, message
    assert len(message) < 1000, message
    return "refused"
