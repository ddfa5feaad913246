"""The folder that a build writes: whole, the same each time, and nothing else's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_records import measured, record, write

from bnsuite.board.site import MARKER, RecordFolder, build_site
from bnsuite.records import RecordError

BUILD = (
    "import sys, pathlib; from bnsuite.board.site import RecordFolder, build_site; "
    "build_site([RecordFolder(pathlib.Path(sys.argv[1]), 'local')], pathlib.Path(sys.argv[2]))"
)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    """In this one charts were drawn before, in the other none; and sets are ordered otherwise."""
    folder = write(tmp_path / "records", measured("batchnorm") + measured("none"))
    site = build_site([RecordFolder(folder, "local")], tmp_path / "site").parent
    command = [sys.executable, "-c", BUILD, str(folder), str(tmp_path / "again")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert content(tmp_path / "again") == content(site)
    assert "<svg" in (site / "task-max_depth.html").read_text()


def test_records_are_copied_byte_for_byte(site: Path, folders: tuple[Path, Path]) -> None:
    originals = {p.read_bytes() for folder in folders for p in folder.rglob("*.json")}
    copies = {p.name: p.read_bytes() for p in (site / "records").iterdir()}
    ours = {text for text in copies.values() if json.loads(text)["scheme"] != "theirs"}
    assert ours == originals
    assert all(json.loads(text)["id"] + ".json" == name for name, text in copies.items())


def test_no_records_at_all_say_how_to_make_some(tmp_path: Path) -> None:
    index = build_site([RecordFolder(tmp_path / "nowhere", "local")], tmp_path / "site")
    assert index == tmp_path / "site" / "index.html"
    assert "bnsuite run" in index.read_text()


def test_files_of_an_earlier_build_are_gone(tmp_path: Path) -> None:
    source = RecordFolder(write(tmp_path / "records", [record("max_depth", "mine")]), "local")
    build_site([source], tmp_path / "site")
    assert (tmp_path / "site" / "scheme-mine.html").exists()
    build_site([], tmp_path / "site")
    assert not (tmp_path / "site" / "scheme-mine.html").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["records", "site"]


def test_a_folder_that_is_no_board_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RecordError, match=r"not a board.*--out"):
        build_site([], tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_will_do_and_a_file_will_not(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    build_site([], tmp_path / "site")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecordError, match="is a file"):
        build_site([], tmp_path / "file")
    with pytest.raises(RecordError, match="cannot build the board"):
        build_site([], tmp_path / "file" / "site")


def test_records_inside_the_target_are_not_deleted(tmp_path: Path) -> None:
    site = build_site([], tmp_path / "site").parent
    source = RecordFolder(write(site / "mine", [record()]), "local")
    with pytest.raises(RecordError, match="lie within the other"):
        build_site([source], site)
    assert len(list(source.folder.rglob("*.json"))) == 1


def test_a_board_among_the_records_would_be_read_as_records(tmp_path: Path) -> None:
    source = RecordFolder(write(tmp_path / "records", [record()]), "local")
    with pytest.raises(RecordError, match="lie within the other"):
        build_site([source], source.folder / "site")


def test_an_unsound_record_stops_the_build_and_changes_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "records", [record()])
    build_site([RecordFolder(folder, "local")], tmp_path / "site")
    before = content(tmp_path / "site")
    (folder / "broken.json").write_text('{"value": NaN}')
    with pytest.raises(RecordError, match=r"broken\.json"):
        build_site([RecordFolder(folder, "local")], tmp_path / "site")
    assert content(tmp_path / "site") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["records", "site"]


def test_a_failing_swap_restores_the_old_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = build_site([], tmp_path / "site").parent
    real = os.replace

    def fail(source: Path | str, target: Path | str) -> None:
        if Path(source).name == "new":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RecordError, match=r"No space left on device.*--out"):
        build_site([RecordFolder(write(tmp_path / "r", [record()]), "local")], site)
    assert (site / MARKER).exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "site"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(RecordError, match="--out"):
        build_site([], locked / "site")
