"""One direction only: which room may import which, and who may import torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bnsuite

PACKAGE = Path(bnsuite.__file__).parent
FLOOR = {"records": set[str](), "text": set[str](), "norms": set[str]()}
MAY_IMPORT: dict[str, set[str]] = {
    **FLOOR,
    "names": {"text"},
    "format": {"records", "text"},
    "statistics": {"records"},
    "settings": {"text"},
    "profiles": {"names", "records"},
    "protocol": {"records"},
    "tables": {"records"},
    "engine": {"protocol"},
    "specs": {"protocol", "records"},
    "audit": {"protocol", "records", "settings", "specs", "statistics", "text"},
    "verification": {"records", "statistics"},
    "ranking": {"format", "records", "specs", "statistics", "verification"},
    "claims": {"format", "ranking", "records", "statistics"},
    "board": {"audit", "claims", "format", "ranking", "records", "specs", "statistics", "text"},
    "datasets": {"names", "records", "text"},
    "activations": {"names"},
    "theory": {"activations", "names"},
    "schemes": {"names", "norms", "records"},
    "networks": {"engine", "schemes"},
    "facets": {"engine", "networks", "norms", "records", "schemes"},
    "tasks": {
        *("activations", "datasets", "engine", "names", "networks", "norms", "protocol", "records"),
        *("schemes", "settings", "specs", "statistics", "theory"),
    },
    "execute": {
        *("", "datasets", "engine", "facets", "names", "networks", "profiles", "records", "schemes"),
        *("settings", "specs", "tasks", "verification"),
    },
    "submission": {
        *("", "audit", "datasets", "engine", "execute", "facets", "networks", "norms", "profiles"),
        *("records", "schemes", "specs", "statistics", "tasks", "text", "verification"),
    },
    "instruments": {"engine", "names", "protocol", "records"},
    "calibration": {
        *("datasets", "engine", "execute", "names", "networks", "norms", "protocol", "records", "schemes"),
        *("statistics", "tasks", "theory"),
    },
    "__main__": {"cli", "text"},
}
"""Room → the other rooms that it may import; "" is the package itself (its version)."""

NO_TORCH = [
    *("records", "text", "names", "format", "statistics", "settings", "profiles", "protocol", "specs"),
    *("audit", "verification", "ranking", "claims", "board", "tables", "cli", "execute.pool", "__main__", ""),
]
"""Rooms, and modules of other rooms, that import no torch when they are imported."""


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.AST, lazy: bool = True) -> set[str]:
    """Full names of what a module imports, TYPE_CHECKING blocks apart, and lazy ones if wanted."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not lazy:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            module = str(node.module)
            rooms = {f"bnsuite.{alias.name}" for alias in node.names if alias.name in MAY_IMPORT}
            found |= (rooms or {module}) if module == "bnsuite" else {module}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
        found |= imports(node, lazy)
    return found


def room(module: str) -> str:
    return module.partition(".")[0]


def ours(names: set[str]) -> set[str]:
    """The rooms among imported names; "" for the package itself."""
    return {room(name.removeprefix("bnsuite").lstrip(".")) for name in names if room(name) == "bnsuite"}


MODULES = modules()


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in MODULES} == {*MAY_IMPORT, "cli", ""}


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) not in ("cli", "")])
def test_a_room_imports_only_what_stands_below_it(name: str) -> None:
    own = room(name)
    assert ours(imports(MODULES[name])) - {own} <= MAY_IMPORT[own]


def test_nothing_below_imports_the_command_line() -> None:
    above = {name: ours(imports(tree)) & {"cli", "__main__"} for name, tree in MODULES.items()}
    assert {room(name) for name, found in above.items() if found} == {"__main__", "cli"}
    assert set().union(*(found for name, found in above.items() if room(name) == "cli")) == {"cli"}


def test_the_table_has_no_circle() -> None:
    def reach(start: str, seen: frozenset[str] = frozenset()) -> None:
        assert start not in seen, f"a circle through {start}"
        for below in MAY_IMPORT.get(start, ()):
            reach(below, seen | {start})

    for start in MAY_IMPORT:
        reach(start)


def torch_free(module: str) -> bool:
    """Whether a module is named in `NO_TORCH`, or its room is; a room by itself where it is empty."""
    return bool({module, room(module)} & {*NO_TORCH})


@pytest.mark.parametrize("name", [name for name in MODULES if torch_free(name)])
def test_no_torch_on_import(name: str) -> None:
    found = imports(MODULES[name], lazy=False)
    assert not {n for n in found if room(n) in ("torch", "hessian_eigenthings", "sklearn")}
    ours_found = {n.removeprefix("bnsuite").lstrip(".") for n in found if room(n) == "bnsuite"}
    assert {n for n in ours_found if not torch_free(n)} == set()


def test_the_reader_of_imports_reads() -> None:
    source = """
import torch.nn
if TYPE_CHECKING:
    import bnsuite.cli
def f():
    from bnsuite.tasks import TASKS
    import_module("bnsuite.board")
"""
    assert imports(ast.parse(source)) == {"torch.nn", "bnsuite.tasks", "bnsuite.board"}
    assert imports(ast.parse(source), lazy=False) == {"torch.nn"}
    assert ours({"bnsuite", "bnsuite.tasks", "torch"}) == {"", "tasks"}


PROGRAMS = {
    "the package": "import bnsuite; bnsuite.__version__; dir(bnsuite)",
    "records": "import bnsuite.records",
    "the audit": "import bnsuite.audit",
    "profiles": "from bnsuite.profiles import *; [load_profile(n) for n in profile_names()]",
    "help": "from typer.testing import CliRunner; from bnsuite.cli import app; "
    "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
    "the board": "import pathlib, sys; from bnsuite.board.site import RecordFolder, build_site; "
    "build_site([RecordFolder(pathlib.Path(sys.argv[1]), 'local')], pathlib.Path(sys.argv[1] + '-site'))",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_no_torch_where_none_is_needed(program: str, tmp_path: Path) -> None:
    if "board" in program and "board.site" not in MODULES:
        pytest.skip("the board is not built yet")
    code = f"import sys\n{program}\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
