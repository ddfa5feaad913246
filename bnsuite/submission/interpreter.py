"""Parts of this interpreter that the sandbox shows: its files, the package, the environment."""

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import bnsuite
from bnsuite.execute.pool import WORKER_ENVIRONMENT

_KEPT = ("LANG", "LC_ALL", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", *WORKER_ENVIRONMENT)


def python_files() -> list[str]:
    """Files and folders that this interpreter and this package are read from."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    prefixes.add(str(Path(sys.executable).resolve().parent.parent))
    roots = {Path(prefix, part) for prefix in prefixes for part in ("bin", "lib", "lib64", "pyvenv.cfg")}
    roots |= {Path(bnsuite.__file__).parent, *_site_packages()}  # not all of a prefix: it may be a home
    outer = [root for root in roots if root.exists() and not roots & {*root.parents}]
    return sorted(str(root) for root in outer if not root.is_relative_to("/usr"))


def _site_packages() -> list[Path]:
    """Folders in which packages are installed, including the user's own."""
    return [Path(place) for place in sys.path if place.endswith(("site-packages", "dist-packages"))]


def open_to_all() -> bool:
    """Tell whether a user without an account could read this interpreter and package."""
    places = map(Path, python_files())
    return all(folder.stat().st_mode & stat.S_IXOTH for place in places for folder in (place, *place.parents))


def sandbox_environment() -> Mapping[str, str]:
    """Environment variables that a sandboxed process needs; none names a user or holds a token."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    places = [Path(bnsuite.__file__).parent.parent, *_site_packages()]
    fixed = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(map(str, places))}
    fixed["PYTHONDONTWRITEBYTECODE"] = "1"
    return {**WORKER_ENVIRONMENT, **kept, **fixed}
