"""Verdicts on claims, computed from records by the rule of each claim; no verdict is written by hand."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from bnsuite import format
from bnsuite.ranking.tracks import PROFILES, Kept, age
from bnsuite.records import CALIBRATION, Outcome, Record, is_number
from bnsuite.statistics import MIN_SEEDS, differs_upwards, median_interval

HOLDS, CONDITION = "holds", "holds with a condition"
FAILS, UNMEASURED = "does not hold here", "not measured"


class Need(NamedTuple):
    """Record that a claim is judged by.

    Attributes:
        task: name of the task.
        scheme: name of the scheme.
        settings: settings other than the profile's own, as (name, value).
    """

    task: str
    scheme: str = "batchnorm"
    settings: tuple[tuple[str, Any], ...] = ()


class Evidence(NamedTuple):
    """Measured number with its interval; numbers of one claim that share a unit are drawn in one figure.

    Attributes:
        label: text that names it.
        value: the number; None: not measured.
        low: lower end of its interval; None: open, or not known.
        high: upper end.
        unit: its unit.
        n: number of seeds.
        outcome: how the value is to be read: with `capped` it is a lower bound.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    n: int = 0
    outcome: Outcome = Outcome.OK

    @property
    def reading(self) -> str:
        """Value as text with its sign and unit: 29 layers, ≥ 64 layers."""
        unit = self.unit if self.unit in format.COUNTED else ""
        return f"{format.SIGNS.get(self.outcome, '')}{format.number(self.value, unit)} {unit}".strip()

    def __str__(self) -> str:
        ends = format.interval(self.low, self.high, self.unit) if self.low != self.high else ""
        return " ".join(filter(None, (self.label, self.reading, ends)))


class Requirement(NamedTuple):
    """One condition of a claim as text, and whether the records meet it."""

    words: str
    ok: bool


class Finding(NamedTuple):
    """Result of a rule; the claim holds if every part does."""

    condition: str
    parts: tuple[Requirement, ...] = ()
    measured: tuple[Evidence, ...] = ()

    @property
    def verdict(self) -> str:
        """Verdict, as the board shows it."""
        if not self.parts:
            return UNMEASURED
        met = [part.ok for part in self.parts]
        return HOLDS if all(met) else CONDITION if any(met) else FAILS


Rule = Callable[..., Finding]
"""(a `Reader` per need of the claim, in their order) → finding."""


@dataclass(frozen=True)
class Claim:
    """Sentence that can be true or false, with its source and the rule by which records decide it.

    Attributes:
        id: letter of its thread and number.
        claim: the sentence.
        source: its address.
        experiment: text that describes what is measured.
        needs: records that the rule reads.
        rule: a reader of each of these records → finding.
    """

    id: str
    claim: str
    source: str
    experiment: str
    needs: tuple[Need, ...]
    rule: Rule


class Judged(NamedTuple):
    """Claim with its finding and the profile of its records."""

    claim: Claim
    finding: Finding
    profile: str

    @property
    def command(self) -> str:
        """Command that measures what the claim needs and judges it."""
        return f"bnsuite claims --profile {self.profile} --only {self.claim.id}"

    def as_json(self) -> dict[str, Any]:
        """Convert to what `bnsuite claims --json` prints."""
        return {
            "id": self.claim.id,
            "claim": self.claim.claim,
            "source": self.claim.source,
            "experiment": self.claim.experiment,
            "measured": [evidence._asdict() for evidence in self.finding.measured],
            "verdict": self.finding.verdict,
            "condition": self.finding.condition,
            "parts": [part._asdict() for part in self.finding.parts],
            "command": self.command,
        }


def _at_path(detail: Any, path: str) -> Any:
    for key in path.split("."):
        detail = detail.get(key) if isinstance(detail, dict) else None
    return detail


class Reader:
    """One record that a claim is judged by, read seed by seed."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def setting(self, name: str) -> str:
        """Read a setting of the record, as text."""
        return format.plain(self.record.settings.get(name))

    def seeds(self, key: str = "") -> dict[int, float]:
        """Read seed → value, or a number of the detail (`means.share`); seeds without one are left out."""
        pairs = [(s.seed, _at_path(s.detail, key) if key else s.value) for s in self.record.samples]
        return {seed: float(value) for seed, value in pairs if is_number(value)}

    def evidence(self, label: str, key: str = "", unit: str = "") -> Evidence:
        """Read the value, or the median over seeds of a number of the detail, with its interval.

        Args:
            label: text that names the number.
            key: path in the detail (`means.share`); empty: the value.
            unit: unit; empty: that of the record.
        """
        record, values = self.record, sorted(self.seeds(key).values())
        if not key:
            ends = record.low, record.high
            return Evidence(label, record.value, *ends, unit or record.unit, record.n, record.outcome)
        if not values:
            return Evidence(label, None, unit=unit)
        ranks = median_interval(len(values))
        return Evidence(label, median(values), values[ranks.low], values[ranks.high], unit, len(values))

    def derived(self, label: str, key: str, unit: str = "") -> Evidence:
        """Read a derived number, a bound if its outcome says so.

        Args:
            label: text that names the number.
            key: name of the derived number.
            unit: its unit.
        """
        value, outcome = (self.record.derived.get(name) for name in (key, f"{key}_outcome"))
        known = Outcome(outcome) if outcome in set(Outcome) else Outcome.OK
        return Evidence(label, float(value) if is_number(value) else None, unit=unit, outcome=known)

    def below(self, higher: "Reader", key: str = "", other: str | None = None) -> bool:
        """Tell whether this record lies below another by the paired test over common seeds with a value.

        Args:
            higher: record that should be higher.
            key: path in the detail; empty: the value.
            other: path in the detail of `higher`; None: `key`.
        """
        lower, upper = self.seeds(key), higher.seeds(key if other is None else other)
        return differs_upwards([upper[seed] - lower[seed] for seed in sorted(lower.keys() & upper.keys())])


def judge(
    claims: Iterable[Claim],
    records: Iterable[Record],
    profile: str = "quick",
    family: str = "mlp",
    dataset: str = "digits",
) -> list[Judged]:
    """Judge every claim by the newest records of one track.

    Args:
        claims: claims to judge.
        records: records of any track.
        profile: profile of the track.
        family: its family of networks.
        dataset: name of its data set; of several under one name, the one with most records counts.
    """
    kept = sorted((r for r in records if _in_track(r, profile, family, dataset)), key=age)
    checksums = Counter(r.provenance.dataset_checksum for r in kept if r.task != CALIBRATION)
    for checksum, _ in checksums.most_common(1):  # another data set may have this name
        kept = [r for r in kept if r.task == CALIBRATION or r.provenance.dataset_checksum == checksum]
    return [Judged(claim, _apply_rule(claim, kept), profile) for claim in claims]


def judge_largest(claims: Sequence[Claim], kept: Iterable[Kept]) -> list[Judged]:
    """Judge every claim at the largest profile with a record that is not submitted; empty: there is none."""
    records = [record for record, origin in kept if origin != "submitted"]
    measured = {record.profile.split("+")[0] for record in records if record.task != CALIBRATION}
    profile = next((profile for profile in PROFILES if profile in measured), None)
    return judge(claims, records, profile) if profile else []


def _in_track(record: Record, profile: str, family: str, dataset: str) -> bool:
    if record.task == CALIBRATION:
        return True
    return (record.profile.split("+")[0], record.family, record.dataset) == (profile, family, dataset)


def _apply_rule(claim: Claim, kept: Sequence[Record]) -> Finding:
    records = {need: newest for need in claim.needs if (newest := _newest(need, kept))}
    missing = [need for need in claim.needs if need not in records]
    if missing:
        return Finding(f"{len(missing)} of {len(claim.needs)} records are missing.")
    measured = [r for r in records.values() if r.task != CALIBRATION and r.value is not None]
    for few in (record for record in measured if record.n < MIN_SEEDS):
        return Finding(f"{few.task} has {few.n} seeds, and a verdict needs {MIN_SEEDS}.")
    for empty in (record for record in records.values() if record.value is None):
        return Finding(f"{empty.task} of {empty.scheme} has no value: {empty.outcome.sentence}.")
    return claim.rule(*(Reader(records[need]) for need in claim.needs))


def _newest(need: Need, kept: Sequence[Record]) -> Record | None:
    return next((record for record in reversed(kept) if answers(record, need)), None)


def answers(record: Record, need: Need) -> bool:
    """Tell whether a record has a need's task, scheme and settings, and otherwise its profile's settings."""
    if (record.task, record.scheme) != (need.task, need.scheme):
        return False
    changed = {setting.partition("=")[0] for setting in record.profile.split("+")[1:]}
    wanted = dict(need.settings)
    return changed <= wanted.keys() and all(record.settings.get(k) == v for k, v in wanted.items())
