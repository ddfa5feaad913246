"""The board: from records alone to static pages. No torch, no scheme and no task is imported in here."""
