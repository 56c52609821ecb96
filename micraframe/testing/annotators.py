"""What the kit checks of an annotator."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import ClassVar

import numpy as np

from micraframe.errors import DataError
from micraframe.interfaces import Annotator
from micraframe.parameters import Parameters
from micraframe.testing.inputs import full_samples
from micraframe.testing.observed import Call, ObservedTrial, content, observe
from micraframe.testing.report import Check, basis, raised, require, require_type
from micraframe.types import Annotation, FloatArray, Sample, Work


class AnnotatorTrial(ObservedTrial):
    """Annotates samples whose image, masks and file would lead from one to the other."""

    component: Annotator[Parameters]
    kind: ClassVar[str] = "annotator"

    @cached_property
    def calls(self) -> list[Call]:
        """Calls of `annotate`."""
        return [observe(self.component.annotate, _traceable(sample), 3) for sample in full_samples()]

    @basis
    def returns_sample_and_work(self) -> None:
        """`annotate` returns a `Sample` and the `Work` that it takes."""
        for call in self.calls:
            result = call.returned()
            remedy = "return the annotated sample and its Work"
            require_type(result, tuple, "what annotate returns", remedy)
            require(len(result) == 2, f"expected annotate to return 2 values, got {len(result)}; {remedy}")
            require_type(result[0], Sample, "the first value that annotate returns", remedy)
            require_type(result[1], Work, "the second value that annotate returns", remedy)

    @Check
    def keeps_id_and_image(self) -> None:
        """The annotated sample has the id and the image of the sample."""
        for call in self.calls:
            given, got = call.args[0], call.result[0]
            same = (got.id, content(got.image)) == (given.id, content(given.image))
            require(same, f"expected the id and image of {given.id!r}, got others; start from sample.keep(...)")

    @Check
    def annotates(self) -> None:
        """Some annotation is left."""
        for call in self.calls:
            left = any(getattr(call.result[0], kind.value) is not None for kind in Annotation)
            require(left, "expected annotation, got a sample without any; keep or add what the annotator provides")

    @Check
    def one_entry_per_class(self) -> None:
        """Annotation has an entry for each class."""
        for call in self.calls:
            for kind in Annotation:
                value = getattr(call.result[0], kind.value)
                require(
                    value is None or len(value) == 2,
                    f"expected {kind} of 2 classes, got {0 if value is None else len(value)}; add empty entries for "
                    "absent classes",
                )

    @Check
    def hides_the_rest(self) -> None:
        """Nothing leads from weaker annotation back to what was removed: no path, no array that shares memory."""
        for call in self.calls:
            given, got = call.args[0], call.result[0]
            names = [kind.value for kind in Annotation]
            if all(content(getattr(given, name)) == content(getattr(got, name)) for name in names):
                continue
            remedy = "start from sample.keep(...), which removes them"
            require(not got.source, f"expected no source of weaker annotation, got {got.source!r}; {remedy}")
            base = _root(given.image)
            require(
                not np.shares_memory(got.image, base),
                f"expected an image that leads to nothing else, got a view of an array that holds masks; {remedy}",
            )

    @Check
    def says_what_is_missing(self) -> None:
        """A sample that lacks the annotation that is needed is a `DataError`, if it is an error."""
        call = observe(self.component.annotate, full_samples(1)[0].keep(()), 3)
        if call.error is not None and not isinstance(call.error, DataError):
            message = raised("annotate to raise DataError for a sample without annotation, not", call.error)
            raise AssertionError(message) from call.error


def _traceable(sample: Sample) -> Sample:
    """Return a sample that leads to its masks: by a file name, and by the array that its image is a view of."""
    assert sample.masks is not None
    both = np.concatenate([sample.image, sample.masks.astype(np.float32)])
    return dataclasses.replace(sample, image=both[:1], source="masks/of/this.png", group="slide")


def _root(array: FloatArray) -> FloatArray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
