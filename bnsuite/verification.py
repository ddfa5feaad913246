"""Re-runs: the choice of records to measure again, and the comparison with what was reported."""

import math
import random
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, NamedTuple

from bnsuite.records import CALIBRATION, Outcome, Record, Sample
from bnsuite.records.store import age
from bnsuite.statistics import ALPHA, median_interval, sign_flip_p

TOLERANCE = 0.25
"""Largest relative difference of medians: a little over 21 %, one step of the rates of `stable_lr`."""

NEGLIGIBLE = 1e-3
"""Log ratio up to which a seed counts as equal: on another machine rounding may have one sign on all."""

LOST = math.log(10)
"""Log ratio of a seed with a value on one side only, or with values of two signs."""

Tier = Literal["self-reported", "re-run", "re-run elsewhere"]


class SecondOpinion(NamedTuple):
    """λ_max of one seed at matched loss, by our Lanczos and by that of hessian-eigenthings, in float64.

    Both use our products with the Hessian, each with its own start; values are in 1 / learning rate.
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
    """Difference of a re-run from what was reported.

    Attributes:
        task: name of the task.
        profile: name of the profile.
        family: family of the networks.
        dataset: name of the data set.
        reported: record that was reported.
        again: record of the re-run.
        relative: again / reported − 1; None: a side has no value.
        low: lower end of the order-statistic interval of the median over seeds of log(again / reported), as
            a relative difference.
        high: upper end.
        agrees: whether the two agree, by the rule of `compare`.
        words: summary in one line.
        second_opinion: for a re-run of `top_eigenvalue`; None: another task, or foreign code.
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
    """Compare a re-run with what was reported, and decide whether they agree.

    Seeds are paired: d = log(again / reported). A bound (capped, floor, timeout) and a value that it
    allows are equal, and so are two seeds without a value; d up to `NEGLIGIBLE` counts as 0.
    The two agree iff

    - both have a value, or neither has and their outcomes are the same;
    - the exact paired sign-flip test does not tell them apart (p >= .05; below 6 seeds it never can);
    - the median of d is within `TOLERANCE`; and the re-run's value within `TOLERANCE` of what was
      reported, or within its interval.

    On one machine with one version of torch all d are 0. By the median, one false seed cannot hide the
    others. With 6 seeds an excess below `TOLERANCE` on 5 of them is not detected.

    Raises:
        ValueError: the records have two keys.
    """
    if reported.key != again.key:
        raise ValueError(f"only records of one key are compared: got {reported.key} and {again.key}")
    first, second = ({s.seed: s for s in record.samples} for record in (reported, again))
    d = [_log_ratio(first[seed], second[seed]) for seed in first if seed in second]
    relative = low = high = None
    if d:
        interval, ranked = median_interval(len(d)), sorted(d)
        low, high = math.expm1(ranked[interval.low]), math.expm1(ranked[interval.high])
    if reported.value is not None and again.value is not None:
        gap = again.value - reported.value
        relative = gap / abs(reported.value) if gap and reported.value else math.copysign(math.inf, gap)
        relative = relative if gap else 0.0
    reason = _disagreement(reported, again, d, relative)
    words = f"{reported.task}: reported {_value_text(reported)}, re-run {_value_text(again)}"
    if relative is not None and low is not None and high is not None:
        words += f" ({_percent(relative)} [{_percent(low)}, {_percent(high)}], n {len(d)} seeds)"
    words += f": differs, {reason}" if reason else ": agrees"
    cell = (reported.task, reported.profile, reported.family, reported.dataset)
    return Difference(*cell, reported, again, relative, low, high, reason is None, words)


def _log_ratio(reported: Sample, again: Sample) -> float:
    """Compute log(again / reported) of one seed; 0 if one is a bound that allows the other."""
    if reported.value is None or again.value is None:
        return LOST * ((reported.value is None) - (again.value is None))
    a, b = reported.value, again.value
    if _allows(reported, b) or _allows(again, a) or a == b:
        return 0.0
    if a * b <= 0:
        return math.copysign(LOST, b - a)
    return math.copysign(math.log(abs(b) / abs(a)), b - a)


def _allows(bound: Sample, value: float) -> bool:
    """Tell whether a sample is a bound that a value satisfies."""
    assert bound.value is not None
    kind = bound.outcome.bound
    return (kind == "lower" and value >= bound.value) or (kind == "upper" and value <= bound.value)


def _disagreement(reported: Record, again: Record, d: Sequence[float], relative: float | None) -> str | None:
    """Say why two records disagree; None: they agree."""
    if Outcome.ERROR in (reported.outcome, again.outcome):
        return "an error is no result"
    one_value = (reported.value is None) != (again.value is None)
    if one_value or (reported.value is None and reported.outcome is not again.outcome):
        return f"{again.outcome} is not {reported.outcome}"
    if [s.seed for s in reported.samples] != [s.seed for s in again.samples]:
        return "measured on other seeds"
    p = sign_flip_p([ratio if abs(ratio) > NEGLIGIBLE else 0.0 for ratio in d])
    if p < ALPHA:
        return f"on the same seeds (p {p:.2g})"
    if d and abs(math.expm1(typical := median(d))) > TOLERANCE:
        return f"by {_percent(math.expm1(typical))} on the median seed, more than {TOLERANCE:.0%}"
    if relative is not None and abs(relative) > TOLERANCE and not _within(reported, again.value or 0.0):
        return f"by more than {TOLERANCE:.0%}, outside the reported interval"
    return None


def _within(record: Record, value: float) -> bool:
    """Tell whether a value lies in the interval of a record; an end of None is open."""
    above = record.low is None or value >= record.low
    return above and (record.high is None or value <= record.high)


def _value_text(record: Record) -> str:
    if record.value is None:
        return str(record.outcome)
    sign = {"lower": "≥ ", "upper": "≤ ", None: ""}[record.outcome.bound]
    return f"{sign}{record.value:.4g}"


def _percent(relative: float) -> str:
    return f"{100 * relative:+.1f} %".replace("-", "−")


def sample_cells(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """Draw records to measure again, one of every task before a second of any.

    Candidates are the newest results of each key in each profile, without `error`s and calibrations.

    Args:
        records: records to draw from, in any order.
        count: number of records to draw.
        seed: seed of the draw.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"at least 1 record is measured again: got {count}")
    results = (r for r in records if r.outcome is not Outcome.ERROR and r.task != CALIBRATION)
    newest = {(r.key, r.profile): r for r in sorted(results, key=age)}
    drawn = [newest[name] for name in sorted(newest)]  # the draw must not depend on the order of records
    random.Random(seed).shuffle(drawn)
    firsts: dict[str, Record] = {}
    for record in drawn:
        firsts.setdefault(record.task, record)
    return [*firsts.values(), *(r for r in drawn if r is not firsts[r.task])][:count]


def machine(record: Record) -> tuple[str, str | None, str]:
    """Identify a machine without its name: (processor, GPU, system)."""
    about = record.provenance
    return about.cpu, about.gpu, about.os


def tier(record: Record, reruns: Iterable[Record]) -> Tier:
    """Decide how far a record is confirmed by stored re-runs.

    The newest re-run of the record's key counts on each machine; if any of them disagrees, none confirms.

    Args:
        record: reported record.
        reruns: records of people other than its reporter.
    """
    newest = {
        machine(again): again
        for again in sorted(reruns, key=age)
        if again.key == record.key and again.id != record.id and again.outcome is not Outcome.ERROR
    }
    if not newest or not all(compare(record, again).agrees for again in newest.values()):
        return "self-reported"
    return "re-run elsewhere" if set(newest) - {machine(record)} else "re-run"
