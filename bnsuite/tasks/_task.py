"""Task: one question with one unit and one direction. Subject: what a task measures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

import torch

from bnsuite.datasets import Dataset
from bnsuite.engine.lanes import Curves, Examples, Lane, Watch, final_mean, sweep
from bnsuite.engine.stack import can_stack
from bnsuite.engine.train import PLAIN, Sgd
from bnsuite.names import lookup
from bnsuite.networks import Family, Network, UnsupportedError, relu
from bnsuite.protocol.search import Fate, LaneRow
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.schemes import Factory, Scheme
from bnsuite.settings import check_together, from_text, valid
from bnsuite.specs import TaskSpec
from bnsuite.statistics import summarize


def _silent(_message: str) -> None:
    """Drop a progress report."""


@dataclass(frozen=True)
class Subject:
    """Networks of one scheme and family on one data set, on its device.

    Attributes:
        scheme: normalization scheme.
        family: family that builds the networks.
        data: data set, on the device where the networks are trained.
        report: called with a line of progress.
    """

    scheme: Scheme
    family: Family
    data: Dataset
    report: Callable[[str], None] = field(default=_silent, compare=False)

    @property
    def device(self) -> torch.device:
        return self.data.train_x.device

    def network(self, depth: int, width: int, seed: int, activation: Factory = relu) -> Network:
        """Build a freshly initialized network in training mode.

        Args:
            depth: number of layers.
            width: channels of the hidden layers.
            seed: seed of its initialization.
            activation: builds φ; a scheme with its own keeps it.

        Raises:
            UnsupportedError: the scheme cannot be used in the family.
        """
        network = self.family.build(
            self.scheme,
            depth,
            width=width,
            shape=self.data.shape,
            classes=self.data.classes,
            seed=seed,
            activation=activation,
        )
        return network.to(self.device)

    @cached_property
    def stacked(self) -> bool:
        """Whether networks of this scheme train stacked, found by trying two shallow ones.

        Raises:
            UnsupportedError: a part of the network refuses its input, with a ValueError.
        """
        x, y = self.data.train_x[:32], self.data.train_y[:32]
        network = self.network(2, 16, seed=0)
        try:
            return can_stack(network, x, y)
        except ValueError as error:
            message = f"{self.scheme.name} cannot be used in {self.family.name}: {error}"
            raise UnsupportedError(message) from error


def added(default: Any) -> Any:
    """Declare a setting that came after records were published.

    At its default it is left out of `Task.settings`, so the keys of those records stay the same.
    """
    return field(default=default, metadata={"added": True})


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Frozen settings of one question; calling a task on a subject measures, and changes nothing.

    Every ranked task gives one sample per confirmation seed; its value is their median. Tuning uses the
    tuning seeds alone.

    The ranges of settings are declared in `bnsuite.settings`; a new setting is added there too.

    Attributes:
        width: channels of the hidden layers.
        batch: training examples per step.
        tuning: seeds for the choice of hyperparameters.
        confirmation: seeds of the samples; none of them is a tuning seed.

    Raises:
        ValueError: a setting is out of range, or two contradict each other.
    """

    spec: ClassVar[TaskSpec]
    draws: ClassVar[bool] = True
    """Whether batches are drawn from the data set, which must then hold at least one."""

    width: int
    batch: int
    tuning: tuple[int, ...]
    confirmation: tuple[int, ...]

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = valid(self.spec.name, setting.name, getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)
        check_together(self.spec.name, vars(self))

    def at_least(self, name: str, least: int, why: str) -> None:
        """Check that a setting with a default is large enough for this task.

        Args:
            name: name of the setting.
            least: smallest value that the task can use.
            why: why it must be so large, as a part of the message.

        Raises:
            ValueError: it is smaller.
        """
        if (value := getattr(self, name)) < least:
            raise ValueError(
                f"{name} of {self.spec.name}: got {value}, wanted at least {least}, {why}. "
                f"Try {name}={getattr(type(self), name)}."
            )

    @property
    def settings(self) -> dict[str, Json]:
        """All settings as JSON, without those that were `added` and have their default."""
        values = asdict(self)
        for setting in fields(self):
            if setting.metadata.get("added") and values[setting.name] == setting.default:
                del values[setting.name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def parse(cls, name: str, value: object) -> object:
        """Parse the value of a setting as a person writes it: 16 or "16", (0.1, 1.0) or "0.1,1".

        Raises:
            ValueError: the name is no setting of this task, or the value is out of range.
        """
        task = cls.spec.name
        lookup(f"setting of {task}", name, {setting.name: setting for setting in fields(cls)})
        return from_text(task, name, value) if isinstance(value, str) else valid(task, name, value)

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:  # noqa: ARG002
        """Name the goal of this task that a network reaches without using its input; None: there is none.

        Args:
            train: number of labels of each class in the training part of the data.
            test: number of labels of each class in the test part.
        """
        return None

    @abstractmethod
    def __call__(self, subject: Subject) -> Measurement:
        """Measure a subject."""

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
        """Train lanes of the subject's networks at one depth.

        Args:
            subject: what is trained.
            depth: number of layers.
            lanes: seeds and rates, one network each.
            steps: training steps.
            activation: builds φ; a scheme with its own keeps it.
            sgd: optimizer.
            watch: called after every step, and names the lanes that end there; see `engine.lanes.sweep`.
        """
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
        trace: Sequence[LaneRow | dict[str, Json]] = (),
    ) -> Measurement:
        """Summarize samples by their median, its interval and outcome.

        Args:
            samples: one per confirmation seed.
            derived: further values by name.
            trace: rows of the search.
        """
        summary = summarize(samples, self.spec.better)
        rows = tuple(row.as_json() if isinstance(row, LaneRow) else row for row in trace)
        return Measurement(**summary._asdict(), samples=tuple(samples), derived=derived or {}, trace=rows)


def fates(curves: Curves, passes: Callable[[float, float], bool]) -> list[Fate]:
    """Decide for each lane whether it is ok, stuck or nonfinite.

    Args:
        curves: losses and accuracies of the lanes.
        passes: (final loss, final accuracy) → whether a lane is ok; means over the last 10 % of steps.
    """
    alive = torch.isfinite(curves.losses).all(0).tolist()
    means = zip(alive, final_mean(curves.losses), final_mean(curves.accuracies), strict=True)
    return [
        Outcome.NONFINITE if not finite else Outcome.OK if passes(loss, accuracy) else Outcome.STUCK
        for finite, loss, accuracy in means
    ]
