"""Set what must be set before torch is imported: spinning threads on a busy machine cost 30-fold."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
