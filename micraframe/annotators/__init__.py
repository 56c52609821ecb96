"""Annotators: simulated people who know the full annotation of a sample and write down less."""
