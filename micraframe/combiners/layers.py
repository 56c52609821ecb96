"""Shared by the combiners: the selection of layers, the coarse map, and scaling to [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from micraframe.errors import ConfigError
from micraframe.types import FloatArray, Layer, Maps, Status
from micraframe.upsampling import Interpolation, upsample

Array = npt.NDArray[Any]

Selection = Literal["all", "all-but-deepest"] | tuple[str, ...]
"""Layers: all, all but the deepest, or by name."""

Scale = Literal["min-max", "none"]
"""How each layer's map is scaled before they are combined: `min-max` maps its range to [0, 1]."""


def select_layers(layers: Sequence[Layer], selection: Selection) -> list[int]:
    """Return the indices of the selected layers, shallow to deep.

    Raises:
        ConfigError: If a named layer does not exist, one is named twice, or none is left.
    """
    names = [layer.name for layer in layers]
    if isinstance(selection, str):
        count = len(names) - (selection == "all-but-deepest")
        if not count:
            raise ConfigError(f"expected several layers, to leave out the deepest, got only {names}; write layers: all")
        return list(range(count))
    for name in selection:
        if name not in names:
            raise ConfigError(f"expected layers from {', '.join(names)}, got {name!r}")
    if not selection or len(set(selection)) < len(selection):
        raise ConfigError(f"expected distinct layers from {', '.join(names)}, got {list(selection)}")
    return sorted(names.index(name) for name in selection)


def coarse_map(maps: Maps, interpolation: Interpolation = "nearest") -> FloatArray:
    """Return max(0, D) / max D, float32 (M, H, W), for the deepest layer's map D; 0 if D has no positive value."""
    deepest = np.maximum(maps.maps[-1], 0)
    top = deepest.max((1, 2), keepdims=True)
    relative = np.divide(deepest, top, out=np.zeros_like(deepest), where=top > 0)
    return upsample(relative, maps.size, maps.layers[-1].stride, interpolation)


def sign_status(values: FloatArray) -> Status:
    """Return `ok` if anything in a map is positive, `empty` if all of it is 0, else `negative`."""
    if (values > 0).any():
        return "ok"
    return "negative" if values.any() else "empty"


def refined_status(status: Sequence[Status], contrast: npt.NDArray[np.bool_]) -> tuple[Status, ...]:
    """Return the statuses of refined maps: as before, but `constant` where an `ok` map has lost its contrast.

    Args:
        status: Of each of M maps before.
        contrast: bool (M,): whether the refined maps have contrast.
    """
    return tuple(
        "constant" if before == "ok" and not has_contrast else before
        for before, has_contrast in zip(status, contrast, strict=True)
    )


def stretch(values: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Scale each map (M, h, w) to [0, 1]: (x - min) / (max - min).

    Returns:
        The scaled maps, 0 without contrast; and bool (M,): whether there is contrast.
    """
    low, high = values.min((1, 2)), values.max((1, 2))
    varies = differs(low, high)
    span = np.where(varies, high - low, np.inf).astype(values.dtype)
    stretched = values - low[:, None, None]
    stretched /= span[:, None, None]
    return stretched, varies


def differs(low: Array, high: Array) -> npt.NDArray[np.bool_]:
    """Return whether minima and maxima differ by more than rounding in float32, which must not be amplified."""
    eps = np.finfo(np.float32).eps
    return np.asarray(high - low > 4 * eps * np.maximum(np.abs(low), np.abs(high)))
