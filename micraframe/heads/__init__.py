"""Heads: from scores to classes, masks, instances or points."""
