"""Metrics: statistics per image and class, NaN where undefined, and how they reduce to numbers."""
