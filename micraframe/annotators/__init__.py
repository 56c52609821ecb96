"""Annotators: simulate weaker annotation from the full annotation of a sample."""
