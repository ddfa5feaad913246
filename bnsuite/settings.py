"""Ranges of all settings of all tasks. No torch.

Settings from profiles, `--set`, Python, records and submissions are all checked here. A value out of range is
refused before anything is measured, by one line: got, wanted, what to do.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bnsuite.text import clipped

MOST_WEIGHTS = 10**9
"""Upper limit of depth · width², about the number of weights of a network: 8 GB in float64."""

MOST_EXAMPLES = 10**8
"""Upper limit of steps · batch, the examples of one training run, whose order takes 8 bytes per example."""

MOST_CHANNELS = 10**8
"""Upper limit of batch · width · 2^doublings, the elements per position of `layer_cost`'s largest input."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("no two are alike")
    return values


def _ascending(ends: tuple[int, int]) -> tuple[int, int]:
    if ends[0] > ends[1]:
        raise ValueError("the smaller comes first")
    return ends


def _without_sign_of_zero(value: float) -> float:
    return value + 0.0  # -0.0 would give another key than 0.0


Depth = Annotated[int, Field(ge=1, le=10_000)]
Ends = Annotated[tuple[Depth, Depth], Field(description="the smaller first"), AfterValidator(_ascending)]

Seed = Annotated[int, Field(ge=1, le=10**6)]
"""Seed; 0 belongs to the frozen partition (`tasks._checkpoint`). Networks with random numbers of their own
derive seeds from 1,000,003 on (`engine.stack`)."""
_SEEDS = {"max_length": 1000, "description": "no two alike"}
Seeds = Annotated[tuple[Seed, ...], Field(**_SEEDS), AfterValidator(_distinct)]
SomeSeeds = Annotated[tuple[Seed, ...], Field(min_length=1, **_SEEDS), AfterValidator(_distinct)]

Rate = Annotated[float, Field(ge=1e-30, le=1e30)]
"""Learning rate; two decades above this range, or some halvings below, float32 still has normal numbers."""
_FACTORS = {"min_length": 1, "max_length": 100, "description": "no two alike"}
Rates = Annotated[tuple[Rate, ...], Field(**_FACTORS), AfterValidator(_distinct)]

Factor = Annotated[float, Field(ge=1e-6, le=1e6)]
Factors = Annotated[tuple[Factor, ...], Field(**_FACTORS), AfterValidator(_distinct)]

Steps = Annotated[int, Field(ge=1, le=10**6)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
FractionOr0 = Annotated[float, Field(ge=0, lt=1), AfterValidator(_without_sign_of_zero)]


class Settings(BaseModel):
    """Settings by name; a name has one meaning and one range in all tasks.

    Upper limits are far above the profiles' values: beyond them a cell would not end, or not fit into any
    memory.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False, validate_assignment=True)

    # every task
    width: int = Field(ge=1, le=8192, examples=[64])
    batch: int = Field(ge=1, le=10**6, examples=[128])
    tuning: Seeds = Field(examples=[[1, 2]])
    confirmation: SomeSeeds = Field(examples=[[101, 102]])

    # networks and their training
    depth: Depth = Field(examples=[8])
    depths: Ends = Field(examples=[[4, 128]])
    half: Ends = Field(examples=[[8, 64]])
    ratio: float = Field(gt=1, le=10_000, examples=[1.13])
    activation: str = Field(examples=["relu"])
    rate: Rate = Field(examples=[0.01])
    rates: Rates = Field(examples=[[0.01, 0.1, 1.0]])
    steps: Steps = Field(examples=[100])
    tuning_steps: Steps = Field(examples=[100])
    warmup: int = Field(ge=0, le=10**6, examples=[20])
    momentum: FractionOr0 = Field(examples=[0.9])

    # what counts as trained
    target: float = Field(gt=0, le=1, examples=[0.8])
    loss_ratio: Fraction = Field(examples=[0.5])
    per_decade: int = Field(ge=1, le=1000, examples=[12])
    every: int = Field(ge=1, le=10**6, examples=[2])

    # curvature
    tolerance: Fraction = Field(examples=[0.001])
    max_products: int = Field(ge=1, le=10_000, examples=[200])
    minibatches: int = Field(ge=0, le=10**6, examples=[0])
    eigenvalues: int = Field(ge=0, le=1000, examples=[0])
    beside: int = Field(ge=0, le=1000, examples=[3])
    probes: int = Field(ge=1, le=1000, examples=[4])
    order: int = Field(ge=1, le=10_000, examples=[60])
    kernel: float = Field(ge=1e-6, le=1, examples=[0.01])
    reach: Factors = Field(examples=[[0.5, 1.0, 2.0]])

    # layer_cost
    doublings: int = Field(ge=0, le=20, examples=[3])
    repeats: int = Field(ge=1, le=100_000, examples=[20])

    # speedrun
    epochs: float = Field(gt=0, le=10_000, examples=[8.0])
    peak: Fraction = Field(examples=[0.25])
    shift_rate: Annotated[float, Field(ge=0, le=1e6), AfterValidator(_without_sign_of_zero)] = Field(
        examples=[64.0]
    )
    decay: FractionOr0 = Field(examples=[0.0013])
    smoothing: FractionOr0 = Field(examples=[0.2])
    translation: int = Field(ge=0, le=15, examples=[2])  # less than the smallest side, 16
    precision: Literal["auto", "float32", "bfloat16"] = Field(examples=["auto"])
    compiled: bool = Field(examples=[True])


def valid(task: str, name: str, value: object) -> Any:
    """Value of a setting as a task holds it: tuples for lists, floats for whole numbers if it takes floats.

    Args:
        task: name of the task, for the message.
        name: name of the setting, one of `Settings`.
        value: value to check.

    Raises:
        ValueError: the value is out of range; in one line.
    """
    holder = Settings.model_construct()
    try:
        setattr(holder, name, _of_python(value))
    except ValidationError:
        raise refusal(task, name, value) from None
    return getattr(holder, name)


def _of_python(value: object) -> object:
    """Convert lists to tuples, and numbers of numpy and torch to numbers of Python."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(_of_python, value)) if isinstance(value, (list, tuple)) else value


def from_text(task: str, name: str, text: str) -> Any:
    """Parse the value of a setting: 16 from "16", (0.1, 1.0) from "0.1,1".

    Args:
        task: name of the task, for the message.
        name: name of the setting.
        text: the value as a person writes it.

    Raises:
        ValueError: the text is no value of that kind, or out of range.
    """
    kind: Any = Settings.model_fields[name].annotation
    is_list = _schema()[name]["type"] == "array"
    parts = (text.split(",") if text.strip() else []) if is_list else text
    try:
        value = TypeAdapter(kind).validate_python(parts)
    except ValidationError:
        raise refusal(task, name, text) from None
    return valid(task, name, value)


def check_together(task: str, values: Mapping[str, Any]) -> None:
    """Check settings that are valid by themselves for contradictions.

    Args:
        task: name of the task, for the message.
        values: name of a setting → its value.

    Raises:
        ValueError: two settings contradict each other; says what to do, in one line.
    """
    shared = sorted({*values.get("tuning", ())} & {*values.get("confirmation", ())})
    if shared:
        raise ValueError(
            f"tuning and confirmation of {task} are disjoint: both hold {shared}. Leave them out of one."
        )
    if "rates" in values and not values.get("tuning", True):
        raise ValueError(
            f"tuning of {task}: got no seed, wanted one at least, to choose among the rates. Try tuning=1,2."
        )
    if "every" in values and values["every"] > values.get("steps", values["every"]):
        raise ValueError(
            f"every of {task}: got {values['every']}, wanted at most its steps, {values['steps']}. "
            f"Try every={max(1, values['steps'] // 10)}."
        )
    _check_size(task, values)


def _check_size(task: str, values: Mapping[str, Any]) -> None:
    width, batch, steps = (values.get(name, 0) for name in ("width", "batch", "steps"))
    depth = max(values.get("depth", 0), *values.get("depths", (0,)), *values.get("half", (0,)), 0)
    steps = max(steps, values.get("tuning_steps", 0))
    inputs = batch * width << values["doublings"] if "doublings" in values else 0
    for product, got, limit in (
        ("depth · width²", depth * width**2, MOST_WEIGHTS),
        ("steps · batch", steps * batch, MOST_EXAMPLES),
        ("batch · width · 2^doublings", inputs, MOST_CHANNELS),
    ):
        if got > limit:
            raise ValueError(f"{product} of {task}: got {got:,}, wanted {limit:,} at most. Lower one.")


def faults(task: str, values: Mapping[str, object]) -> Iterator[str]:
    """List what is wrong with untrusted settings, one line each; ignores names that no task has.

    Args:
        task: name of the task, for the messages.
        values: name of a setting → its value.
    """
    checked: dict[str, Any] = {}
    for name in sorted(values.keys() & Settings.model_fields.keys()):
        try:
            checked[name] = valid(task, name, values[name])
        except ValueError as error:
            yield str(error)
    try:
        check_together(task, checked)
    except ValueError as error:
        yield str(error)


def refusal(task: str, name: str, value: object) -> ValueError:
    """Build the error for a value out of range: got, wanted, do.

    Args:
        task: name of the task.
        name: name of the setting.
        value: refused value.
    """
    schema = _schema()[name]
    example = written(name, schema["examples"][0])
    return ValueError(f"{name} of {task}: got {_shown(value)}, wanted {_wanted(schema)}. Try {example}.")


def written(name: str, value: object) -> str:
    """Setting in the form that `--set` takes: batch=16, rates=0.1,1.0."""
    return f"{name}={','.join(map(str, value)) if isinstance(value, (tuple, list)) else value}"


def _shown(value: object) -> str:
    try:
        return clipped(repr(value), 80)
    except ValueError:  # more digits than Python prints
        return "a number of thousands of digits"


_KINDS = {"integer": "whole number", "number": "number", "string": "word"}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


@cache
def _schema() -> dict[str, Any]:
    """JSON Schema of each setting, with pydantic's names for its constraints."""
    properties: dict[str, Any] = Settings.model_json_schema()["properties"]
    return properties


def _wanted(schema: dict[str, Any]) -> str:
    """Range of a setting in words: "a whole number, at least 1 and at most 8,192"."""
    if schema["type"] == "boolean":
        return "true or false"
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] != "array":
        return ", ".join(filter(None, [f"a {_KINDS[schema['type']]}", _bounds(schema)]))
    item = schema.get("items") or schema["prefixItems"][0]
    counts = dict.fromkeys([schema.get("minItems", 0), schema["maxItems"]])
    count = " to ".join(f"{number:,}" for number in counts)
    kind = _KINDS[item["type"]]
    return f"{count} {kind}s with commas between, {schema['description']}, each {_bounds(item)}"


def _bounds(schema: dict[str, Any]) -> str:
    limits = [f"{words} {_plain(schema[key])}" for key, words in _BOUNDS.items() if key in schema]
    return " and ".join(limits)


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
