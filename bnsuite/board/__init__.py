"""Board: static pages made from records alone; imports no torch, no scheme and no task."""
