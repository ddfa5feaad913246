"""Manifest: what it takes, and one line for everything else."""

import os
from pathlib import Path

import pytest

from bnsuite.records import RecordError
from bnsuite.records.manifest import read_manifest

GOOD = 'name = "mine"\nauthors = ["A. B.", "C."]\nlicence = "MIT"\npaper = ""\nnotes = """\ntwo\nlines"""\n'


def folder(tmp_path: Path, text: str, name: str = "mine") -> Path:
    place = tmp_path / name
    place.mkdir()
    (place / "submission.toml").write_text(text, encoding="utf-8")
    return place


def test_a_sound_one(tmp_path: Path) -> None:
    found = read_manifest(folder(tmp_path, GOOD))
    assert (found.name, found.authors, found.licence) == ("mine", ["A. B.", "C."], "MIT")
    assert found.notes == "two\nlines"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["A. B.", "C."]', '"A. B."', "authors: Input should be a valid list, got 'A. B.'"),
        ('["A. B.", "C."]', "[]", "authors: List should have at least 1 item"),
        ('["A. B.", "C."]', "[3]", "authors.0: Input should be a valid string, got 3"),
        ('["A. B.", "C."]', r'["a\nb"]', "authors.0: String should match"),
        ('"MIT"', "true", "licence: Input should be a valid string, got True"),
        ('"MIT"', '""', "licence: String should have at least 1"),
        ('licence = "MIT"\n', "", "licence: Field required"),
        ('paper = ""', 'paper = ""\nrank = 1', "rank: Extra inputs"),
        ('licence = "MIT"', 'license = "MIT"', "unknown field 'license'. Did you mean licence?"),
        ('paper = ""', 'requires = ["--index-url http://x"]', "requires.0: String should match pattern"),
        ('paper = ""', 'requires = ["; rm -rf /"]', "requires.0: String should match pattern"),
        ("two", "two\\u0000", "notes: String should match pattern"),
        ('paper = ""', 'requires = "numpy"', "requires: Input should be a valid list, got 'numpy'"),
        ('paper = ""', 'github = ["a b"]', "github.0: String should match"),
        ('paper = ""', 'github = ["-a"]', "github.0: String should match"),
        ('"mine"', '"<script>"', "name: String should match"),
        ('"mine"', '"../mine"', "name: String should match"),
        ('"mine"', r'"mine\n"', "name: String should match"),
        ('"mine"', '"other"', "name is 'other', and its folder 'mine'. Give both one name"),
        ('"mine"', "mine", "not valid TOML"),
        ("two", "t" * 2001, "notes: String should have at most 2000"),
        ("two", "t" * 70000, "larger than 65536 bytes. Shorten it"),
    ],
)
def test_what_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(RecordError) as caught:
        read_manifest(folder(tmp_path, GOOD.replace(old, new)))
    assert words in str(caught.value)
    assert "submission.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_one_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot be read .*`bnsuite new NAME` writes one"):
        read_manifest(tmp_path)


def test_a_link_a_device_and_a_pipe_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "submission.toml").symlink_to("/dev/zero")
    with pytest.raises(RecordError, match="a plain file is wanted, and no link or device"):
        read_manifest(tmp_path)
    (tmp_path / "submission.toml").unlink()
    os.mkfifo(tmp_path / "submission.toml")
    with pytest.raises(RecordError, match="a plain file is wanted"):
        read_manifest(tmp_path)


def test_a_manifest_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "submission.toml").write_text("name = " + "[" * 30_000)
    with pytest.raises(RecordError, match="not valid TOML"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("key", [".".join(["a"] * 3000), ".".join(["name"] * 3000), '"' + "x" * 5000 + '"'])
def test_a_key_of_thousands_of_parts_is_one_short_line(tmp_path: Path, key: str) -> None:
    text = GOOD.replace('name = "mine"\n', "") if key.startswith("name") else GOOD
    with pytest.raises(RecordError) as caught:
        read_manifest(folder(tmp_path, f"{key} = 1\n{text}"))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 400
