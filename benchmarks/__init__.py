"""Benchmarks that asv runs over commits: ranked tasks, and speed and memory of the engine.

`micro/` and `peers/` are not packages, since asv imports every package below this one.
"""

import os

# Before torch is imported: spinning threads on a busy machine cost 30-fold.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
