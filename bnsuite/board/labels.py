"""Labels of tasks, entries, tracks and derived values on the pages."""

from collections.abc import Iterable, Sequence

from bnsuite import format
from bnsuite.ranking.tables import Row
from bnsuite.ranking.tracks import Entry, Track
from bnsuite.records import Outcome, Record, is_number
from bnsuite.specs import SPECS

CLOCKED = frozenset(
    {"train_s", "eval_s", "seconds_per_step", "joules_per_step", "energy_j", "joules_per_pass"}
)
"""Derived values that are shown only where the device was idle and its clock did not drift."""

SETUP = {
    "scheme_source": "scheme source",
    "package_version": "bnsuite",
    "torch": "torch",
    "python": "Python",
    "os": "system",
    "cpu": "CPU",
    "gpu": "GPU",
    "driver": "driver",
    "threads": "threads",
    "deterministic": "deterministic",
    "tf32": "TF32",
    "flush_subnormals": "subnormals flushed",
    "commit": "commit",
    "dirty": "uncommitted changes",
}
"""Fields of a provenance that many records share → headings; shown once per distinct set-up."""


def title(task: str) -> str:
    """Heading of a task; one that this version does not know goes by its name."""
    return SPECS[task].title if task in SPECS else task.replace("_", " ").capitalize()


def in_order(tasks: Iterable[str]) -> list[str]:
    """Sort tasks as `SPECS` has them, then the others by name."""
    places = {task: place for place, task in enumerate(SPECS)}
    return sorted(tasks, key=lambda task: (places.get(task, len(places)), task))


def anchor(track: Track) -> str:
    """Return the id of a track, unique and equal on every page."""
    parts = (track.data, track.family, track.profile)
    return ".".join([*map(format.slug, parts), f"v{track.suite_version}"])


def label(entry: Entry) -> str:
    """Return the scheme of an entry, its device unless that is the CPU, its origin unless published."""
    marks = [entry.device] if entry.device != "cpu" else []
    marks += [entry.origin] if entry.origin != "published" else []
    return " · ".join([format.printable(entry.scheme) or format.DASH, *marks])


def short_labels(rows: Sequence[Row]) -> dict[Entry, str]:
    """Return short labels for the figures of one table, without the device or origin that all entries share.

    That a scheme was submitted is left out, too, where none of ours has its name: room is short.
    """
    devices, origins = {row.entry.device for row in rows}, {row.entry.origin for row in rows}
    ours = {row.entry.scheme for row in rows if row.entry.origin != "submitted"}

    def short(entry: Entry) -> str:
        plain = len(origins) == 1 or (entry.origin == "submitted" and entry.scheme not in ours)
        return label(
            entry._replace(
                device="cpu" if len(devices) == 1 else entry.device,
                origin="published" if plain else entry.origin,
            )
        )

    return {row.entry: short(row.entry) for row in rows}


def machines(records: Sequence[Record]) -> str:
    """Return the processors on which the records were measured."""
    return ", ".join(sorted({r.provenance.gpu or r.provenance.cpu for r in records}))


def seeds(records: Sequence[Record]) -> str:
    """Return the number of seeds behind the values: `6`, or `2–6`."""
    counts = sorted({record.n for record in records if record.value is not None})
    return "–".join(map(str, dict.fromkeys(counts[:1] + counts[-1:]))) or "0"


def network(asked: Iterable[Record]) -> str:
    """Return the width and batch on which all records agree: `width 64, batch 128`."""
    settings = [record.settings for record in asked]
    found = {key: [one.get(key) for one in settings] for key in ("width", "batch") if settings}
    agreed = {key: values[0] for key, values in found.items() if values == values[:1] * len(values)}
    return ", ".join(f"{key} {value}" for key, value in agreed.items() if is_number(value) and value)


def coverage(records: Sequence[Record]) -> str:
    """Return the coverage of the intervals: `96.9 %`, or `50.0–96.9 %`; empty where no record has one."""
    found = sorted({record.coverage for record in records if record.coverage is not None})
    return "–".join(dict.fromkeys(f"{100 * c:.1f}" for c in found[:1] + found[-1:])) + " %" if found else ""


def companions(task: str, records: Sequence[Record]) -> dict[str, str]:
    """Return the columns next to the value, key → heading: those that hold something in any record.

    Derived values that repeat a setting are left out.
    """
    empty = ("", format.DASH, "no")
    shown = {
        key
        for record in records
        for key, found in record.derived.items()
        if found != record.settings.get(key) and companion(record, key) not in empty
    }
    named = SPECS[task].companions if task in SPECS else {}
    named = named or {key: key.replace("_", " ") for key in sorted(shown)}
    return {key: heading for key, heading in named.items() if key in shown}


def companion(record: Record, key: str) -> str:
    """Return a derived value as text, with the sign of a bound where the record holds its outcome."""
    if key in CLOCKED and not _settled(record):
        return format.DASH
    value, outcome = record.derived.get(key), record.derived.get(f"{key}_outcome")
    if not isinstance(outcome, str) or outcome not in set(Outcome):
        return format.plain(value)
    if value is None:
        return outcome
    sign = format.SIGNS.get(Outcome(outcome), "")
    return sign + (format.number(value, record.unit) if isinstance(value, float) else format.plain(value))


def _settled(record: Record) -> bool:
    """Tell whether the device was idle and steady; assumed of older records, which do not say."""
    beside = record.derived
    return "idle" not in beside or (beside["idle"] is True and beside.get("drift") is not True)
