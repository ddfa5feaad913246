"""Restart of a script in the environment of `bnsuite`'s workers."""

import os
import sys

from bnsuite.execute.pool import WORKER_ENVIRONMENT


def start_again_as_a_worker() -> None:
    """Restart this process in a worker's environment, since the allocator reads its settings at start."""
    missing = {name: value for name, value in WORKER_ENVIRONMENT.items() if name not in os.environ}
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | missing)
