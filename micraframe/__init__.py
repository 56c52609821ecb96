"""Compare microscopy segmentation from image-level labels with segmentation from full annotation.

micraframe splits MICRA-Net (Bilodeau et al., Nature Machine Intelligence 2022) into interchangeable parts: train a
classifier to tell whether a structure is in an image, compute the class activation map of every layer, and combine the
maps to segment, count and detect. Then compare the result with methods that learn from stronger annotation.

    import micraframe

    digits = micraframe.build("dataset", "modified-digits", size=96)
    pipeline = micraframe.load("runs/nuclei/model", combiner="guided")

Importing micraframe is cheap: torch and other large packages are imported when they are first needed.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from micraframe.registry import build, catalog

if TYPE_CHECKING:
    from pathlib import Path

    from micraframe.config import Choice
    from micraframe.pipeline import Pipeline

__version__ = metadata.version("micraframe")
__all__ = ["__version__", "build", "catalog", "load"]


def load(folder: Path | str, device: str = "auto", *, head: Choice | str | None = None, **overrides: Any) -> Pipeline:
    """Read a saved model with its head, thresholds and tiling, unless they are overridden by name.

    Args:
        folder: A saved model's folder.
        device: `auto` (a GPU when there is one), or a torch device.
        head: Another head: its name, or name and parameters.
        **overrides: `tiling`, and parameters of the method that do not influence what it learned, such as `combiner`.

    Raises:
        ModelError: If the folder is not a saved model.
        ConfigError: If a parameter does not exist, or determines what was learned.
    """
    from micraframe import pipeline

    return pipeline.load(folder, device, head=head, **overrides)
