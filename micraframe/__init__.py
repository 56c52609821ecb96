"""How far do image-level labels take a microscopy segmentation, and what would full annotation buy?

micraframe makes MICRA-Net (Bilodeau et al., Nature Machine Intelligence 2022) a set of swappable parts: train a
classifier on "is the structure in this image", take the class activation map of every layer, combine the maps, and so
segment, count and detect; then compare that with methods that were given more annotation.

    import micraframe

    digits = micraframe.build("dataset", "modified-digits", size=96)
    method = micraframe.build("method", "micra-net")

Importing micraframe is cheap: torch and the rest are loaded when a component that needs them is built.
"""

from __future__ import annotations

from importlib import metadata

from micraframe.registry import build, catalog

__version__ = metadata.version("micraframe")
__all__ = ["__version__", "build", "catalog"]
