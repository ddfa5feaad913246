"""Manifest of a submission: who submits a scheme, and its terms; `submission.toml` next to `scheme.py`."""

import reprlib
import stat
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bnsuite.records.store import RecordError, where

NAME = "[a-z0-9][a-z0-9-]{0,39}"
"""Pattern of the name of a scheme and of its folder: lower-case letters, digits and hyphens, at most 40."""

FILE = "submission.toml"

_LONGEST = 64 * 1024
_INPUT = reprlib.Repr()  # cuts off what is nested deep, whose repr would be a RecursionError
_INPUT.maxstring = _INPUT.maxother = 80
_Line = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")
]
_Package = Annotated[
    str, Field(max_length=200, pattern=r"^[A-Za-z0-9][\w.-]*(\[[\w, -]*\])? *([<>=!~][\w .,*+!<>=~-]*)?$")
]
_Login = Annotated[str, Field(pattern=r"^[A-Za-z0-9](-?[A-Za-z0-9]){0,38}$")]


class Manifest(BaseModel):
    """Content of `submission.toml`. The board shows its strings, escaped.

    `requires` names what the file imports besides torch and the standard library, as pip takes it:
    "x-transformers==2.31.10". `github` names the accounts that may change the entry by a pull request;
    without any, a maintainer changes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    authors: Annotated[list[_Line], Field(min_length=1, max_length=50)]
    licence: _Line
    github: Annotated[list[_Login], Field(max_length=50)] = []
    requires: Annotated[list[_Package], Field(max_length=20)] = []
    paper: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    notes: Annotated[str, Field(max_length=2000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")] = ""


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in the folder of a submission.

    Raises:
        RecordError: one line with the file, what is wrong, what to do.
    """
    path = folder / FILE
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise RecordError(f"{path}: a plain file is wanted, and no link or device. Put the file there.")
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise RecordError(f"{path}: larger than {_LONGEST} bytes. Shorten it.")
        data = tomllib.loads(content.decode())
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read ({error.strerror}). `bnsuite new NAME` writes one to begin with."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{path}: not valid TOML ({error!s:.200}). Mend that line, or what is before it."
        ) from error
    try:
        found = Manifest.model_validate(data)
    except ValidationError as error:
        unknown = next((name for name in data if name not in Manifest.model_fields), None)
        near = get_close_matches(unknown, Manifest.model_fields, n=1) if unknown else []
        if near:
            raise RecordError(f"{path}: unknown field {unknown!r:.80}. Did you mean {near[0]}?") from error
        first = error.errors()[0]
        raise RecordError(
            f"{path}: {where(error)}: {first['msg']}, got {_INPUT.repr(first['input']):.80}. "
            "It holds name, authors, github and requires (lists), licence, paper and notes."
        ) from error
    if found.name != folder.resolve().name:
        raise RecordError(
            f"{path}: name is {found.name!r}, and its folder {folder.resolve().name!r}. Give both one name."
        )
    return found
