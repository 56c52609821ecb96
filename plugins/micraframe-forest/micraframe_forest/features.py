"""Pixel features: ilastik's filters at several scales.

For each channel I and each sigma, with G_s the Gaussian of standard deviation s:

    gaussian               G_sigma * I
    laplacian              trace of the Hessian of G_sigma * I
    gradient-magnitude     |gradient of G_sigma * I|
    difference-of-gaussians   G_sigma * I - G_(0.66 sigma) * I
    structure-tensor-1, -2    eigenvalues, larger first, of G_(sigma / 2) * (g g^T), g the gradient of G_sigma * I
    hessian-1, -2             eigenvalues, larger first, of the Hessian of G_sigma * I

Names, order and scales follow Berg et al., "ilastik: interactive machine learning for (bio)image analysis",
Nature Methods 16 (2019). As there, a sigma above 1 is reached by smoothing first and differentiating at 1. The widths
0.66 sigma and sigma / 2 grow with sigma here, while ilastik's stay those of sigma = 1.

Kernels are truncated at 3.5 sigma. The kernel of a derivative of order n is corrected to give n! for x^n and 0 for
polynomials of lower order, so that a flat image has no edges, however narrow the Gaussian. Images are mirrored about
their outermost pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from micraframe.types import FloatArray

FILTERS = (
    "gaussian",
    "laplacian",
    "gradient-magnitude",
    "difference-of-gaussians",
    "structure-tensor-1",
    "structure-tensor-2",
    "hessian-1",
    "hessian-2",
)
"""The filters, in the order of their responses."""

SIGMAS = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
"""ilastik's scales, in pixels."""

BAND_VALUES = 2**26
"""Feature values of 4 bytes that are in memory at a time."""


def names(channels: int, sigmas: Sequence[float] = SIGMAS) -> tuple[str, ...]:
    """Return the features' names, such as `laplacian 1.6`, or `channel 2: laplacian 1.6` with several channels."""
    prefixes = [f"channel {channel}: " if channels > 1 else "" for channel in range(channels)]
    return tuple(f"{prefix}{name} {sigma:g}" for prefix in prefixes for sigma in sigmas for name in FILTERS)


def features(image: FloatArray, sigmas: Sequence[float] = SIGMAS) -> FloatArray:
    """Return the features of every pixel.

    Args:
        image: float32 (C, H, W), of any size.
        sigmas: Scales in pixels.

    Returns:
        float32 (F, H, W), where F = C x len(sigmas) x 8, in the order of `names`.
    """
    channels, *size = image.shape
    found = np.empty((channels, len(sigmas), len(FILTERS), *size), np.float32)
    for plane, of_channel in zip(image, found, strict=True):
        for sigma, responses in zip(sigmas, of_channel, strict=True):
            _filter(np.ascontiguousarray(plane), sigma, responses)
    return found.reshape(-1, *size)


def bands(image: FloatArray, sigmas: Sequence[float] = SIGMAS, values: int = BAND_VALUES) -> Iterator[FloatArray]:
    """Yield the features of bands of rows, from the top, in memory that does not grow with the image's height.

    Args:
        image: float32 (C, H, W).
        sigmas: Scales in pixels.
        values: Approximate number of feature values in memory at a time.

    Yields:
        float32 (F, h, W): what `features` gives for the band.
    """
    channels, height, width = image.shape
    halo = reach(sigmas)
    count = channels * len(sigmas) * len(FILTERS)
    rows = max(values // (count * width) - 2 * halo, halo)
    for top in range(0, height, rows):
        above, below = max(top - halo, 0), min(top + rows + halo, height)
        # Inside the image, the halo keeps the mirrored border out of the band.
        yield features(image[:, above:below], sigmas)[:, top - above : min(top + rows, height) - above]


def reach(sigmas: Sequence[float]) -> int:
    """Return the largest distance, in pixels, between a pixel and one that its features depend on."""
    return max(_radius(_before(sigma)) + _radius(min(sigma, 1)) + _radius(sigma / 2) for sigma in sigmas)


def kernel(sigma: float, order: int) -> FloatArray:
    """Return the Gaussian's derivative of an order 0 to 2, float32 (2 r + 1,), for correlation."""
    radius = _radius(sigma)
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    values = np.exp(-0.5 * (x / sigma) ** 2)
    values /= values.sum()
    if order:
        values *= x if order == 1 else x**2 / sigma**2 - 1
        values -= values.mean()
        values *= math.factorial(order) / (values * x**order).sum()
    return values.astype(np.float32)


def _filter(plane: FloatArray, sigma: float, responses: FloatArray) -> None:
    """Write the eight responses of a channel (H, W) at one scale to (8, H, W)."""
    fine = min(sigma, 1.0)
    flat, first, second = (kernel(fine, order) for order in range(3))
    base = smooth(plane, _before(sigma))
    gaussian = _correlate(base, flat, flat)
    yy, xx, xy = _correlate(base, second, flat), _correlate(base, flat, second), _correlate(base, first, first)
    y, x = _correlate(base, first, flat), _correlate(base, flat, first)
    squares = y * y, x * x
    responses[0] = gaussian
    np.add(yy, xx, out=responses[1])
    np.sqrt(squares[0] + squares[1], out=responses[2])
    np.subtract(gaussian, smooth(plane, 0.66 * sigma), out=responses[3])
    tyy, txx, txy = (smooth(product, sigma / 2) for product in (*squares, y * x))
    _eigenvalues(tyy, txx, txy, responses[4:6])
    _eigenvalues(yy, xx, xy, responses[6:8])


def smooth(plane: FloatArray, sigma: float) -> FloatArray:
    """Return an image (H, W) smoothed by a Gaussian; sigma 0 leaves it as it is."""
    if not sigma:
        return plane
    gaussian = kernel(sigma, 0)
    return _correlate(plane, gaussian, gaussian)


def _before(sigma: float) -> float:
    """Return the sigma for smoothing before differentiating at 1 pixel: variances of Gaussians add up."""
    return math.sqrt(max(sigma**2 - 1, 0))


def _radius(sigma: float) -> int:
    return max(1, round(3.5 * sigma)) if sigma else 0


def _correlate(plane: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """Correlate an image (H, W) with one kernel along y and another along x."""
    return np.asarray(cv2.sepFilter2D(plane, cv2.CV_32F, columns, rows, borderType=cv2.BORDER_REFLECT_101))


def _eigenvalues(yy: FloatArray, xx: FloatArray, xy: FloatArray, out: npt.NDArray[np.float32]) -> None:
    """Write the eigenvalues, larger first, of symmetric 2 x 2 matrices (H, W) to (2, H, W)."""
    middle = (yy + xx) * np.float32(0.5)
    half = (yy - xx) * np.float32(0.5)
    # Not cv2.magnitude: its last bit depends on the memory alignment of its result.
    spread = np.sqrt(half * half + xy * xy)
    np.add(middle, spread, out=out[0])
    np.subtract(middle, spread, out=out[1])
