"""Re-runs: which records are measured again, and whether what comes out agrees with what was reported."""

import math
import random
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, NamedTuple

from bnsuite.records import CALIBRATION, Outcome, Record, Sample
from bnsuite.records.store import age
from bnsuite.statistics import ALPHA, median_interval, sign_flip_p

TOLERANCE = 0.25
"""Largest relative difference of medians: a little over one step of the rates of `stable_lr`, 21 %."""

NEGLIGIBLE = 1e-3
"""Log ratio up to which a seed counts as equal: rounding on another machine may be of one sign on all."""

LOST = math.log(10)
"""Log ratio that stands for a seed with a value on one side only, or with values of two signs."""

Tier = Literal["self-reported", "re-run", "re-run elsewhere"]


class SecondOpinion(NamedTuple):
    """λ_max of one seed at matched loss, by our Lanczos and by that of hessian-eigenthings, in float64.

    Both use our products with the Hessian, each with its own start; an entry is in 1 / learning rate.
    """

    seed: int
    ours: float
    theirs: float

    @property
    def words(self) -> str:
        """Both values and their difference, in one line."""
        difference = f"{self.theirs - self.ours:+.1e}".replace("-", "−")
        return (
            f"second opinion: λ_max of seed {self.seed} is {self.ours:.8g} by our Lanczos and "
            f"{self.theirs:.8g} by that of hessian-eigenthings, difference {difference}"
        )


class Difference(NamedTuple):
    """Of a re-run from what was reported.

    Attributes:
        relative: again / reported − 1, None where a side has no value.
        low, high: the order-statistic interval of the median over seeds of log(again / reported), as
            relative differences.
        agrees: by the rule of `compare`.
        words: one line.
        second_opinion: of a re-run of `top_eigenvalue`, see `SecondOpinion`; None: of no other, nor of
            foreign code.
    """

    task: str
    profile: str
    family: str
    dataset: str
    reported: Record
    again: Record
    relative: float | None
    low: float | None
    high: float | None
    agrees: bool
    words: str
    second_opinion: SecondOpinion | None = None


def compare(reported: Record, again: Record) -> Difference:
    """How a re-run differs from what was reported, and whether it agrees.

    Seeds are paired: d = log(again / reported). A bound (capped, floor, timeout) and a value that it
    allows are equal, and so are two seeds without a value; d up to `NEGLIGIBLE` counts as 0.
    The two agree iff

    - both have a value, or neither has and their outcomes are the same;
    - the exact paired sign-flip test does not tell them apart (p >= .05; below 6 seeds it never can);
    - the median of d is within `TOLERANCE`; and the re-run's value within `TOLERANCE` of what was
      reported, or within its interval.

    On one machine with one version of torch all d are 0. The median keeps one seed of false height from
    hiding the others. With 6 seeds an excess below `TOLERANCE` on 5 of them stays unseen.

    Raises:
        ValueError: records of two keys.
    """
    if reported.key != again.key:
        raise ValueError(f"records are compared that have one key: got {reported.key} and {again.key}")
    there, here = ({s.seed: s for s in record.samples} for record in (reported, again))
    d = [_log_ratio(there[seed], here[seed]) for seed in there if seed in here]
    relative = low = high = None
    if d:
        interval, ranked = median_interval(len(d)), sorted(d)
        low, high = math.expm1(ranked[interval.low]), math.expm1(ranked[interval.high])
    if reported.value is not None and again.value is not None:
        gap = again.value - reported.value
        relative = gap / abs(reported.value) if gap and reported.value else math.copysign(math.inf, gap)
        relative = relative if gap else 0.0
    against = _against(reported, again, d, relative)
    words = f"{reported.task}: reported {_shown(reported)}, re-run {_shown(again)}"
    if relative is not None and low is not None and high is not None:
        words += f" ({_percent(relative)} [{_percent(low)}, {_percent(high)}], n {len(d)} seeds)"
    words += f": differs, {against}" if against else ": agrees"
    cell = (reported.task, reported.profile, reported.family, reported.dataset)
    return Difference(*cell, reported, again, relative, low, high, against is None, words)


def _log_ratio(reported: Sample, again: Sample) -> float:
    """log(again / reported) of one seed; 0 where the two allow each other."""
    if reported.value is None or again.value is None:
        return LOST * ((reported.value is None) - (again.value is None))
    a, b = reported.value, again.value
    above = {one.outcome.bound for one, other in ((reported, b), (again, a)) if _allows(one, other)}
    if above - {None} or a == b:
        return 0.0
    if a * b <= 0:
        return math.copysign(LOST, b - a)
    return math.copysign(math.log(abs(b) / abs(a)), b - a)


def _allows(bound: Sample, value: float) -> bool:
    """Whether a sample is a bound that a value keeps."""
    assert bound.value is not None
    kind = bound.outcome.bound
    return (kind == "lower" and value >= bound.value) or (kind == "upper" and value <= bound.value)


def _against(reported: Record, again: Record, d: Sequence[float], relative: float | None) -> str | None:
    """What tells the two apart, None if nothing does."""
    if Outcome.ERROR in (reported.outcome, again.outcome):
        return "an error is no result"
    if (reported.value is None) != (again.value is None):
        return f"{again.outcome} is not {reported.outcome}"
    if reported.value is None and reported.outcome is not again.outcome:
        return f"{again.outcome} is not {reported.outcome}"
    if [s.seed for s in reported.samples] != [s.seed for s in again.samples]:
        return "measured on other seeds"
    p = sign_flip_p([one if abs(one) > NEGLIGIBLE else 0.0 for one in d])
    if p < ALPHA:
        return f"on the same seeds (p {p:.2g})"
    if d and abs(math.expm1(typical := median(d))) > TOLERANCE:
        return f"by {_percent(math.expm1(typical))} on the median seed, more than {TOLERANCE:.0%}"
    if relative is not None and abs(relative) > TOLERANCE and not _within(reported, again.value or 0.0):
        return f"by more than {TOLERANCE:.0%}, outside the reported interval"
    return None


def _within(record: Record, value: float) -> bool:
    """Whether a value lies in the interval of a record; an end that is None is open."""
    above = record.low is None or value >= record.low
    return above and (record.high is None or value <= record.high)


def _shown(record: Record) -> str:
    if record.value is None:
        return str(record.outcome)
    sign = {"lower": "≥ ", "upper": "≤ ", None: ""}[record.outcome.bound]
    return f"{sign}{record.value:.4g}"


def _percent(relative: float) -> str:
    return f"{100 * relative:+.1f} %".replace("-", "−")


def sample_cells(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """Which records to measure again: drawn by the seed, one of every task before a second of any.

    Of each key in each profile the newest result; an `error` and a calibration are none.

    Raises:
        ValueError: fewer than 1 asked for.
    """
    if count < 1:
        raise ValueError(f"at least 1 record is measured again: got {count}")
    results = (r for r in records if r.outcome is not Outcome.ERROR and r.task != CALIBRATION)
    newest = {(r.key, r.profile): r for r in sorted(results, key=age)}
    drawn = [newest[name] for name in sorted(newest)]  # whatever the order in which they came
    random.Random(seed).shuffle(drawn)
    firsts: dict[str, Record] = {}
    for record in drawn:
        firsts.setdefault(record.task, record)
    return [*firsts.values(), *(r for r in drawn if r is not firsts[r.task])][:count]


def machine(record: Record) -> tuple[str, str | None, str]:
    """Processor, GPU and system: what tells one machine from another without naming it."""
    about = record.provenance
    return about.cpu, about.gpu, about.os


def tier(record: Record, reruns: Iterable[Record]) -> Tier:
    """How far a record is confirmed, by what is stored.

    `reruns` are those of people other than who reported it. Of each machine the newest of the record's
    key counts; where any of them disagrees, none confirms.
    """
    newest = {
        machine(again): again
        for again in sorted(reruns, key=age)
        if again.key == record.key and again.id != record.id and again.outcome is not Outcome.ERROR
    }
    if not newest or not all(compare(record, again).agrees for again in newest.values()):
        return "self-reported"
    return "re-run elsewhere" if set(newest) - {machine(record)} else "re-run"
