"""Combiners: from the maps of all layers to one map per class."""
