"""Heads: what turns a score map into decisions, masks, objects or positions."""
