"""Extractors: where in the image a classifier's decisions come from."""
