"""Self-training: what the student is given is what the teacher's maps and the labels say, and nothing else."""

from __future__ import annotations

import dataclasses
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from micraframe.errors import ConfigError, DataError
from micraframe.pipeline import fit, load
from micraframe.plugin import Component
from micraframe.registry import build
from micraframe.selftraining import pseudo_mask
from micraframe.testing import check, full_samples
from micraframe.types import Annotation, DatasetInfo, FitContext, Normalisation, Progress, Sample, Scores

INFO = DatasetInfo("toy", ("square", "disc"), 1, Normalisation(), "0")
BAND = float(np.log(0.7 / 0.3))  # around 0.5: from 0.3 to 0.7
CONTEXT = FitContext(seed=3, device="cpu", precision="float32")
UNET = {
    "name": "unet",
    "params": {
        "widths": [8, 16],
        "training": {"epochs": 6, "batch_size": 8, "learning_rate": 1.0e-2, "early_stopping": None},
    },
}
TEACHER = {
    "name": "micra-net",
    "params": {
        "backbone": {"name": "unet", "params": {"widths": [8, 16]}},
        "pooling": "log-sum-exp",
        "dropout": 0.0,
        "training": {"epochs": 15, "batch_size": 8, "learning_rate": 1.0e-2, "early_stopping": None},
        "extractor": "evidence",
        "combiner": "evidence",
    },
}
FOREST = {"name": "forest", "params": {"trees": 4, "sigmas": [0.7, 1.6]}}

TOYS = """
import numpy as np
import torch
from micraframe.interfaces import Method, Model
from micraframe.parameters import Parameters
from micraframe.types import Annotation, Scores

fits, scored = [], []

class Echo(Model):
    def __init__(self, inverted, presence):
        self.inverted, self.presence = inverted, presence

    def score(self, images, rule):
        for image in images:
            classes = tuple(rule(np.full(2, self.presence, np.float32)))
            scored.append((self.inverted, image, classes))
            maps = np.repeat(1 - image if self.inverted else image, len(classes), 0)
            yield Scores(np.full(2, self.presence, np.float32), classes, maps)

    def state(self):
        return {"presence": torch.tensor(self.presence)}

class Toy(Method[Parameters]):
    inverted, presence = False, 0.25
    learns_from = frozenset({Annotation.LABELS})

    def fit(self, train, valid, info, context):
        fits.append((type(self).__name__, list(train), list(valid), context))
        return Echo(self.inverted, self.presence)

    def restore(self, state, info, device):
        return Echo(self.inverted, state["presence"].item())

class Teacher(Toy):
    pass

class Student(Toy):
    inverted, presence = True, 0.75
    learns_from = frozenset({Annotation.MASKS})

class Careless(Student):
    uses_validation = False
"""


@pytest.fixture
def toys(install):
    """Install methods that record what they learn from, and return the module that holds the record.

    The teacher's maps are the image, the students' are 1 minus the image.
    """
    names = ("Teacher", "Student", "Careless")
    records = [Component("method", name.lower(), f"toy_methods:{name}", "Records") for name in names]
    install("toys", records, toy_methods=TOYS)
    build("method", "teacher")
    return sys.modules["toy_methods"]


def toy_samples(count: int, width: int = 13) -> list[Sample]:
    """Return images of random values and all annotation; their masks have nothing to do with the image."""
    generator = np.random.default_rng(0)
    labels = ([True, True], [True, False], [False, False])
    return [
        Sample(
            str(number),
            generator.random((1, 9, width + number % 2), np.float32),
            labels=np.array(labels[number % 3]),
            masks=np.ones((2, 9, width + number % 2), bool),
            ignore=np.ones((9, width + number % 2), bool),
        )
        for number in range(count)
    ]


@given(
    hnp.arrays(np.float32, (2, 3, 4), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])),
    hnp.arrays(np.bool_, 3),
    st.sampled_from([(0.25, 0.75), (0.5, 0.5), (0, 1)]),
)
def test_pseudo_masks_follow_the_map_the_band_and_the_labels(maps, labels, band):
    low, high = band
    labels[2] = False  # has no map
    masks, ignore = pseudo_mask(Scores(np.zeros(3, np.float32), (1, 0), maps), labels, low, high)
    for index, y, x in np.ndindex(masks.shape):
        assert masks[index, y, x] == bool(labels[index] and maps[1 - index, y, x] >= high)
    for y, x in np.ndindex(ignore.shape):
        assert ignore[y, x] == any(labels[index] and low < maps[1 - index, y, x] < high for index in (0, 1))


def test_a_student_is_given_what_maps_and_labels_say_and_nothing_else(toys, tmp_path):
    samples = toy_samples(8)
    context = dataclasses.replace(CONTEXT, folder=tmp_path)
    method = build("method", "self-training", teacher="teacher", student="student", threshold=0.5, band=BAND)
    assert method.learns_from == {Annotation.LABELS}
    # Directly, so that no one has removed the masks beforehand.
    method.fit(samples[:6], samples[6:], INFO, context)
    (_, train, valid, _), (_, *annotated, _) = toys.fits
    for part, seen, drawn in ((samples[:6], train, annotated[0]), (samples[6:], valid, annotated[1])):
        assert [sample.id for sample in part] == [sample.id for sample in seen] == [sample.id for sample in drawn]
        for sample, weak, made in zip(part, seen, drawn, strict=True):
            assert [kind for kind in Annotation if getattr(weak, kind) is not None] == ["labels"]
            assert weak.ignore is None
            assert [kind for kind in Annotation if getattr(made, kind) is not None] == ["masks"]
            np.testing.assert_array_equal(made.image, sample.image)
            values = sample.image[0]
            expected = np.stack([values >= 0.7] * 2) & sample.labels[:, None, None]
            np.testing.assert_array_equal(made.masks, expected)
            np.testing.assert_array_equal(made.ignore, (values > 0.3) & (values < 0.7) & sample.labels.any())
    # Images without any class are certain, and cost nothing.
    wanted = sorted((tuple(np.flatnonzero(s.labels)), s.image.tobytes()) for s in samples if s.labels.any())
    assert sorted((classes, image.tobytes()) for _, image, classes in toys.scored) == wanted


def test_a_student_becomes_the_teacher_of_the_next_with_a_seed_and_a_folder_of_its_own(toys, tmp_path):
    samples = toy_samples(6)
    context = dataclasses.replace(CONTEXT, folder=tmp_path)
    method = build("method", "self-training", teacher="teacher", student="careless", rounds=2, threshold=0.5, band=BAND)
    method.fit(samples[:4], samples[4:], INFO, context)
    names, trains, valids, contexts = zip(*toys.fits, strict=True)
    assert names == ("Teacher", "Careless", "Careless")
    assert [len(valid) for valid in valids] == [2, 0, 0]
    assert [one.folder for one in contexts] == [tmp_path / name for name in ("teacher", "student-1", "student-2")]
    assert contexts[0].seed == CONTEXT.seed
    assert len({one.seed for one in contexts}) == 3
    first, second = (round_[0].masks[0] for round_ in trains[1:])
    np.testing.assert_array_equal(first, samples[0].image[0] >= 0.7)
    np.testing.assert_array_equal(second, 1 - samples[0].image[0] >= 0.7)
    assert {inverted for inverted, *_ in toys.scored[-3:]} == {True}


@pytest.mark.parametrize(("presence", "expected"), [("student", 0.75), ("teacher", 0.25)])
def test_presence_is_the_chosen_models_and_maps_are_the_students(toys, tmp_path, presence, expected):
    samples = [sample.keep({Annotation.LABELS}) for sample in toy_samples(6)]
    params = {"teacher": "teacher", "student": "student", "rounds": 2, "presence": presence, "threshold": 0.5}
    trained = fit({"name": "self-training", "params": params}, samples[:4], samples[4:], INFO, CONTEXT)
    names = {"student": {"presence"}, "teacher": {"teacher.presence", "student.presence"}}[presence]
    assert trained.model.state().keys() == names
    trained.save(tmp_path / "model")
    toys.scored.clear()
    for pipeline in (trained, load(tmp_path / "model", "cpu")):
        scores = list(pipeline.score([sample.image for sample in samples], lambda presence: (0, 1)))
        for sample, one in zip(samples, scores, strict=True):
            assert one.presence.tolist() == [expected, expected]
            np.testing.assert_array_equal(one.maps, np.repeat(1 - sample.image, 2, 0))
    # Where the student decides, the teacher costs nothing.
    assert len(toys.scored) == 2 * len(samples) * (1 if presence == "student" else 2)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"teacher": "unet", "student": "unet"},
            DataError,
            "teacher that learns from labels, got method 'unet', .*box",
        ),
        ({"student": "micra-net"}, DataError, "student that learns from masks, got method 'micra-net', .* from labels"),
        ({}, ConfigError, "parameter 'student' is missing"),
        ({"student": "unet", "threshold": 1.0}, ConfigError, "threshold"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(params, error, message):
    with pytest.raises(error, match=message):
        build("method", "self-training", **params)


def test_a_teacher_that_finds_nothing_is_named(toys):
    dark = [dataclasses.replace(sample, image=sample.image * 0) for sample in toy_samples(3)]
    method = build("method", "self-training", teacher="teacher", student="student", threshold=0.5)
    with pytest.raises(DataError, match=r"at or above 0.622 in the teacher's maps"):
        method.fit(dark, dark, INFO, CONTEXT)


def test_a_threshold_by_erasing_needs_images_on_both_sides(toys):
    method = build("method", "self-training", teacher="teacher", student="student")
    alike = [dataclasses.replace(sample, labels=np.ones(2, np.bool_)) for sample in toy_samples(4)]
    with pytest.raises(DataError, match=r"got 6 images, all with or all without"):
        method.fit(alike, alike[:2], INFO, CONTEXT)


def squares(count: int) -> list[Sample]:
    """Return noise, half of it with a bright square, and full annotation."""
    samples = []
    for number in range(count):
        generator = np.random.default_rng(number)
        mask = np.zeros((1, 24, 24), bool)
        y, x = generator.integers(2, 14, 2)
        mask[0, y : y + 9, x : x + 9] = number % 2
        image = (generator.normal(0.2, 0.05, mask.shape) + 0.5 * mask).astype(np.float32)
        samples.append(Sample(str(number), image, labels=mask.any((1, 2)), masks=mask))
    return samples


class Interrupted(Exception):
    """Ends a training."""


class Interrupt(Progress):
    """Ends the training of the student after its second epoch."""

    def advance(self, label, done, total, numbers=None):
        if label == "student-1: training" and done > total // 3:
            raise Interrupted


def test_squares_are_learned_from_labels_and_an_interrupted_training_resumes(tmp_path):
    info = dataclasses.replace(INFO, classes=("square",), roles=("object",))
    samples = squares(48)
    weak = [sample.keep({Annotation.LABELS}) for sample in samples]
    params = {"teacher": TEACHER, "student": UNET, "presence": "teacher", "threshold": 0.5}
    choice = {"name": "self-training", "params": params}

    def train(folder, progress=CONTEXT.progress):
        context = dataclasses.replace(CONTEXT, folder=folder, progress=progress)
        return fit(choice, weak[:32], weak[32:40], info, context)

    trained = train(tmp_path / "whole")
    images = [sample.image for sample in samples[40:]]
    predictions = list(trained.predict(images))
    for sample, prediction in zip(samples[40:], predictions, strict=True):
        assert prediction.present.tolist() == sample.labels.tolist()
        overlap, union = (np.count_nonzero(f(prediction.masks, sample.masks)) for f in (np.logical_and, np.logical_or))
        assert overlap >= 0.6 * union  # the teacher's squares are a pixel too wide on every side

    with pytest.raises(Interrupted):
        train(tmp_path / "cut", Interrupt())
    resumed = train(tmp_path / "cut")
    trained.save(tmp_path / "a")
    resumed.save(tmp_path / "b")
    weights = [tmp_path / name / "weights.safetensors" for name in "ab"]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    logs = [(tmp_path / name / "teacher" / "log.csv").read_text() for name in ("whole", "cut")]
    assert [len(log.splitlines()) for log in logs] == [16, 16]
    shutil.rmtree(tmp_path / "whole")
    for one, other in zip(predictions, load(tmp_path / "a", "cpu").predict(images), strict=True):
        np.testing.assert_array_equal(one.masks, other.masks)
        np.testing.assert_array_equal(one.scores.presence, other.scores.presence)


def test_it_passes_the_kit_with_a_forest_and_a_teachers_presence():
    teacher = {"name": "micra-net", "params": {"backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}}}}
    teacher["params"] |= {"dropout": 0.0, "training": {"epochs": 2, "batch_size": 3}}
    check("method", "self-training", teacher=teacher, student=FOREST, rounds=2, presence="teacher", threshold=0.5)


def test_it_serves_any_teacher_that_learns_from_labels():
    samples = [sample.keep({Annotation.LABELS}) for sample in full_samples(8)]
    nested = {"name": "self-training", "params": {"teacher": "intensity-otsu", "student": FOREST, "threshold": 0.5}}
    params = {"teacher": nested, "student": FOREST, "threshold": 0.5}
    trained = fit({"name": "self-training", "params": params}, samples[:6], samples[6:], INFO, CONTEXT)
    assert len(list(trained.predict([sample.image for sample in samples]))) == 8
