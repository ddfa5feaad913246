"""Claims: what was said about batch normalization, and the verdict of the records. No torch."""
