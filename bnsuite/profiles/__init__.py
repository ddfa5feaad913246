"""Profiles: named sets of budgets, one TOML file per profile in this folder. No torch."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from bnsuite.names import lookup


class FamilySize(BaseModel):
    """Width and batch size of a family's networks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int
    batch: int
    default: bool = True  # measured if a run names no family


class SeedSets(BaseModel):
    """Seeds to tune on, and seeds to report results of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tuning: tuple[int, ...]
    confirmation: tuple[int, ...]


class Profile(BaseModel):
    """Budgets of a run.

    Attributes:
        name: name of the profile.
        about: description in one line.
        gpu: whether the budgets need a GPU; a CPU would take days.
        datasets: names of data sets.
        schemes: names of schemes.
        seeds: tuning and confirmation seeds.
        families: name of a family → its size.
        tasks: name of a task → its settings, which take precedence over the family's size. An entry that is
            named after a family is either a table, which overrides settings for that family, or `false`,
            which leaves the task out for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    about: str
    gpu: bool = False
    datasets: tuple[str, ...]
    schemes: tuple[str, ...]
    seeds: SeedSets
    families: dict[str, FamilySize]
    tasks: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _seeds_apart(self) -> "Profile":
        if set(self.seeds.tuning) & set(self.seeds.confirmation):
            raise ValueError("tuning and confirmation seeds are disjoint")
        return self

    @property
    def default_families(self) -> tuple[str, ...]:
        """Families that are measured if a run names none."""
        return tuple(name for name, size in self.families.items() if size.default)

    def asks(self, task: str, family: str) -> bool:
        """Tell whether the task is measured for the family."""
        return self.tasks[task].get(family) is not False

    def settings(self, task: str, family: str) -> dict[str, Any]:
        """Settings of a task for one family, with tuples for lists."""
        common = self.tasks[task]
        own = common.get(family, {})
        merged = {name: value for name, value in common.items() if name not in self.families} | own
        return {
            **self.families[family].model_dump(exclude={"default"}),
            **self.seeds.model_dump(),
            **{name: tuple(value) if isinstance(value, list) else value for name, value in merged.items()},
        }


def profile_names() -> list[str]:
    """Names of all profiles, from the least to the most work."""
    order = ["smoke", "quick", "standard", "full"]
    stems = {file.name.removesuffix(".toml") for file in resources.files(__package__).iterdir()}
    return [name for name in order if name in stems]


@cache
def load_profile(name: str) -> Profile:
    """Load a profile by name.

    Raises:
        UnknownNameError: there is no such profile.
    """
    names = profile_names()
    lookup("profile", name, {n: n for n in names})
    text = (resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8")
    return Profile(name=name, **tomllib.loads(text))
