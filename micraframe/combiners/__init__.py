"""Combiners: from the maps of all layers to one score map per class."""
