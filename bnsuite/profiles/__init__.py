"""Profiles: named sets of budgets, one TOML file each in this folder. No torch."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from bnsuite.names import lookup


class Size(BaseModel):
    """Width and batch size of a family's networks; `default`: measured without being named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int
    batch: int
    default: bool = True


class Seeds(BaseModel):
    """Seeds to tune on, and seeds to quote from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tuning: tuple[int, ...]
    confirmation: tuple[int, ...]


class Profile(BaseModel):
    """Every budget of a run; with `gpu` they are such that a CPU would take days.

    `tasks` has the settings of each task; they come before the family's size. There a table named after a
    family overrides them for that family, and `false` in its place leaves the task out for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    about: str
    gpu: bool = False
    datasets: tuple[str, ...]
    schemes: tuple[str, ...]
    seeds: Seeds
    families: dict[str, Size]
    tasks: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _seeds_apart(self) -> "Profile":
        if set(self.seeds.tuning) & set(self.seeds.confirmation):
            raise ValueError("tuning and confirmation seeds are disjoint")
        return self

    @property
    def default_families(self) -> tuple[str, ...]:
        """The families of a run that names none."""
        return tuple(name for name, size in self.families.items() if size.default)

    def asks(self, task: str, family: str) -> bool:
        """Whether the task is measured for the family."""
        return self.tasks[task].get(family) is not False

    def settings(self, task: str, family: str) -> dict[str, Any]:
        """What a task is called with for one family, tuples for lists."""
        common = self.tasks[task]
        own = common.get(family, {})
        merged = {name: value for name, value in common.items() if name not in self.families} | own
        return {
            **self.families[family].model_dump(exclude={"default"}),
            **self.seeds.model_dump(),
            **{name: tuple(value) if isinstance(value, list) else value for name, value in merged.items()},
        }


def profile_names() -> list[str]:
    """The names of all profiles, from the least to the most work."""
    order = ["smoke", "quick", "standard", "full"]
    found = {file.name.removesuffix(".toml") for file in resources.files(__package__).iterdir()}
    return [name for name in order if name in found]


@cache
def load_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        UnknownNameError: no such profile.
    """
    names = profile_names()
    lookup("profile", name, {n: n for n in names})
    text = (resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8")
    return Profile(name=name, **tomllib.loads(text))
