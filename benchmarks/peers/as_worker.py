"""A process as `bnsuite` starts its workers."""

import os
import sys

from bnsuite.execute.pool import WORKER_ENVIRONMENT


def start_again_as_a_worker() -> None:
    """The allocator reads its settings when a process starts, so that scripts need one of their own."""
    missing = {name: value for name, value in WORKER_ENVIRONMENT.items() if name not in os.environ}
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | missing)
