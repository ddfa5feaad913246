"""Ranking: records → comparable tracks → rank intervals and composites → tables. No torch."""
