"""Numbers and names as text."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import record, sample

from bnsuite import format
from bnsuite.records import Outcome


def test_examples() -> None:
    assert doctest.testmod(format).failed == 0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (29.0, "layers", "29"),
        (1024, "steps", "1,024"),
        (0.3499, "", "0.350"),
        (9.996, "", "10.0"),
        (138.4, "", "138"),
        (-2.5, "", "−2.50"),
        (0, "", "0"),
        (1.5e7, "", "1.50×10⁷"),
        (-4e-9, "", "−4.00×10⁻⁹"),
        (None, "", "–"),
    ],
)
def test_number(value: float | None, unit: str, text: str) -> None:
    assert format.number(value, unit) == text


@given(st.floats(1e-300, 1e300))
def test_number_keeps_three_digits(value: float) -> None:
    superscript = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    text = format.number(value).replace("×10", "e").replace(",", "").translate(superscript)
    assert float(text) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("outcome", "value", "text"),
    [
        (Outcome.OK, 29, "29"),
        (Outcome.CAPPED, 128, "≥ 128"),
        (Outcome.TIMEOUT, 400, "> 400"),
        (Outcome.FLOOR, 4, "< 4"),
        (Outcome.STUCK, None, "stuck"),
        (Outcome.ERROR, None, "error"),
    ],
)
def test_reading_shows_the_outcome(outcome: Outcome, value: float | None, text: str) -> None:
    assert format.reading(sample(0, value, outcome), "layers") == text


def test_interval() -> None:
    assert format.interval(17, 19, "layers") == "[17, 19]"
    assert format.interval(128, None, "layers") == "[128, …]"
    assert format.interval(None, None, "layers") == ""


def test_signed() -> None:
    assert [format.signed(x) for x in (0.834, -0.41, -0.001, 0)] == ["+0.83", "−0.41", "0.00", "0.00"]


def test_plain() -> None:
    found = [format.plain(x) for x in (True, None, 0.5, 7, "word", [1], {})]
    assert found == ["yes", "–", "0.500", "7", "word", "", ""]


@given(st.text(), st.text())
def test_slugs_are_safe_and_never_shared(a: str, b: str) -> None:
    for name in (a, b):
        assert set(format.slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
        assert 0 < len(format.slug(name)) < 60 or name == ""
    assert a == b or format.slug(a) != format.slug(b)


def test_a_name_cannot_take_the_slug_of_another() -> None:
    taken = format.slug("<b>")
    assert format.slug(taken) != taken


def test_unprintable_characters_are_replaced() -> None:
    assert format.printable("a\x00b\u202ec\td") == "a�b�c\td"


def test_tally_names_the_seeds_that_ended_otherwise() -> None:
    assert format.tally(record(samples=[29] * 6)) == "6"
    stuck = [sample(k, None, Outcome.STUCK) for k in range(2)]
    assert format.tally(record(samples=stuck)) == "2", "all alike: the record's own outcome says it"
    late = sample(7, 400, Outcome.TIMEOUT)
    assert format.tally(record(samples=[*stuck, late, 29, 29])) == "5, 1 timeout, 2 stuck"
