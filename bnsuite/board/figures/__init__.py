"""Figures: record → Altair chart → SVG in the page."""
