"""Records on disk, and the board that they make: built once."""

from pathlib import Path

import pytest
from board_records import local, published, write

from bnsuite.board.site import Source, build_site


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where published and local records lie."""
    root = tmp_path_factory.mktemp("records")
    return write(root / "published", published()), write(root / "local", local())


@pytest.fixture(scope="session")
def site(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of these records."""
    sources = [Source(folders[0], "published"), Source(folders[1], "local")]
    return build_site(sources, tmp_path_factory.mktemp("board") / "site").parent
