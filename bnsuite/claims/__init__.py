"""Claims about batch normalization, and the verdict of the records on each. No torch."""
