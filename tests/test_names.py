"""Names that a user types."""

import pytest

from bnsuite.names import UnknownNameError, lookup

TABLE = {"batchnorm": 1, "layernorm": 2, "none": 3}


def test_a_known_name_is_found() -> None:
    assert [lookup("scheme", name, TABLE) for name in TABLE] == [1, 2, 3]


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UnknownNameError) as caught:
        lookup("scheme", "batch-norm", TABLE)
    assert str(caught.value) == (
        "unknown scheme 'batch-norm'. Did you mean batchnorm? There are: batchnorm, layernorm, none."
    )


def test_a_name_near_none_gets_no_guess() -> None:
    with pytest.raises(UnknownNameError, match="There are: batchnorm") as caught:
        lookup("scheme", "zzzzzz", TABLE)
    assert "Did you mean" not in str(caught.value)


def test_names_are_told_apart_by_case() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean none"):
        lookup("scheme", "None", TABLE)


def test_it_is_a_value_error() -> None:
    assert issubclass(UnknownNameError, ValueError)


def test_a_name_of_any_length_gets_a_short_line() -> None:
    with pytest.raises(UnknownNameError) as caught:
        lookup("activation", "9" * 5000, {"relu": 1})
    assert len(str(caught.value)) < 150
