"""Task: one question with one unit and one direction; Subject: what it is asked of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

import torch

from bnsuite.datasets import Dataset
from bnsuite.engine.lanes import Curves, Examples, Lane, Watch, can_stack, final, sweep
from bnsuite.engine.train import PLAIN, Sgd
from bnsuite.names import lookup
from bnsuite.networks import Family, Network, UnsupportedError, relu
from bnsuite.protocol.search import Fate, Row
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.schemes import Factory, Scheme
from bnsuite.settings import check_together, from_text, valid
from bnsuite.specs import TaskSpec
from bnsuite.statistics import summarize


def _silent(message: str) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Subject:
    """What a task measures: networks of one scheme and family on one data set, on its device."""

    scheme: Scheme
    family: Family
    data: Dataset
    report: Callable[[str], None] = field(default=_silent, compare=False)

    @property
    def device(self) -> torch.device:
        return self.data.train_x.device

    def network(
        self,
        depth: int,
        width: int,
        seed: int,
        activation: Factory = relu,
    ) -> Network:
        """A freshly initialized network in training mode."""
        built = self.family.build(
            self.scheme,
            depth,
            width=width,
            shape=self.data.shape,
            classes=self.data.classes,
            seed=seed,
            activation=activation,
        )
        return built.to(self.device)

    @cached_property
    def stacked(self) -> bool:
        """Whether networks of this scheme train stacked, found by trying it on two shallow ones.

        Raises:
            UnsupportedError: a part of the network refuses what it is given, with a ValueError.
        """
        x, y = self.data.train_x[:32], self.data.train_y[:32]
        network = self.network(2, 16, seed=0)
        try:
            return can_stack(network, x, y)
        except ValueError as error:
            message = f"{self.scheme.name} cannot be used in {self.family.name}: {error}"
            raise UnsupportedError(message) from error


def added(default: Any) -> Any:
    """A setting that came after records were published: at its default it is not among `Task.settings`, so
    that their keys stay."""
    return field(default=default, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A frozen set of settings; calling it on a subject measures, and changes nothing.

    Every ranked task gives one sample a confirmation seed; its value is their median. What it tunes, it
    tunes on tuning seeds alone.

    A setting's range is declared in `bnsuite.settings`, where a new one is added too.

    Attributes:
        width: channels of the hidden layers.
        batch: training examples a step.
        tuning, confirmation: seeds; disjoint.

    Raises:
        ValueError: a setting outside its range, or two that cannot be together.
    """

    spec: ClassVar[TaskSpec]
    draws: ClassVar[bool] = True
    """Whether its batches are drawn from the data set, which then holds one at least."""

    width: int
    batch: int
    tuning: tuple[int, ...]
    confirmation: tuple[int, ...]

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, valid(self.spec.name, one.name, getattr(self, one.name)))
        check_together(self.spec.name, vars(self))

    @property
    def settings(self) -> dict[str, Json]:
        """Every setting, as JSON, without those that were `added` and have their default."""
        values = asdict(self)
        for one in fields(self):
            if one.metadata.get("added") and values[one.name] == one.default:
                del values[one.name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def parse(cls, name: str, value: object) -> object:
        """A value for a setting, from what a person wrote: 16 or "16", (0.1, 1.0) or "0.1,1".

        Raises ValueError for a name that is no setting, and for a value outside its range.
        """
        task = cls.spec.name
        lookup(f"setting of {task}", name, {one.name: one for one in fields(cls)})
        return from_text(task, name, value) if isinstance(value, str) else valid(task, name, value)

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:
        """Say which goal of this task a network reaches without a look at its input; None: there is none.

        Args:
            train, test: number of labels of each class in the two parts of the data.
        """
        return None

    @abstractmethod
    def __call__(self, subject: Subject) -> Measurement:
        """Measure."""

    def sweep(
        self,
        subject: Subject,
        depth: int,
        lanes: Sequence[Lane],
        steps: int,
        *,
        activation: Factory = relu,
        sgd: Sgd = PLAIN,
        watch: Watch | None = None,
    ) -> Curves:
        """Train lanes of the subject's networks at one depth."""
        examples = Examples(subject.data.train_x, subject.data.train_y, self.batch)
        return sweep(
            lambda seed: subject.network(depth, self.width, seed, activation),
            lanes,
            examples,
            steps,
            stacked=subject.stacked,
            sgd=sgd,
            watch=watch,
        )

    def measurement(
        self,
        samples: Sequence[Sample],
        derived: dict[str, Json] | None = None,
        trace: Sequence[Row | dict[str, Json]] = (),
    ) -> Measurement:
        """The samples' median, its interval and outcome, with what stands beside."""
        summary = summarize(samples, self.spec.better)
        rows = tuple(row.as_json() if isinstance(row, Row) else row for row in trace)
        return Measurement(**summary._asdict(), samples=tuple(samples), derived=derived or {}, trace=rows)


def fates(curves: Curves, passes: Callable[[float, float], bool]) -> list[Fate]:
    """ok, stuck or nonfinite for each lane; `passes` judges final loss and final accuracy."""
    return [
        Outcome.NONFINITE
        if not bool(torch.isfinite(curves.losses[:, i]).all())
        else (Outcome.OK if passes(loss, accuracy) else Outcome.STUCK)
        for i, (loss, accuracy) in enumerate(zip(final(curves.losses), final(curves.accuracies), strict=True))
    ]
