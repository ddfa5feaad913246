"""Claims: what was said about batch normalization, and what the records say. No verdict is typed in."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnsuite import format
from bnsuite.ranking.tracks import PROFILES, Kept, age
from bnsuite.records import CALIBRATION, Outcome, Record, is_number
from bnsuite.statistics import MIN_SEEDS, differs_upwards, median_interval

HOLDS, CONDITION, FAILS, UNMEASURED = (
    "holds",
    "holds with a condition",
    "does not hold here",
    "not measured",
)


class Need(NamedTuple):
    """A record that a claim is judged by; `settings` leave the profile's own."""

    task: str
    scheme: str = "batchnorm"
    settings: tuple[tuple[str, Any], ...] = ()


class Evidence(NamedTuple):
    """A measured number with its interval. Those of one claim that share a unit are drawn together.

    `outcome` says how the value is to be read: beside `capped` it is a lower bound.
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
        """The value as it is to be read: 29 layers, ≥ 64 layers."""
        unit = self.unit if self.unit in format.COUNTED else ""
        return f"{format.SIGNS.get(self.outcome, '')}{format.number(self.value, unit)} {unit}".strip()

    def __str__(self) -> str:
        ends = format.interval(self.low, self.high, self.unit) if self.low != self.high else ""
        return " ".join(filter(None, (self.label, self.reading, ends)))


class Requirement(NamedTuple):
    """One condition of a claim, in words, and whether the records meet it."""

    words: str
    ok: bool


class Finding(NamedTuple):
    """What a rule makes of the records: the claim holds where every part does."""

    condition: str
    parts: tuple[Requirement, ...] = ()
    measured: tuple[Evidence, ...] = ()

    @property
    def verdict(self) -> str:
        if not self.parts:
            return UNMEASURED
        met = [part.ok for part in self.parts]
        return HOLDS if all(met) else CONDITION if any(met) else FAILS


Found = Mapping[Need, Record]
Rule = Callable[["Reader"], Finding]


@dataclass(frozen=True)
class Claim:
    """One sentence that can be true or false, where it is from, and the rule by which records decide."""

    id: str
    claim: str
    source: str
    experiment: str
    needs: tuple[Need, ...]
    rule: Rule


class Judged(NamedTuple):
    """A claim with its finding."""

    claim: Claim
    finding: Finding
    profile: str

    @property
    def command(self) -> str:
        """Measures what the claim needs and judges it."""
        return f"bnsuite claims --profile {self.profile} --only {self.claim.id}"

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.claim.id,
            "claim": self.claim.claim,
            "source": self.claim.source,
            "experiment": self.claim.experiment,
            "measured": [one._asdict() for one in self.finding.measured],
            "verdict": self.finding.verdict,
            "condition": self.finding.condition,
            "parts": [part._asdict() for part in self.finding.parts],
            "command": self.command,
        }


def _inside(detail: Any, path: str) -> Any:
    for key in path.split("."):
        detail = detail.get(key) if isinstance(detail, dict) else None
    return detail


class Reader:
    """The records of one claim, read seed by seed."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def record(self, need: Need) -> Record:
        return self._found[need]

    def seeds(self, need: Need, key: str = "") -> dict[int, float]:
        """By seed the value, or a number of the detail (`means.share`); a seed without is left out."""
        pairs = [(s.seed, _inside(s.detail, key) if key else s.value) for s in self.record(need).samples]
        return {
            seed: float(v) for seed, v in pairs if isinstance(v, (int, float)) and not isinstance(v, bool)
        }

    def evidence(self, need: Need, label: str, key: str = "", unit: str = "") -> Evidence:
        """Median over seeds and its interval, of the value or of a number of the detail."""
        record = self.record(need)
        if not key:
            ends = record.low, record.high
            return Evidence(label, record.value, *ends, unit or record.unit, record.n, record.outcome)
        values = sorted(self.seeds(need, key).values())
        if not values:
            return Evidence(label, None, unit=unit)
        n, ranks = len(values), median_interval(len(values))
        middle = (values[(n - 1) // 2] + values[n // 2]) / 2
        return Evidence(label, middle, values[ranks.low], values[ranks.high], unit, n)

    def derived(self, need: Need, label: str, key: str, unit: str = "") -> Evidence:
        """A number that stands beside the value, a bound where its outcome says so."""
        beside = self.record(need).derived
        value, outcome = beside.get(key), beside.get(f"{key}_outcome")
        known = Outcome(outcome) if outcome in set(Outcome) else Outcome.OK
        return Evidence(label, float(value) if is_number(value) else None, unit=unit, outcome=known)

    def below(self, a: Need, b: Need, key: str = "", other: str | None = None) -> bool:
        """Whether a lies below b by the paired test over common seeds; what has no value there is no help."""
        lower, upper = self.seeds(a, key), self.seeds(b, key if other is None else other)
        return differs_upwards([upper[seed] - lower[seed] for seed in sorted(lower.keys() & upper.keys())])


def judge(
    claims: Iterable[Claim],
    records: Iterable[Record],
    profile: str = "quick",
    family: str = "mlp",
    dataset: str = "digits",
) -> list[Judged]:
    """Every claim with the verdict that its rule gives for the newest records of one track."""
    kept = sorted((r for r in records if _in_track(r, profile, family, dataset)), key=age)
    checksums = Counter(r.provenance.dataset_checksum for r in kept if r.task != CALIBRATION)
    for checksum, _ in checksums.most_common(1):  # other data may bear the same name
        kept = [r for r in kept if r.task == CALIBRATION or r.provenance.dataset_checksum == checksum]
    return [Judged(claim, _finding(claim, kept), profile) for claim in claims]


def judge_largest(claims: Sequence[Claim], kept: Iterable[Kept]) -> list[Judged]:
    """At the largest profile that has a record, none where none has; what others submitted has no say."""
    records = [one.record for one in kept if one.origin != "submitted"]
    there = {record.profile.split("+")[0] for record in records if record.task != CALIBRATION}
    profile = next((profile for profile in PROFILES if profile in there), None)
    return judge(claims, records, profile) if profile else []


def _in_track(record: Record, profile: str, family: str, dataset: str) -> bool:
    if record.task == CALIBRATION:
        return True
    return (record.profile.split("+")[0], record.family, record.dataset) == (profile, family, dataset)


def _finding(claim: Claim, kept: Sequence[Record]) -> Finding:
    found = {need: newest for need in claim.needs if (newest := _newest(need, kept))}
    missing = [need for need in claim.needs if need not in found]
    if missing:
        return Finding(f"{len(missing)} of {len(claim.needs)} records are missing.")
    few = [n for n, r in found.items() if r.n < MIN_SEEDS and r.task != CALIBRATION and r.value is not None]
    if few:
        return Finding(f"{few[0].task} has {found[few[0]].n} seeds, and a verdict needs {MIN_SEEDS}.")
    without = [need for need, record in found.items() if record.value is None]
    if without:
        need = without[0]
        return Finding(f"{need.task} of {need.scheme} has no value: {found[need].outcome.sentence}.")
    return claim.rule(Reader(found))


def _newest(need: Need, kept: Sequence[Record]) -> Record | None:
    return next((record for record in reversed(kept) if answers(record, need)), None)


def answers(record: Record, need: Need) -> bool:
    """Whether the record is of this task and scheme, at these settings and otherwise at the profile's own."""
    if (record.task, record.scheme) != (need.task, need.scheme):
        return False
    changed = {part.partition("=")[0] for part in record.profile.split("+")[1:]}
    wanted = dict(need.settings)
    return changed <= wanted.keys() and all(record.settings.get(k) == v for k, v in wanted.items())
