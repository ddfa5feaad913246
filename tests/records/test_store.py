"""The store: whole files or none, and one clear line for what cannot be read or written."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnsuite.records import Outcome, RecordError, Store, read_records
from bnsuite.records.store import age, read_record


def files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def complaint(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(RecordError) as caught:
        read_record(path)
    with pytest.raises(RecordError):
        list(Store(path.parent))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_round_trip(tmp_path: Path, make_record: Any) -> None:
    record = make_record()
    path = Store(tmp_path).add(record)
    assert path == tmp_path / "quick" / "mlp-digits" / "max_depth" / f"batchnorm-cpu-{record.id}.json"
    assert read_record(path) == record
    assert list(Store(tmp_path)) == [record]
    assert read_records([tmp_path, tmp_path / "not there"]) == {path: record}
    assert files_in(tmp_path) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_same_record_gives_the_same_bytes(tmp_path: Path, make_record: Any) -> None:
    first, second = (Store(tmp_path / name).add(make_record()) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().endswith(b"}\n")


def test_a_result_is_found_by_key_and_profile(tmp_path: Path, make_record: Any) -> None:
    store = Store(tmp_path)
    old, new = make_record(), make_record(started="2026-02-01T00:00:00+00:00")
    failed = make_record(
        value=None, low=None, outcome=Outcome.ERROR, error="boom", started="2026-03-01T00:00:00+00:00"
    )
    for record in (new, old, failed):
        store.add(record)
    assert len({old.key, new.key, failed.key}) == 1
    assert store.result(old.key, old.cell) == new == Store(tmp_path).result(old.key, old.cell)
    assert store.result(old.key, old.cell.model_copy(update={"profile": "smoke"})) is None
    assert store.result("0" * 32, old.cell) is None


@pytest.mark.parametrize("outcome", [Outcome.OOM, Outcome.STUCK, Outcome.UNSUPPORTED, Outcome.ERROR])
def test_every_outcome_but_error_is_a_result(tmp_path: Path, make_record: Any, outcome: Outcome) -> None:
    store = Store(tmp_path)
    record = make_record(value=None, low=None, outcome=outcome)
    store.add(record)
    assert (store.result(record.key, record.cell) is None) == (outcome is Outcome.ERROR)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(value=25.0),
        lambda data: data["samples"][0].update(value=17),
        lambda data: data["provenance"].update(duration_s=0.1),
        lambda data: data.update(settings={"width": 65, "depths": [4, 128]}),
        lambda data: data.update(key="0" * 32),
        lambda data: data.update(id="0" * 16),
    ],
)
def test_an_edited_file_is_refused(tmp_path: Path, make_record: Any, change: Any) -> None:
    path = Store(tmp_path).add(make_record())
    rewrite(path, change)
    assert "edited" in complaint(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ['"value": 24.0', '"non_monotone": false'])
def test_a_number_that_is_not_finite_is_refused(
    tmp_path: Path, make_record: Any, field: str, number: str
) -> None:
    path = Store(tmp_path).add(make_record())
    text = path.read_text()
    assert field in text
    path.write_text(text.replace(field, f"{field.partition(':')[0]}: {number}"))
    complaint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b'{"id": ', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "schema_version is None, wanted 1 to 2"),
        (b'"text"', "schema_version is None"),
        (b'{"schema_version": 99}', "schema_version is 99, wanted 1 to 2"),
        (b'{"schema_version": 1}', "not a record"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(content)
    assert words in complaint(path)


def test_a_folder_named_like_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    assert "cannot be read" in complaint(tmp_path / "folder.json")


def test_a_record_in_two_folders_counts_once_where_it_lies_last(tmp_path: Path, make_record: Any) -> None:
    Store(tmp_path / "a").add(make_record())
    last = Store(tmp_path / "b").add(make_record())
    assert list(read_records([tmp_path / "a", tmp_path / "b"])) == [last]


def test_a_file_in_place_of_the_folder(tmp_path: Path, make_record: Any) -> None:
    (tmp_path / "file").write_text("kept")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        store = Store(folder)
        with pytest.raises(RecordError, match=r"cannot write here.*--records"):
            store.check_writable()
        with pytest.raises(RecordError, match="cannot write the record"):
            store.add(make_record())
    assert (tmp_path / "file").read_text() == "kept"


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    Store(tmp_path / "new").check_writable()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    store = Store(tmp_path)
    kept = store.add(make_record())

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, where, full)
    with pytest.raises(RecordError) as caught:
        store.add(make_record(scheme="layernorm"))
    message = str(caught.value)
    assert "No space left on device" in message
    assert "the same command goes on" in message
    assert "\n" not in message
    assert files_in(tmp_path) == [kept]
    assert len(store) == len(Store(tmp_path)) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_reader_sees_the_whole_file_or_none(
    tmp_path: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    path = Store(tmp_path).path_of(make_record())
    seen: list[bool] = []

    def look(handle: int) -> None:
        seen.append(path.exists())
        assert list(Store(tmp_path)) == []
        if len(seen) == 1:
            raise stop

    monkeypatch.setattr(os, "fsync", look)
    with pytest.raises(stop):
        Store(tmp_path).add(make_record())
    assert files_in(tmp_path) == []
    Store(tmp_path).add(make_record())
    assert seen == [False, False]
    assert files_in(tmp_path) == [path]


@pytest.mark.parametrize("name", ["../../records/quick", "/etc", "a/b", ".hidden", "a\nb", "x" * 201, ""])
def test_a_record_whose_names_lead_elsewhere_is_not_stored(
    tmp_path: Path, make_record: Any, name: str
) -> None:
    record = make_record()
    for field in ("profile", "scheme", "family", "dataset", "task"):
        with pytest.raises(RecordError, match=f"{field} .* names no file, and it is not stored"):
            Store(tmp_path / "deep" / "store").add(record.model_copy(update={field: name}))
    assert not [*tmp_path.rglob("*.json")]


def test_a_file_nested_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    assert "not valid JSON" in complaint(path)


def test_opening_reads_nothing_and_a_cell_reads_its_own_files(
    tmp_path: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make_record(scheme=f"s{i}") for i in range(20)]
    for record in records:
        Store(tmp_path).add(record)
    elsewhere = tmp_path / "moved.json"
    Store(tmp_path).path_of(records[0]).rename(elsewhere)
    opened: list[Path] = []
    monkeypatch.setattr(
        "bnsuite.records.store.read_record", lambda path: opened.append(path) or read_record(path)
    )
    store = Store(tmp_path)
    assert (len(store), opened) == (20, [])
    assert store.result(records[3].key, records[3].cell) == records[3]
    assert opened == [store.path_of(records[3]), elsewhere]
    assert store.result(records[0].key, records[0].cell) == records[0], "found wherever it lies"
    assert store.of_scheme("s5") == [records[5]]
    assert len(opened) == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"value": 24.0', '"value": 24.0, "value": 24.0', "key 'value' twice"),
        ('"value": 24.0', '"value": "24"', "value: Input should be a valid number"),
        ('"value": 24.0', '"value": true', "value: Input should be a valid number"),
        ('"threads": 1', '"threads": 1.0', "provenance.threads: Input should be a valid integer"),
        ('"threads": 1', '"threads": "1"', "provenance.threads: Input should be a valid integer"),
        ('"tf32": false', '"tf32": 0', "provenance.tf32: Input should be a valid boolean"),
        ('"schema_version": 2', '"schema_version": true', "schema_version is True"),
        ('"schema_version": 2', '"schema_version": 2.0', "schema_version is 2.0"),
        ('"threads": 1', '"thr\\neads": 1', "not a record"),
        ('"scheme": "batchnorm"', '"scheme": "\\ud800"', "not a record"),
        ('"non_monotone": false', '"deep": ' + "[" * 500 + "]" * 500, "not a record"),
    ],
)
def test_duplicate_keys_and_lax_types_are_refused(
    tmp_path: Path, make_record: Any, old: str, new: str, words: str
) -> None:
    path = Store(tmp_path).add(make_record())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert words in complaint(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_what_has_no_end_is_not_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        monkeypatch.setattr("bnsuite.records.store.LARGEST", 2**20)
        path.write_bytes(b" " * (2**20 + 1))
    assert ("larger than 1 MiB" if kind == "large" else "not a plain file") in complaint(path)


def test_folders_nested_without_end_are_refused(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(1500 // 100):
        place = place.joinpath(*["d"] * 40)
        place.mkdir(parents=True)
    with pytest.raises(RecordError, match="nested more than 32 deep"):
        Store(tmp_path)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_beyond_the_calendar_is_long_ago(make_record: Any, moment: str) -> None:
    assert age(make_record(started=moment)) < age(make_record(started="1970-01-01"))


def test_a_name_too_long_to_store_is_refused_before_it_is_measured(tmp_path: Path, make_record: Any) -> None:
    cell = make_record().cell.model_copy(update={"profile": "quick+" + "a" * 200})
    with pytest.raises(RecordError, match=r"profile .* names no file"):
        Store(tmp_path).check_names(cell)
