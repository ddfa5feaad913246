"""Records on disk, and the board that they make: built once."""

from pathlib import Path

import pytest
from made_records import local, measured, published, submit, write

from bnsuite.board.site import RecordFolder, build_site


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where published and local records lie."""
    root = tmp_path_factory.mktemp("records")
    return write(root / "published", published()), write(root / "local", local())


@pytest.fixture(scope="session")
def site(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of these records."""
    sent = tmp_path_factory.mktemp("submissions")
    theirs = submit(sent / "theirs", measured("theirs", facets=("batch-1", "residual")))
    sources = [
        RecordFolder(folders[0], "published"),
        RecordFolder(folders[1], "local"),
        RecordFolder(theirs, "submitted"),
        RecordFolder(sent / "broken" / "records", "submitted"),
    ]
    with pytest.MonkeyPatch.context() as patch:  # these records are made up, and no trace speaks for them
        patch.setattr("bnsuite.board.submissions.objections_to", lambda record: [])
        return build_site(sources, tmp_path_factory.mktemp("board") / "site").parent
