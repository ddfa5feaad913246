"""Folders of a submission that are nested too deep, or end like a record."""

from pathlib import Path

import pytest

from bnsuite.records import RecordError
from bnsuite.submission.foreign import scheme_file


def test_folders_nested_too_deep_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "scheme.py").touch()
    (tmp_path / "/".join("d" * 40)).mkdir(parents=True)
    with pytest.raises(RecordError, match="holds folders nested more than 32 deep"):
        scheme_file(tmp_path)


def test_a_link_in_a_folder_that_ends_like_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scheme.py").touch()
    (tmp_path / "one.json").mkdir()
    (tmp_path / "one.json" / "link").symlink_to("/etc")
    with pytest.raises(RecordError, match="plain files and folders, and no links"):
        scheme_file(tmp_path)
