"""Instruments of the suite on a person's own model: one file per instrument, opened by `import bnsuite`."""
