"""Simulates points."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, final

import numpy as np
from pydantic import Field

from micraframe.annotators.randomness import sample_generator
from micraframe.interfaces import Annotator
from micraframe.objects import centroids, inner_points, objects_of
from micraframe.parameters import Parameters
from micraframe.types import Annotation, FloatArray, IntArray, Sample, Work


@final
class Points(Annotator["Points.Params"]):
    """Places one point in every object; each point is one decision."""

    class Params(Parameters):
        place: Literal["inside", "centroid", "random"] = Field(
            "inside",
            description="inside: the object's pixel nearest to its centroid; centroid: the centroid itself, which may "
            "lie outside of the object; random: any of its pixels.",
        )

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Work]:
        """Return the sample with its labels and points.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        if self.params.place == "random":
            points = random_points(objects, sample_generator(seed, sample.id))
        else:
            points = (inner_points if self.params.place == "inside" else centroids)(objects)
        number = sum(map(len, points))
        return (
            replace(sample.keep({Annotation.LABELS}), points=points),
            Work("point", objects=number, decisions=number, judgements=len(points)),
        )


def random_points(instances: IntArray, rng: np.random.Generator) -> tuple[FloatArray, ...]:
    """Return per class one random pixel of each object, float32 (N, 2): (y, x)."""
    points = []
    for labels in instances:
        pixels = np.argwhere(labels > 0)
        shuffled = rng.permutation(pixels)
        _, first = np.unique(labels[tuple(shuffled.T)], return_index=True)
        points.append(shuffled[first].astype(np.float32))
    return tuple(points)
