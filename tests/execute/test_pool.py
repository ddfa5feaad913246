"""Work side by side: results and reports arrive; a worker that is lost costs its own item alone."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from bnsuite.execute import pool
from bnsuite.execute.pool import Failed, ending, interrupts_wait, side_by_side

Report = Callable[[str], None]


def work(items: list[Any], function: Callable[[Any, Report], Any], workers: int = 2) -> dict[Any, Any]:
    """Results by item; exactly one each, and no process is left."""
    found = list(side_by_side(function, items, workers, lambda item, text: None, {}))
    assert sorted(item for item, _ in found) == sorted(items)
    return dict(found)


def once(marker: Path) -> bool:
    """Whether this is the first call for the marker, in whatever process."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[pool._Worker]:
    """The workers that are started, in their order."""
    crew: list[pool._Worker] = []
    start = pool._Worker.__init__

    def noting(self: pool._Worker, environment: Any) -> None:
        start(self, environment)
        crew.append(self)

    monkeypatch.setattr(pool._Worker, "__init__", noting)
    return crew


def test_results_and_reports_arrive_in_order(started: list[pool._Worker]) -> None:
    heard: list[tuple[int, str]] = []

    def square(item: int, report: Report) -> int:
        for i in range(3):
            report(f"λ = {i}")
        return item**2

    found = side_by_side(square, [1, 2, 3, 4, 5], 2, lambda i, text: heard.append((i, text)), {})
    assert dict(found) == {1: 1, 2: 4, 3: 9, 4: 16, 5: 25}
    for item in range(1, 6):
        assert [text for i, text in heard if i == item] == ["λ = 0", "λ = 1", "λ = 2"]
    assert [worker.process.returncode for worker in started] == [0, 0]


def test_workers_have_an_environment_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNSUITE_SET", "mine")
    defaults = {"BNSUITE_SET": "default", "BNSUITE_UNSET": "default"}
    (found,) = side_by_side(lambda name, report: dict(os.environ), ["x"], 1, lambda i, text: None, defaults)
    assert (found[1]["BNSUITE_SET"], found[1]["BNSUITE_UNSET"]) == ("mine", "default")  # type: ignore[index]
    assert "BNSUITE_UNSET" not in os.environ


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL, perhaps for memory"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "killed by SIGSEGV"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "killed by SIGTERM"),
        (lambda: os._exit(3), "ended with exit status 3"),
        (lambda: sys.exit(0), "ended with exit status 0"),
    ],
)
def test_an_item_that_ends_its_workers_is_failed_and_the_rest_go_on(
    end: Callable[[], None], words: str, started: list[pool._Worker]
) -> None:
    found = work([0, 1, 2, 3], lambda item, report: end() if item == 1 else item)
    assert found == {0: 0, 1: Failed(f"lost 2 worker processes: {words} and {words}"), 2: 2, 3: 3}
    assert all(worker.process.returncode is not None for worker in started)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_between_two_items_costs_none(workers: int, started: list[pool._Worker]) -> None:
    heard: list[str] = []
    results = side_by_side(
        lambda item, report: item, [1, 2, 3], workers, lambda i, text: heard.append(text), {}
    )
    first = next(results)
    idle = next(worker for worker in started if worker.item is None)
    idle.process.kill()
    idle.process.wait()
    assert sorted([first, *results]) == [(1, 1), (2, 2), (3, 3)]
    assert heard == [], "no item is tried again"


def test_items_whose_workers_are_lost_once_are_done(tmp_path: Path) -> None:
    def dying(item: int, report: Report) -> int:
        if once(tmp_path / str(item)):
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    heard: list[str] = []
    found = dict(side_by_side(dying, range(4), 2, lambda item, text: heard.append(text), {}))
    assert found == {i: i for i in range(4)}
    assert heard == ["worker killed by SIGKILL, perhaps for memory: trying the cell once more"] * 4


def test_a_worker_that_dies_within_a_message(tmp_path: Path) -> None:
    def half(item: int, report: Report) -> int:
        def cut(self: Connection, message: Any) -> None:
            os.write(self.fileno(), struct.pack("!i", 10**6) + b"no million bytes")
            os.kill(os.getpid(), signal.SIGKILL)

        if item == 0 and once(tmp_path / "cut"):
            Connection._send_bytes = cut  # type: ignore[attr-defined]
        return item

    assert work([0, 1, 2], half) == {0: 0, 1: 1, 2: 2}
    assert (tmp_path / "cut").exists()


def test_a_worker_that_speaks_garbage_is_lost(tmp_path: Path) -> None:
    def garbled(item: int, report: Report) -> int:
        def spoil(self: Connection, message: Any) -> None:
            os.write(self.fileno(), struct.pack("!i", 7) + b"garbage")

        if once(tmp_path / "spoilt"):
            Connection._send_bytes = spoil  # type: ignore[attr-defined]
        return item

    assert work([0, 1], garbled) == {0: 0, 1: 1}


def test_a_worker_that_dies_between_items(tmp_path: Path) -> None:
    def bomb(item: int, report: Report) -> int:
        if item == 0 and once(tmp_path / "bomb"):
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif item > 0:
            time.sleep(0.4)
        return item

    assert work([*range(4)], bomb, workers=1) == {i: i for i in range(4)}


def test_workers_that_are_killed_while_they_start(
    started: list[pool._Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    give = pool._Worker.give

    def killing(self: pool._Worker, task: object) -> None:
        if len(started) <= 2:
            self.process.kill()
            self.process.wait()
        give(self, task)

    monkeypatch.setattr(pool._Worker, "give", killing)
    assert work([0, 1, 2], lambda item, report: item) == {0: 0, 1: 1, 2: 2}
    assert len(started) > 2


def test_where_no_worker_can_start_the_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PROGRAM", "raise SystemExit(7)")
    found = work([0, 1, 2], lambda item, report: item)
    words = "ended with exit status 7"
    assert set(found.values()) == {Failed(f"lost 2 worker processes: {words} and {words}")}


def test_a_lost_worker_is_noticed_though_what_it_forked_holds_the_pipe(tmp_path: Path) -> None:
    def forking(item: int, report: Report) -> int:
        if once(tmp_path / "forked"):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    begun = time.monotonic()
    assert work([0, 1], forking) == {0: 0, 1: 1}
    assert time.monotonic() - begun < 20


class OddError(Exception):
    """Cannot be read again from its pickle."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__("odd")


@pytest.mark.parametrize(
    ("error", "kind"), [(lambda: ValueError("no"), ValueError), (lambda: OddError(1, 2), RuntimeError)]
)
def test_what_is_raised_in_a_worker_is_raised_here(
    error: Callable[[], Exception], kind: type[Exception], started: list[pool._Worker]
) -> None:
    def raising(item: int, report: Report) -> int:
        raise error()

    with pytest.raises(kind) as caught:
        work([0, 1], raising)
    notes = "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "in raising" in notes, "its traceback"
    assert all(worker.process.returncode is not None for worker in started)


def test_what_cannot_be_pickled_fails_alone() -> None:
    class Unreadable:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    items = [threading.Lock(), Unreadable(), 3]
    found = [result for _, result in side_by_side(lambda i, report: i, items, 1, lambda i, text: None, {})]
    assert found[2] == 3
    assert isinstance(found[0], Failed)
    assert isinstance(found[1], Failed)
    assert "cannot pickle '_thread.lock' object" in found[0].reason
    assert "ValueError: invalid literal for int()" in found[1].reason
    assert all("Measure it with --workers 1." in one.reason for one in found[:2] if isinstance(one, Failed))


def test_who_stops_listening_leaves_no_worker(started: list[pool._Worker]) -> None:
    results = side_by_side(lambda i, report: time.sleep(60 * i), [0, 1, 2], 2, lambda i, text: None, {})
    assert next(results) == (0, None)  # type: ignore[comparison-overlap]
    results.close()  # type: ignore[attr-defined]
    assert [worker.process.returncode for worker in started] == [-signal.SIGKILL] * 2


def test_ctrl_c_never_reaches_a_worker() -> None:
    def interrupted(item: int, report: Report) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "went on"

    assert work([0], interrupted, workers=1) == {0: "went on"}


@pytest.mark.parametrize(
    ("status", "words"),
    [(1, "ended with exit status 1"), (-11, "killed by SIGSEGV"), (-99, "killed by signal 99")],
)
def test_how_a_process_ended(status: int, words: str) -> None:
    assert ending(status) == words


def test_a_worker_leaves_with_a_parent_that_was_killed() -> None:
    worker = (
        "import os, time; from bnsuite.execute.pool import leave_with_parent; "
        "leave_with_parent(os.getppid()); print('ready', flush=True); time.sleep(3600)"
    )
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        parent.communicate(timeout=600)  # ends when the worker lets go of the pipe, too


def test_a_busy_worker_of_the_pool_leaves_with_its_parent() -> None:
    program = """
import os, time
from bnsuite.execute.pool import side_by_side

def busy(item, report):
    report(str(os.getpid()))
    time.sleep(3600)

list(side_by_side(busy, [0], 1, lambda item, text: print(text, flush=True), {}))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
        parent.communicate(timeout=600)
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"worker {worker} outlived its parent")


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    reached = []

    def interrupted() -> None:
        with interrupts_wait():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == ["the end"]
    with pytest.raises(KeyboardInterrupt):  # and after it comes as ever
        signal.raise_signal(signal.SIGINT)


def test_interrupts_are_the_main_threads_alone() -> None:
    reached = []

    def elsewhere() -> None:
        with interrupts_wait():
            reached.append("the end")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert reached == ["the end"]
