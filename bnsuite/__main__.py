"""The command line's entry: sets what must be set before torch is imported."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads on a busy machine cost 30-fold


def main() -> None:
    from bnsuite.cli import app

    app()


if __name__ == "__main__":
    main()
