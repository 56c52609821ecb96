"""What all combiners share: which layers, the coarse map, and scores that reach from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from micraframe.errors import ConfigError, DataError
from micraframe.types import FloatArray, Layer, Maps
from micraframe.upsampling import Interpolation, upsample

Array = npt.NDArray[Any]

Selection = Literal["all", "all-but-deepest"] | tuple[str, ...]
"""Layers: all, all but the deepest, or by name."""

Scale = Literal["min-max", "none"]
"""What is done to the map of each layer before they are combined: `min-max` brings it to [0, 1]."""


def select_layers(layers: Sequence[Layer], selection: Selection) -> list[int]:
    """Return the indices of the selected layers, shallow to deep.

    Raises:
        ConfigError: If there is no layer of a name, or none is left.
    """
    names = [layer.name for layer in layers]
    if isinstance(selection, str):
        count = len(names) - (selection == "all-but-deepest")
        if not count:
            raise ConfigError(f"all but the deepest of the layers {names} are none; write layers: all")
        return list(range(count))
    for name in selection:
        if name not in names:
            raise ConfigError(f"there is no layer {name!r}; the layers are {', '.join(names)}")
    if not selection or len(set(selection)) < len(selection):
        raise ConfigError(f"layers {list(selection)}: at least one is wanted, each once; there are {', '.join(names)}")
    return sorted(names.index(name) for name in selection)


def check_size(maps: Maps, image: FloatArray) -> None:
    """Raise `DataError` unless the image, (C, H, W), is of the maps' size."""
    if image.ndim != 3 or image.shape[1:] != maps.size:
        raise DataError(f"the image has shape {image.shape}; (channels, {maps.size[0]}, {maps.size[1]}) is wanted")


def coarse_map(maps: Maps, interpolation: Interpolation = "nearest") -> FloatArray:
    """Return max(0, D) / max D, float32 (K, H, W), for the deepest layer's map D; 0 where D has nothing positive."""
    deepest = np.maximum(maps.maps[-1], 0)
    top = deepest.max((1, 2), keepdims=True)
    relative = np.divide(deepest, top, out=np.zeros_like(deepest), where=top > 0)
    return upsample(relative, maps.size, maps.layers[-1].stride, interpolation)


def stretch(values: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Bring each map (K, h, w) to [0, 1]: (x - min) / (max - min).

    Returns:
        The stretched maps, 0 where there is no contrast, and bool (K,): is there contrast.
    """
    low, high = values.min((1, 2)), values.max((1, 2))
    varies = differs(low, high)
    span = np.where(varies, high - low, np.inf).astype(values.dtype)
    stretched = values - low[:, None, None]
    stretched /= span[:, None, None]
    return stretched, varies


def differs(low: Array, high: Array) -> npt.NDArray[np.bool_]:
    """Say whether minima and maxima differ by more than rounding in float32, which stretched would be drawn large."""
    eps = np.finfo(np.float32).eps
    return np.asarray(high - low > 4 * eps * np.maximum(np.abs(low), np.abs(high)))
