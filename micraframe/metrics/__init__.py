"""Metrics: named numbers per image and class, NaN where they are undefined."""
