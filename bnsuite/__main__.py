"""The command line's entry: sets what must be set before torch is imported."""

import contextlib
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads on a busy machine cost 30-fold


def main() -> None:
    """Run the command line; what the system refuses, such as a full standard output, is one line."""
    from bnsuite.cli import app

    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # what is still buffered cannot be written at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with contextlib.suppress(OSError):
            _explain(error)
        sys.exit(2)


def _explain(error: OSError) -> None:
    from bnsuite.text import clipped

    what = clipped(str(error.filename), 80) if error.filename is not None else "standard output"
    reason = error.strerror or type(error).__name__
    print(f"bnsuite: {what}: {reason}. Give another path, or free what is full.", file=sys.stderr)


if __name__ == "__main__":
    main()
