"""Settings, valid and absurd, as a person may give them: a Hypothesis strategy, and one try of a case."""

import math
import re
from dataclasses import fields
from typing import Any, NamedTuple

from hypothesis import strategies as st

from bnsuite.execute.plan import plan
from bnsuite.profiles import load_profile, profile_names
from bnsuite.schemes import SCHEMES
from bnsuite.settings import Settings
from bnsuite.tasks import TASKS


class Case(NamedTuple):
    """A task of a profile, and settings in place of the profile's."""

    profile: str
    task: str
    settings: dict[str, Any]


NUMBERS = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([0, 64, 100, 128, 1000, 10**4, 10**6, 10**8, 2**31, 2**63, 2**64, 10**400, 10**5000]),
    st.sampled_from([0.0, -0.0, 0.01, 0.5, 1.0, 1.5, 1e8, 5e-324, 1e308, math.inf, -math.inf, math.nan]),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(["", " ", ",", "1,", "true", "relu", "1e3", "1_0", "٣", "0x10", "9" * 5000, "nan", "\0"]),
    st.lists(st.integers(-1, 200).map(str), max_size=60).map(",".join),
    st.lists(st.floats().map(str), max_size=5).map(",".join),
    st.text(max_size=8),
)
ABSURD = st.one_of(
    NUMBERS,
    TEXTS,
    st.none(),
    st.booleans(),
    st.binary(max_size=3),
    st.lists(NUMBERS, max_size=4),
    st.lists(NUMBERS, max_size=4).map(tuple),
    st.lists(st.lists(NUMBERS, max_size=2), max_size=2),
    st.dictionaries(st.text(max_size=2), NUMBERS, max_size=2),
)


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    profile = draw(st.sampled_from([name for name in profile_names() if name != "standard"]))
    task = draw(st.sampled_from(list(load_profile(profile).tasks)))
    own = [one.name for one in fields(TASKS[task])]
    names = draw(st.lists(st.sampled_from(own), min_size=1, max_size=3, unique=True))
    return Case(profile, task, {name: draw(_values(name)) for name in names})


def _values(name: str) -> st.SearchStrategy[Any]:
    """What the setting may be, as a value or as text, and what nothing may be."""
    (example,) = Settings.model_fields[name].examples or [[0.1, 1.0]]  # rates have theirs in their type
    around = st.just(example)
    if isinstance(example, list):
        around = st.lists(st.sampled_from([*example, 4 * example[0]]), min_size=1, max_size=3).map(tuple)
    elif not isinstance(example, (bool, str)):
        around = st.sampled_from([-example, example // 2, 2 * example, 1000 * example])
    return st.one_of(around, around.map(_written), ABSURD)


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


STRATEGY = _cases()
REFUSAL = re.compile(
    r".*: got .*, wanted .*\. .+\.|.*: both hold .*\. .+\.|unknown activation .*"
    r"|digits: .*(fewer than the batch|reaches its).*\. .+\."  # settings that its data cannot serve
)


def try_one(case: Case) -> str:
    """Plan the case: "accepted" or "refused".

    Raises:
        AssertionError: an error of another kind or of several lines, or nonsense that was planned.
    """
    asked = f"{case.task} with {', '.join(case.settings)}"  # a value may have more digits than Python prints
    try:
        jobs = plan(case.profile, [case.task], [SCHEMES["none"]], ["mlp"], ["digits"], "cpu", case.settings)
    except ValueError as error:
        said = str(error)
    except Exception as error:
        raise AssertionError(f"{asked}: {error!r}") from error
    else:
        for job in jobs:
            _assert_sane(job.task.settings)
        return "accepted"
    assert REFUSAL.fullmatch(said), f"{asked}: {said}"
    assert len(said) < 500, f"{asked}: {said}"
    return "refused"


def _assert_sane(settings: dict[str, Any]) -> None:
    """What must hold of any settings, written without a look at the ranges."""
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, (int, float)) and not isinstance(one, bool):
                assert math.isfinite(one), (name, value)
                assert 0 <= one <= 1e30, (name, value)
        if isinstance(value, list) and name not in ("depths", "half"):
            assert len({*value}) == len(value), (name, value)
            assert value or name == "tuning", (name, value)
    for name in ("width", "batch", "depth", "steps", "rate", "per_decade", "every", "repeats", "target"):
        assert settings.get(name, 1) > 0, (name, settings[name])
    for name in ("depths", "half"):
        low, high = settings.get(name, (1, 1))
        assert 1 <= low <= high <= 1e5, (name, settings[name])
    assert not {*settings["tuning"]} & {*settings["confirmation"]}
    assert settings.get("every", 1) <= settings.get("steps", 1)
    assert settings.get("per_decade", 1) <= 1000
    assert settings.get("depth", 1) <= 1e5
