"""What the kit checks of a metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from micraframe.interfaces import Column, Metric, Statistics
from micraframe.metrics.reduction import stack
from micraframe.parameters import Parameters
from micraframe.testing.inputs import full_samples
from micraframe.testing.observed import COPY, Call, ObservedTrial, observe
from micraframe.testing.report import Check, basis, require, require_type
from micraframe.types import Annotation, Prediction, Sample, Scores


class MetricTrial(ObservedTrial):
    """Measures right and wrong predictions, with and without masks, against full and weaker annotation."""

    component: Metric[Parameters]
    kind: ClassVar[str] = "metric"

    @cached_property
    def calls(self) -> list[Call]:
        """Calls of `measure`."""
        return [observe(self.component.measure, *pair, case=case) for case, *pair in _pairs()]

    @cached_property
    def measured(self) -> list[Statistics]:
        """The statistics of the images for which they are valid."""
        return [call.result for call in self.calls if call.error is None and not _fault(call.result, "measure")]

    @cached_property
    def reductions(self) -> list[Call]:
        """Calls of `reduce`, of no image, of one and of all."""
        names = {name: np.zeros((0, 2)) for each in self.measured for name in each}
        return [
            observe(self.component.reduce, {**names, **stack(self.measured[:count], 2)})
            for count in (0, 1, len(self.measured))
        ]

    @basis
    def describes_columns(self) -> None:
        """`columns` returns one or more `Column`s with distinct names, definitions and ranges, the same each time."""
        columns = self.component.columns()
        require_type(columns, tuple, "what columns returns", "return (Column(name, definition), ...)")
        require(columns, "expected one or more columns, got none; return (Column(name, definition), ...)")
        for column in columns:
            require_type(column, Column, "a column", "return Column(name, definition)")
            described = column.definition and column.range[0] < column.range[1]
            require(described, f"expected a definition and a range of {column.name!r}, got {column}; add them")
        names = [column.name for column in columns]
        require(len(set(names)) == len(names), f"expected distinct names of columns, got {names}; rename one")
        require(
            self.component.columns() == columns, "expected the same columns each time, got others; use parameters only"
        )

    @basis
    def returns_statistics(self) -> None:
        """`measure` returns arrays of floats by name, one number per class, finite or NaN."""
        for call in self.cases(""):
            fault = _fault(call.returned(), "measure")
            require(not fault, fault)

    @Check
    def less_annotation(self) -> None:
        """Without masks, or with labels alone, what cannot be measured is NaN, not an error."""
        for call in self.cases("less annotation"):
            fault = _fault(call.returned(), "measure")
            require(not fault, fault)

    @basis
    def statistics_of_columns(self) -> None:
        """Every column has the statistics that it is computed from."""
        needed = {name for each in self.component.columns() for name in each.statistics if not name.endswith("@")}
        for found in self.measured:
            missing = sorted(needed - found.keys())
            require(not missing, f"expected statistics of all columns, got none of {missing}; return them from measure")

    @basis
    def reduces_to_columns(self) -> None:
        """`reduce` returns each column's number per class, of no image, of one, and of many; its input is unchanged."""
        names = {column.name for column in self.component.columns()}
        for call in self.reductions:
            require(not call.wrote, f"expected reduce to leave the statistics, got a change; {COPY}")
            reduced = call.returned()
            require(not (fault := _fault(reduced, "reduce")), fault)
            require(
                set(reduced) == names,
                f"expected reduce to return the columns {sorted(names)}, got {sorted(reduced)}; return one for each",
            )

    @Check
    def values_in_range(self) -> None:
        """A column's values lie in its range."""
        for call in self.reductions:
            for column in self.component.columns():
                values, (low, high) = call.result[column.name], column.range
                outside = values[~np.isnan(values) & ~((values >= low) & (values <= high))]
                require(
                    not len(outside),
                    f"expected {column.name!r} from {low} to {high}, got {outside[:1]}; correct the range",
                )

    @Check
    def any_order_of_images(self) -> None:
        """The order of images does not matter."""
        given = self.component.reduce(stack(self.measured, 2))
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(self.measured))
            other = self.component.reduce(stack([self.measured[place] for place in order], 2))
            for name, values in given.items():
                require(
                    np.allclose(values, other[name], equal_nan=True),
                    f"expected the same {name!r} for images in another order, got {values} and {other[name]}; use no "
                    "image's position",
                )

    @Check
    def higher_is_better(self) -> None:
        """A perfect prediction is not worse than a wrong one, by the column's own direction."""
        measured = [
            [self.component.measure(*pair) for pair in zip(*_extremes(right), strict=True)] for right in (True, False)
        ]
        best, worst = (self.component.reduce(stack(images, 2)) for images in measured)
        for column in self.component.columns():
            sign = 1 if column.higher_is_better else -1
            one, other = sign * np.asarray(best[column.name]), sign * np.asarray(worst[column.name])
            require(
                not (one < other - 1e-9).any(),
                f"expected {column.name!r} of perfect predictions to be no worse than of wrong ones, got "
                f"{best[column.name]} and {worst[column.name]}; correct higher_is_better",
            )

    @basis
    def same_reduction(self) -> None:
        """The same statistics reduce to the same bytes."""
        for call in self.reductions:
            again = observe(call.function, *call.args)
            require(
                again.held == call.held, "expected the same bytes of the same statistics, got others; use a fixed seed"
            )


def _fault(found: Any, what: str) -> str:
    """Return what is wrong with numbers by name, one per class; empty: nothing."""
    try:
        require_type(found, Mapping, f"what {what} returns", "return {name: array}")
        for name, values in found.items():
            one = f"{name!r} of {what}"
            require_type(values, np.ndarray, one, "return np.array([...]), one number per class")
            require(
                values.shape == (2,),
                f"expected one number per class, shape (2,), of {one}, got {values.shape}; use NaN where undefined",
            )
            require(
                np.issubdtype(values.dtype, np.floating),
                f"expected floats of {one}, got {values.dtype}; convert it: values.astype(float)",
            )
            require(
                not np.isinf(values).any(),
                f"expected finite numbers of {one}, or NaN where undefined, got {values}; avoid x / 0",
            )
    except AssertionError as error:
        return str(error)
    return ""


def _extremes(right: bool) -> tuple[list[Prediction], list[Sample]]:
    """Return predictions that are right, or wrong in every class and pixel, and their truths."""
    predictions, samples = [], full_samples(4)
    for sample in samples:
        assert sample.labels is not None
        assert sample.masks is not None
        assert sample.points is not None
        present, masks = (sample.labels, sample.masks) if right else (~sample.labels, ~sample.masks)
        points = tuple(np.c_[each if right else each[:0], np.ones(len(each) * right)] for each in sample.points)
        scores = Scores(present.astype(np.float32), (0, 1), masks.astype(np.float32))
        found = tuple(each.astype(np.float32) for each in points)
        predictions.append(Prediction(scores, present, masks, masks.astype(np.int32), found))
    return predictions, samples


def _pairs() -> Iterator[tuple[str, Prediction, Sample]]:
    """Yield predictions, right and wrong, with and without masks, and truths with all and with less annotation."""
    point = (np.array([[20, 20, 0.5]], np.float32), np.zeros((0, 3), np.float32))
    for sample in full_samples(3):
        masks, labels = sample.masks, sample.labels
        assert masks is not None
        assert labels is not None
        scores = Scores(labels * np.float32(0.8) + np.float32(0.1), (0, 1), masks.astype(np.float32))
        nothing = np.zeros_like(masks)
        empty = dataclasses.replace(sample, masks=nothing, instances=None)
        for prediction in (
            Prediction(scores, labels),
            Prediction(scores, labels, masks),
            Prediction(scores, ~labels, nothing),
            Prediction(scores, ~labels, ~masks, (~masks).astype(np.int32), point),
        ):
            for truth in (sample, empty):
                yield "" if prediction.masks is not None else "less annotation", prediction, truth
            yield "less annotation", prediction, sample.keep({Annotation.LABELS})
