"""The metric `review`: how much of the images somebody has to look at to find the objects; and its figure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final, final

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field
from scipy.special import expit

from micraframe.interfaces import Column, Metric, Statistics, quotient
from micraframe.metrics.detection import counted_points
from micraframe.metrics.masks_and_labels import undefined
from micraframe.parameters import Parameters
from micraframe.runtime.files import atomic
from micraframe.types import FloatArray, Prediction, Sample

LEVELS: Final = expit(np.linspace(-9, 9, 61)).astype(np.float32)
"""Thresholds of the map at which the curve is known: evenly spaced log-odds, as most of an image is nearly certain."""

_PIXELS, _FOUND = "review_pixels@", "review_found@"
_NAMES: Final = tuple(f"{name}{level}" for name in (_PIXELS, _FOUND) for level in range(len(LEVELS) + 1))


@final
class ReviewMetric(Metric["ReviewMetric.Params"]):
    """Recall against reviewed area: an expert looks at all pixels whose map reaches a threshold.

    With A(t) the share of the pixels, of all images together, at which the class's map reaches t, and R(t) the share of
    the true positions among these pixels, the curve is R against A for the thresholds `LEVELS`. A map that points at
    the structures finds nearly all of them in a small area, as in the MICRA-Net paper's figure 6: recall 0.9 in 3.13 %.

    The map counts, not the head's decisions. A class that was not explained has a map of 0. True positions are those of
    the metric `detection`: points, else the centroids of objects, else the centres of boxes.
    """

    class Params(Parameters):
        recall: float = Field(0.9, gt=0, le=1, description="Recall that is to be reached.")
        area: float = Field(0.05, gt=0, le=1, description="Share of the pixels that somebody has time to look at.")

    def columns(self) -> tuple[Column, ...]:
        """Return the area of a recall, the recall of an area, and the area under the curve."""
        statistics, every = (_PIXELS, _FOUND), "of all images together, highest values of the map first"
        return (
            Column(
                "reviewed_area",
                f"the share of the pixels to look at, {every}, until {self.params.recall:.3g} of the true positions "
                "are found",
                higher_is_better=False,
                pooled=statistics,
            ),
            Column(
                "recall_of_reviewed",
                f"the share of the true positions in the first {self.params.area:.3g} of the pixels, {every}",
                pooled=statistics,
            ),
            Column(
                "review_auc",
                f"the area under recall against the share of the pixels looked at, {every}; 0.5 is chance",
                pooled=statistics,
            ),
        )

    def measure(self, prediction: Prediction, truth: Sample) -> Statistics:
        """Return the pixels and the true positions between every two thresholds of one image.

        `review_pixels@0` and `review_found@0` count those below the first threshold, and so on. All are NaN if the true
        positions are unknown, or maps were not kept, as in predictions that are read from files (a table of points
        gives images the size of a pixel).

        Raises:
            DataError: If truth and prediction do not have the same classes.
        """
        nothing = (np.zeros((0, 3), np.float32),) * len(prediction.present)
        sides = counted_points(dataclasses.replace(prediction, points=nothing), truth)
        size = truth.image.shape[1:]
        if sides is None or prediction.scores.size != size or size == (1, 1):
            return undefined(_NAMES, prediction)
        counted, maps = truth.counted, prediction.scores.all_maps()
        places = [tuple(np.clip(np.rint(points.T).astype(int), 0, np.array(size)[:, None] - 1)) for points in sides[0]]
        pixels = [_histogram(values[counted]) for values in maps]
        found = [_histogram(values[place]) for values, place in zip(maps, places, strict=True)]
        return dict(zip(_NAMES, np.concatenate([np.transpose(pixels), np.transpose(found)]), strict=True))

    def reduce(self, statistics: Statistics) -> Statistics:
        """Return the three numbers of the curve of all images, for each class; NaN without a true position."""
        pixels, found = (
            np.array([np.nansum(statistics[name], axis=0) for name in _NAMES if name.startswith(part)])
            for part in (_PIXELS, _FOUND)
        )
        area, recall = curve(pixels, found)
        known = ~np.isnan(recall).any(axis=0)
        enough, affordable = recall >= self.params.recall - 1e-9, area <= self.params.area + 1e-9
        return {
            "reviewed_area": np.where(known, np.where(enough, area, 1.0).min(axis=0), np.nan),
            "recall_of_reviewed": np.where(known, np.where(affordable, recall, 0.0).max(axis=0), np.nan),
            "review_auc": np.where(known, np.trapezoid(recall, area, axis=0), np.nan),
        }


def curve(
    pixels: npt.NDArray[np.float64], found: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the reviewed share of the pixels and the recall, from nothing reviewed to everything, each (T + 2, K).

    Args:
        pixels: (T + 1, K): pixels between every two of T thresholds, lowest first.
        found: (T + 1, K): true positions there.

    Returns:
        Both rise from 0 to 1; NaN for a class without pixels or true positions.
    """
    sums = (np.cumsum(np.pad(counts[::-1], ((1, 0), (0, 0))), axis=0) for counts in (pixels, found))
    area, recall = (quotient(counts, np.broadcast_to(counts[-1], counts.shape)) for counts in sums)
    return area, recall


def review_curves(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the curve of every trained model of a study, over all its test images.

    Args:
        rows: A study's `rows.csv`.

    Returns:
        Columns dataset, class, method, annotator, seed, area, recall; a curve's lines are in the order of the area.
    """
    names = ["dataset", "class", "method", "annotator", "seed"]
    counts = (
        rows.filter((pl.col("thresholds") == "fixed") & pl.col("metric").is_in(_NAMES))
        .group_by([*names, "metric"], maintain_order=True)
        .agg(pl.col("value").fill_nan(0).sum())
    )
    found = []
    for key, part in counts.group_by(names, maintain_order=True):
        sums = dict(zip(part["metric"], part["value"], strict=True))
        table = np.array([sums.get(name, 0.0) for name in _NAMES]).reshape(2, -1, 1)
        area, recall = curve(table[0], table[1])
        numbers = {"area": area[:, 0], "recall": recall[:, 0]}
        found.append(
            pl.DataFrame(numbers).select(
                *(pl.lit(value).alias(n) for n, value in zip(names, key, strict=True)), pl.all()
            )
        )
    return pl.concat(found) if found else pl.DataFrame(schema=[*names, "area", "recall"])


def draw_review(rows: pl.DataFrame, path: Path) -> None:
    """Draw recall against reviewed area as SVG: a panel for each dataset and class, a line for each trained model.

    Models of one method have one colour. Their thresholds differ, so curves are not pooled. A dotted line marks
    a recall of 0.9.

    Args:
        rows: A study's `rows.csv`, measured with the metric `review`.
        path: The file to write.
    """
    import matplotlib as mpl  # not where the metric is only measured
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    panels = review_curves(rows).partition_by("dataset", "class", maintain_order=True)
    with mpl.rc_context({"svg.hashsalt": "review", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.0 * max(len(panels), 1), 4.0), layout="constrained")
        for axis, panel in zip(figure.subplots(1, max(len(panels), 1), squeeze=False)[0], panels, strict=False):
            for number, method in enumerate(panel.partition_by("method", "annotator", maintain_order=True)):
                label: str | None = f"{method['method'][0]} ({method['annotator'][0]})"
                for line in method.partition_by("seed", maintain_order=True):
                    axis.plot(line["area"], line["recall"], f"C{number % 10}", linewidth=1.2, label=label)
                    label = None  # once in the legend
            axis.axhline(0.9, color="#888888", linewidth=0.7, linestyle=":")
            # Linear near 0, so that the curve begins at its first point.
            axis.set_xscale("symlog", linthresh=1e-3)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
            axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="share of the pixels looked at", ylabel="recall")
            axis.set_title(f"{panel['dataset'][0]}: {panel['class'][0]}", fontsize=10)
            axis.legend(frameon=False, fontsize=8, loc="lower right")
        with atomic(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _histogram(values: FloatArray) -> npt.NDArray[np.float64]:
    """Return how many values lie below the first level, between every two levels, and at or above the last."""
    return np.bincount(np.searchsorted(LEVELS, values, side="right"), minlength=len(LEVELS) + 1).astype(np.float64)
