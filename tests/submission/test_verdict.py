"""Verdicts: what a run says and marks of a scheme that breaks its contract, and when it asks again."""

from pathlib import Path
from typing import Any

import pytest

from bnsuite.facets import Facets
from bnsuite.submission import verdict
from bnsuite.submission.contract import CONTRACT
from bnsuite.submission.conversation import Limits
from bnsuite.submission.foreign import Foreign, source_of
from bnsuite.submission.sandbox import Sandbox

WARNING = {"warning": "UserWarning:  two\nlines"}
NAMED = {"name": "mine", "about": "plain, Norm"}
GOOD = [{"check": {"name": name, "ok": True, "message": ""}} for name in CONTRACT]
BAD = [
    {"check": {"name": name, "ok": name < "f", "message": "got 1" if name == "finite" else "not tried: x"}}
    for name in CONTRACT
]
END = {"words": [], "costs": {}, "last": True}


class Speaker(Sandbox):
    """Says what it is told to, and counts how often it is asked."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        super().__init__(None)
        self.messages, self.asked = messages, 0

    def ask(self, path: Path, question: Any, limits: Limits, hear: Any = None, *more: Any) -> Any:
        self.asked += 1
        for message in self.messages[:-1]:
            hear(message)
        return self.messages[-1]


def foreign(tmp_path: Path, sandbox: Sandbox, text: str = "x = 1") -> Foreign:
    path = tmp_path / "mine.py"
    path.write_text(text)
    facets = Facets(("batch-1", "own-init"), {})
    return Foreign("mine", "plain, Norm", facets, path, source_of(path), sandbox, Limits(wall_s=600))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNSUITE_CACHE", str(tmp_path / "cache"))


def test_a_sound_scheme_is_as_it_was(tmp_path: Path) -> None:
    scheme = foreign(tmp_path, Speaker(WARNING, NAMED, *GOOD, END))
    marked, found = verdict.judged(scheme)
    assert marked == scheme
    assert (found.failed, found.warnings) == ({}, ["UserWarning: two lines"])


def test_one_that_fails_is_marked_and_its_cause_told(tmp_path: Path) -> None:
    marked, found = verdict.judged(foreign(tmp_path, Speaker(NAMED, *BAD, END)))
    assert marked.facets.words == ("batch-1", "breaks-contract", "own-init")
    assert found.failed == {"finite": "got 1"}


def test_a_verdict_is_kept_until_the_file_or_the_suite_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    sandbox = Speaker(NAMED, *BAD, END)
    first = verdict.judged(foreign(tmp_path, sandbox), said.append)
    assert verdict.judged(foreign(tmp_path, sandbox), said.append) == first
    assert (sandbox.asked, len(said)) == (1, 1)
    verdict.judged(foreign(tmp_path, sandbox, "x = 2"))
    assert sandbox.asked == 2
    monkeypatch.setattr(verdict, "_suite", lambda: "another")
    verdict.judged(foreign(tmp_path, sandbox, "x = 2"))
    assert sandbox.asked == 3


def test_a_check_that_was_stopped_is_tried_again(tmp_path: Path) -> None:
    sandbox = Speaker(NAMED, *GOOD[:3], {"failed": "stopped: it did not end within 120 s"})
    for asked in (1, 2):
        marked, found = verdict.judged(foreign(tmp_path, sandbox))
        assert sandbox.asked == asked
        assert "breaks-contract" in marked.facets.words
        assert "stopped" in found.failed["dtype"]


def test_a_stop_while_facets_are_tried_is_no_verdict(tmp_path: Path) -> None:
    sandbox = Speaker(NAMED, *GOOD, {"failed": "stopped: it did not end within 120 s"})
    for asked in (1, 2):
        _, found = verdict.judged(foreign(tmp_path, sandbox))
        assert (sandbox.asked, [*found.failed]) == (asked, ["facets"])


def test_what_is_kept_and_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    sandbox = Speaker(NAMED, *GOOD, END)
    verdict.judged(foreign(tmp_path, sandbox))
    (kept,) = (tmp_path / "cache" / "contract").iterdir()
    kept.write_text("{")
    verdict.judged(foreign(tmp_path, sandbox))
    assert sandbox.asked == 2
