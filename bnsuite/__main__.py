"""Entry point of the command line: sets what must be set before torch is imported."""

import contextlib
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads on a busy machine cost 30-fold


def main() -> None:
    """Run the command line; prints one line if the system refuses something, such as a full disk."""
    from bnsuite.cli import app

    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # so that buffered output is not written at exit again
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
