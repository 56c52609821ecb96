"""The annotator who sets a point in every object."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, final

import numpy as np
from pydantic import Field

from micraframe.annotators.costs import Pricing
from micraframe.annotators.randomness import generator
from micraframe.interfaces import Annotator, Parameters
from micraframe.objects import centroids, inner_points, objects_of
from micraframe.types import Annotation, Cost, FloatArray, IntArray, Sample


@final
class Points(Annotator):
    """Sets one point in every object; one decision for each."""

    class Params(Parameters):
        place: Literal["inside", "centroid", "random"] = Field(
            "inside",
            description="inside: the object's pixel nearest to its centre of mass; centroid: the centre of mass, which "
            "may be outside; random: any of its pixels.",
        )
        cost: Pricing = Field(Pricing(), description="What it costs.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def annotate(self, sample: Sample, seed: int) -> tuple[Sample, Cost]:
        """Return the sample with its labels and points, and what they cost.

        Raises:
            DataError: If the sample has neither masks nor instances.
        """
        objects = objects_of(sample)
        if self.params.place == "random":
            points = random_points(objects, generator(seed, sample.id))
        else:
            points = (inner_points if self.params.place == "inside" else centroids)(objects)
        set_ = sum(map(len, points))
        return replace(sample.keep({Annotation.LABELS}), points=points), self.params.cost.cost("point", set_, set_)


def random_points(instances: IntArray, rng: np.random.Generator) -> tuple[FloatArray, ...]:
    """Return per class, for each object, one of its pixels, float32 (N, 2): (y, x)."""
    points = []
    for labels in instances:
        pixels = np.argwhere(labels > 0)
        shuffled = rng.permutation(pixels)
        _, first = np.unique(labels[tuple(shuffled.T)], return_index=True)
        points.append(shuffled[first].astype(np.float32))
    return tuple(points)
