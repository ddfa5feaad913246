"""Control groups: which one is ours to divide, what is written into a new one; on a made-up tree of files."""

import os
import sys
from pathlib import Path

import pytest

from bnsuite.submission.control_groups import OWN, delegated_group, limited_group, ran_out_of_memory
from bnsuite.submission.conversation import MIB, Limits, OutOfMemoryError, SandboxError
from bnsuite.submission.sandbox import Sandbox, working_bwrap

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


class Tree:
    """A mounted hierarchy, and the folder of this process in /proc."""

    def __init__(self, tmp_path: Path, place: str, root: str = "/") -> None:
        self.mounted, self.process = tmp_path / "cgroup", tmp_path / "self"
        self.process.mkdir()
        (self.process / "cgroup").write_text(f"4:memory:/elsewhere\n0::{place}\n")
        (self.process / "mountinfo").write_text(
            "22 1 0:21 / /proc rw - proc proc rw\n"
            f"31 23 0:27 {root} {self.mounted} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
        )
        self.own = self.mounted / Path(place).relative_to(root)
        self.own.mkdir(parents=True)

    def group(self, path: Path, controllers: str, enabled: str, processes: str) -> None:
        (path / "cgroup.controllers").write_text(f"{controllers}\n")
        (path / "cgroup.subtree_control").write_text(f"{enabled}\n")
        (path / "cgroup.procs").write_text(processes)

    @property
    def found(self) -> Path | None:
        return delegated_group(self.process)


def test_a_group_of_this_process_alone_is_divided(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "/user.slice/run-1.scope")
    tree.group(tree.own, "cpu memory pids", "", f"{os.getpid()}\n")
    assert tree.found == tree.own
    assert (tree.own / OWN / "cgroup.procs").read_text() == "0"
    assert (tree.own / "cgroup.subtree_control").read_text() == "+memory +pids"


@pytest.mark.parametrize(
    ("controllers", "processes"),
    [("memory pids", f"1\n{os.getpid()}\n"), ("cpu pids", f"{os.getpid()}\n"), ("hugetlb", "")],
    ids=["of others", "without memory", "without both"],
)
def test_a_group_of_others_or_without_the_controllers_is_left_alone(
    tmp_path: Path, controllers: str, processes: str
) -> None:
    tree = Tree(tmp_path, "/user.slice/session-1.scope")
    tree.group(tree.own, controllers, "", processes)
    assert tree.found is None
    assert not (tree.own / OWN).exists()
    assert (tree.own / "cgroup.subtree_control").read_text() == "\n"


@pytest.mark.parametrize("enabled", ["memory pids", "cpu"])
def test_the_group_above_ours_serves_where_it_gives_controllers(tmp_path: Path, enabled: str) -> None:
    """Also where only a part of the hierarchy is mounted, as in a container."""
    tree = Tree(tmp_path, f"/box/{OWN}", root="/box")
    tree.group(tree.mounted, "cpu memory pids", enabled, "")
    assert tree.found == (tree.mounted if "memory" in enabled else None)


def test_no_hierarchy_of_version_2_is_no_group(tmp_path: Path) -> None:
    assert delegated_group(tmp_path) is None
    tree = Tree(tmp_path, "/x")
    (tree.process / "cgroup").write_text("4:memory:/elsewhere\n")
    assert tree.found is None
    (tree.process / "cgroup").write_text("0::/x\n")
    (tree.process / "mountinfo").write_text("22 1 0:21 / /proc rw - proc proc rw\n")
    assert tree.found is None


def test_a_group_is_limited_and_killed_at_its_end(tmp_path: Path) -> None:
    with limited_group(None, 1, 1) as none:
        assert none is None
    with limited_group(tmp_path, 4096, 16) as group:
        assert group is not None
        assert group.parent == tmp_path
        written = {path.name: path.read_text() for path in group.iterdir()}
        assert written == {
            "memory.max": "4096",
            "memory.swap.max": "0",
            "memory.oom.group": "1",
            "pids.max": "24",
        }
    assert (group / "cgroup.kill").read_text() == "1"


def test_an_empty_group_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a real group go with it; here there are none."""
    monkeypatch.setattr(Path, "write_text", lambda *words, **more: 0)
    with limited_group(tmp_path, 1, 1) as group:
        assert group is not None
        assert group.is_dir()
    assert not group.exists()


def test_what_runs_inside_joins_its_group_first(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise ValueError('ran')")
    sandbox = Sandbox(working_bwrap())
    sandbox.group = tmp_path / "groups"
    sandbox.group.mkdir()
    assert "ran" in sandbox.ask(tmp_path / "mine.py", {"ask": "describe"}, Limits(wall_s=600))["failed"]
    (group,) = sandbox.group.iterdir()
    assert (group / "cgroup.procs").read_text() == "0\n"
    assert not any("control group" in gap for gap in sandbox.gaps)
    sandbox.group = tmp_path / "none"
    with pytest.raises(SandboxError, match=r"no control group can be made for the process \(.*No such file"):
        sandbox.ask(tmp_path / "mine.py", {"ask": "describe"}, Limits(wall_s=600))


def test_an_end_for_memory_is_told_from_others(tmp_path: Path) -> None:
    """Here the file itself writes what the kernel would."""
    sandbox = Sandbox(None)
    sandbox.group = tmp_path / "groups"
    sandbox.group.mkdir()
    for kills, kind in ((0, SandboxError), (1, OutOfMemoryError)):
        events = f"'max 3\\noom_kill {kills}\\noom_group_kill 0\\n'"
        (tmp_path / "mine.py").write_text(
            "import os, pathlib\n"
            f"for group in pathlib.Path({str(sandbox.group)!r}).iterdir():\n"
            f"    (group / 'memory.events').write_text({events})\n"
            "os._exit(1)"
        )
        with pytest.raises(SandboxError) as caught:
            sandbox.ask(tmp_path / "mine.py", {"ask": "describe"}, Limits(wall_s=600))
        assert caught.type is kind
    assert not ran_out_of_memory(None)
    assert not ran_out_of_memory(tmp_path)


def test_a_real_group_counts_what_no_resident_size_does(tmp_path: Path) -> None:
    """Files in the sandbox's own room, of which a look at its processes sees nothing."""
    if delegated_group() is None or working_bwrap() is None:
        pytest.skip("no control group with a limit on memory is to be had, or no bubblewrap")
    limits = Limits(wall_s=600, memory=768 * MIB, file=512 * MIB)
    code = (
        "import time\nfor i in (1, 2):\n with open(f'/tmp/{i}', 'wb') as file:\n"
        "  for _ in range(400): file.write(bytes(1 << 20))\ntime.sleep(9)"
    )
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(OutOfMemoryError, match="needed more memory than 768 MiB"):
        Sandbox(working_bwrap()).ask(tmp_path / "mine.py", {"ask": "describe"}, limits)
