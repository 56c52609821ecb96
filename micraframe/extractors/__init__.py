"""Extractors: which positions of an image a classifier's decisions come from."""
