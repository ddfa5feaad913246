"""What asv follows over commits: the ranked tasks (`ranked`) and the engine's speed and memory (`engine`).

`micro/` and `peers/` are no packages, since asv imports every package below this one.
"""

import os

# Before torch is imported: spinning threads on a busy machine cost 30-fold.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
