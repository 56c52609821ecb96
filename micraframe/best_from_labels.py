"""The recommended way from image-level labels to masks, as one method: every part of it is a component of its own.

    one class:        labels -> U-Net whose pixels' evidence is pooled, averaged over views
    several classes:  labels -> MICRA-Net's classifier, Grad-CAM of its deepest layer
    both:             -> pseudo-masks, corrected by a cue of the image that agrees with them -> U-Net

What each part is worth is in `benchmarks/studies/README.md`, how they were chosen in `docs/choices.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from pydantic import Field, PositiveInt
from torch import Tensor

from micraframe import registry
from micraframe.cues import CUES, CueName
from micraframe.interfaces import Method, Model
from micraframe.parameters import Parameters
from micraframe.types import Annotation, DatasetInfo, FitContext, Sample


@final
class BestFromLabels(Method["BestFromLabels.Params"]):
    """Self-training with the parts that did best on validation images: see `recipe`.

    It needs plugin `micraframe-unet`, whose U-Net is the student. Its few parameters fit it to the size of the data;
    to change anything else, use method `self-training` with the parameters that `recipe` returns for your number of
    classes, in which a contact class does not count.
    """

    class Params(Parameters):
        teacher_widths: tuple[PositiveInt, ...] = Field(
            (16, 32, 64),
            description="Filters of the teacher's stages if there is one class; with several, the teacher has the "
            "student's widths, and this is not used.",
        )
        student_widths: tuple[PositiveInt, ...] = Field((8, 16, 32, 64), description="Filters of the student's stages.")
        epochs: int = Field(
            6,
            ge=1,
            description="Passes of teacher and student over the training images. With one class, about 120 steps are "
            "enough, and a teacher that is trained much longer finds only the most telling parts of a structure; ten "
            "classes took 1250 steps.",
        )
        batch_size: int = Field(32, ge=1, description="Images per step.")
        mirrored: bool = Field(
            True, description="Whether mirrored and turned images are alike; false for structures with handedness."
        )
        cues: tuple[CueName, ...] = Field(
            CUES,
            description="What in the image itself may outline a class; see method self-training. Empty: the teacher's "
            "outlines are learned as they are.",
        )

    learns_from = frozenset({Annotation.LABELS})
    default_head = ("micraframe/semantic", {"smoothing": 1.0, "mask_threshold": {"name": "fixed", "value": 0.5}})

    def __init__(self, params: BestFromLabels.Params) -> None:
        super().__init__(params)
        self._method(1)  # unsuitable parameters fail now

    def fit(self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext) -> Model:
        """Train the teacher, then the student; see `SelfTraining.fit`."""
        return self._method(_object_classes(info)).fit(train, valid, info, context)

    def untrained(self, info: DatasetInfo) -> Model | None:
        """Return a student that has learned nothing."""
        return self._method(_object_classes(info)).untrained(info)

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> Model:
        """Return the student's model."""
        return self._method(_object_classes(info)).restore(state, info, device)

    def _method(self, classes: int) -> Method[Any]:
        return registry.build("method", "micraframe/self-training", **recipe(self.params, classes))


def _object_classes(info: DatasetInfo) -> int:
    """Return the number of classes without the contact class, which lies between the objects of another."""
    return max(1, sum(role != "contact" for role in info.roles))


def recipe(params: BestFromLabels.Params, classes: int = 1) -> dict[str, Any]:
    """Return the parameters of method `self-training` for this number of classes.

    With one class, the teacher is a U-Net that scores pixels, and the student's loss gives little weight to pixels
    whose annotation the network contradicts, which makes it robust to errors in the pseudo-masks.

    With several classes, telling them apart is the hardest part, which pixel-wise evidence learns slowly and that loss
    hardly at all. So the teacher is the paper's classifier, whose deepest layer shows which object is which, and the
    student starts with its weights as encoder and learns with plain cross-entropy.
    """
    turns = [{"kind": "flip", "axis": "left-right"}, {"kind": "flip", "axis": "up-down"}, {"kind": "quarter-turns"}]
    training = {
        "epochs": params.epochs,
        "batch_size": params.batch_size,
        "optimiser": "adamw",
        "learning_rate": 5e-3,
        "weight_decay": 1e-2,
        "schedule": "one-cycle",
        "early_stopping": None,
        "pos_weight": None,
        "augmentations": turns if params.mirrored else [],
    }
    widths = params.student_widths
    if classes == 1:
        loss, start = "generalised-cross-entropy", "random"
        evidence = {"name": "micraframe/evidence"}
        views = {"name": "micraframe/views", "params": {"extractor": evidence}}
        teacher = {
            "backbone": {"name": "micraframe/unet", "params": {"widths": params.teacher_widths, "norm": "narrow"}},
            "pooling": {"kind": "log-sum-exp", "r": 4.0},
            "dropout": 0.0,
            "training": training | {"objectives": ["mix-consistency"], "average": 0.98},
            "extractor": views if params.mirrored else evidence,
            "combiner": evidence,
        }
    else:
        loss, start = "bce", "teacher"
        teacher = {
            "backbone": {"name": "micraframe/unet-encoder", "params": {"widths": widths, "norm": "narrow"}},
            "dropout": 0.0,
            "training": training,
            "extractor": {"name": "micraframe/grad-cam"},
            "combiner": {"name": "micraframe/last-layer"},
        }
    student = {
        "widths": widths,
        "norm": "narrow",
        "loss": loss,
        "training": training,
    }
    return {
        "teacher": {"name": "micraframe/micra-net", "params": teacher},
        "student": {"name": "micraframe-unet/unet", "params": student},
        "start": start,
        "threshold": 0.5,
        "cues": params.cues,
        # What cue and teacher disagree about takes the place of the band.
        "band": 0.0 if params.cues else 0.5,
    }
