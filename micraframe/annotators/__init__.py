"""Annotators: each knows the truth and writes down less of it, at a price."""
