"""Self-training: what the student is given is what the teacher's maps and the labels say, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from micraframe.cues import CUES, Cue, CueName
from micraframe.errors import ConfigError, DataError
from micraframe.pipeline import fit, load
from micraframe.plugin import Component
from micraframe.registry import build
from micraframe.selftraining import ChosenCue, SelfTraining, choose_cues, choose_side, pseudo_mask, with_cues
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
    continues = True

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


def discs(count: int, cue: str) -> list[Sample]:
    """Return images of a disc, bright or rough; every second one is labelled as showing the first class."""
    y, x = np.mgrid[:32, :32]
    samples = []
    for number in range(count):
        disc = (y - 14) ** 2 + (x - 16 - number % 3) ** 2 < 81
        level = 0.95 if cue == "bright" else np.where((y + x) % 2, 0.95, 0.05)
        image = np.where(disc, level, 0.5 if cue == "edges" else 0.05).astype(np.float32)
        labels = np.array([number % 2 == 0, False])
        samples.append(Sample(str(number), image[None], labels=labels, masks=np.ones((2, 32, 32), bool)))
    return samples


def packed(samples: list[Sample], masks: list[np.ndarray]) -> list[np.ndarray]:
    planes = [
        np.stack([mask & s.labels[0], mask & False, mask & False]) for s, mask in zip(samples, masks, strict=True)
    ]
    return [np.packbits(each, axis=-1) for each in planes]


@pytest.mark.parametrize("cue", ["bright", "edges"])
def test_each_class_gets_the_cue_that_agrees_with_its_masks(cue):
    samples = discs(6, cue)
    masks = [Cue(cue).mask(sample.image) for sample in samples]
    first, second = choose_cues(samples, packed(samples, masks), CUES, 0.6)
    assert first.cue is not None
    assert first.cue.name == cue
    assert first.agreement == 1
    assert second == ChosenCue(None, 0)  # in no image
    opposite = choose_cues(samples, packed(samples, [~mask for mask in masks]), ["bright"], 0.6)
    assert [each.cue for each in opposite] == [None, None]
    assert opposite[0].agreement < 0.6


def test_a_blurred_cue_is_taken_only_if_no_exact_one_agrees():
    samples = discs(6, "bright")
    blurred = [Cue("edges").mask(sample.image) for sample in samples]
    assert choose_cues(samples, packed(samples, blurred), CUES, 0.4)[0].cue.name == "bright"
    assert choose_cues(samples, packed(samples, blurred), CUES, 0.99)[0].cue.name == "edges"


def test_whole_objects_are_learned_from_a_teacher_that_marks_parts():
    # Two classes, a bright disc each; the teacher marks a line of each, and both discs stand out alike.
    y, x = np.mgrid[:32, :64]
    outlines = np.stack([(y - 14) ** 2 + (x - column) ** 2 < 81 for column in (16, 48)])
    image = np.where(outlines.any(axis=0), np.float32(0.95), np.float32(0.05))[None]
    parts = outlines & (y == 14)
    nothing = np.zeros((1, 32, 64), np.bool_)
    both = Sample("both", image, labels=np.array([True, True]))
    bits = np.packbits(np.concatenate([parts, nothing]), axis=-1)
    cues = [each.cue for each in choose_cues([both], [bits], CUES, 0.4)]
    assert [(cue.name, cue.whole) for cue in cues] == [("bright", True)] * 2
    *found, ignored = np.unpackbits(with_cues([both], [bits], cues)[0], axis=-1).astype(bool)
    assert (found & outlines).sum() / (found | outlines).sum() > 0.9
    assert not (found & ignored).any()
    # With one class in an image, nothing says that an object belongs to it as a whole.
    one = Sample("one", image, labels=np.array([True, False]))
    bits = np.packbits(np.concatenate([parts[:1], nothing, nothing]), axis=-1)
    assert [each.cue for each in choose_cues([one], [bits], CUES, 0.4)] == [None, None]


def with_halos(count: int, negative: str = "empty") -> tuple[list[Sample], np.ndarray]:
    """Return images, every second one with a rough dark disc in a bright ring, and the disc."""
    y, x = np.mgrid[:48, :48]
    distance = np.hypot(y - 23, x - 23)
    disc, ring = distance < 10, (distance >= 10) & (distance < 14)
    image = np.full((48, 48), 0.5, np.float32)
    image[disc] = np.where((y // 3 + x // 3) % 2, 0.05, 0.4)[disc]
    image[ring] = 0.9
    other = np.full_like(image, 0.5) if negative == "empty" else image
    samples = [
        Sample(str(number), (other if number % 2 else image)[None], labels=np.array([number % 2 == 0]))
        for number in range(count)
    ]
    return samples, disc


def side(samples: list[Sample], names: list[CueName], least: float = 0.3) -> ChosenCue | None:
    masks = [np.stack([sample.image[0] != 0.5] * 2) * [[[1]], [[0]]] for sample in samples]
    return choose_side(samples, [np.packbits(mask, axis=-1) for mask in masks], names, least)


@pytest.mark.parametrize(("inverted", "name"), [(False, "dark-edges"), (True, "bright-edges")])
def test_the_side_is_taken_that_the_other_surrounds(inverted, name):
    samples, disc = with_halos(8)
    if inverted:
        samples = [dataclasses.replace(sample, image=1 - sample.image) for sample in samples]
    found = side(samples, ["bright-edges", "dark-edges"])
    assert found is not None
    assert found.cue is not None
    assert (found.cue.name, found.cue.whole) == (name, True)
    mask = found.cue.mask(samples[0].image)
    assert (mask & disc).sum() / (mask | disc).sum() > 0.7
    assert not found.cue.mask(samples[1].image).any()
    assert side(samples, []) is None


def test_one_sided_cues_are_for_a_single_class():
    samples = discs(6, "edges")
    masks = packed(samples, [np.ones((32, 32), np.bool_)] * 6)
    assert choose_cues(samples, masks, ["dark-edges", "bright-edges"], 0.0) == (ChosenCue(None, 0), ChosenCue(None, 0))


def test_no_side_is_taken_that_does_not_agree_or_does_not_respond_to_the_class():
    samples, _ = with_halos(8)
    found = side(samples, ["dark-edges"])
    assert found is not None
    assert side(samples, ["dark-edges"], least=found.agreement) == found
    assert side(samples, ["dark-edges"], least=found.agreement + 0.01) is None
    alike, _ = with_halos(8, negative="alike")
    assert side(alike, ["dark-edges"]) is None
    assert side(samples[::2], ["dark-edges"]) is None
    assert side(samples[1::2], ["dark-edges"]) is None
    # Every second image of so many is looked at for thresholds: here, only those with the class.
    assert side(samples * 100, ["dark-edges"]) is not None


@pytest.mark.parametrize("exact", [False, True])
def test_the_student_of_a_single_class_learns_whole_objects_of_one_side(toys, tmp_path, exact):
    # The toy teacher's map is the image: here, it claims bright pixels, which are the ring.
    samples, _ = with_halos(8)
    info = dataclasses.replace(INFO, classes=("cell",), roles=("object",))
    context = dataclasses.replace(CONTEXT, folder=tmp_path)
    cues = ["edges", "dark-edges", "bright-edges", *(["bright"] if exact else [])]
    params = {"teacher": "teacher", "student": "student", "threshold": 0.45, "band": 0.0, "cues": cues}
    params["agreement"] = 0.1
    samples = [
        dataclasses.replace(sample, image=np.where(sample.image == 0.5, np.float32(0.42), sample.image))
        for sample in samples
    ]
    build("method", "self-training", **params).fit(samples[:6], samples[6:], info, context)
    chosen = json.loads((tmp_path / "cues.json").read_text())["cell"]["cue"]
    assert (chosen["name"], chosen["whole"]) == (("bright", False) if exact else ("dark-edges", True))
    _, (_, train, valid, _) = toys.fits
    for sample, made in zip(samples, [*train, *valid], strict=True):
        assert made.masks.any() == sample.labels[0]
        if sample.labels[0] and not exact:
            np.testing.assert_array_equal(made.masks[0], Cue(**chosen).mask(sample.image))


@pytest.mark.parametrize(("least", "used"), [(0.4, True), (1.0, False)])
def test_with_cues_a_student_learns_what_teacher_and_image_agree_on(toys, tmp_path, least, used):
    # The toy teacher's map is the image: here above one half in a part of what stands out.
    left = np.arange(32) < 12
    samples = [
        dataclasses.replace(sample, image=np.where(left & (sample.image > 0.5), np.float32(0.45), sample.image))
        for sample in discs(8, "bright")
    ]
    params = {"teacher": "teacher", "student": "student", "threshold": 0.5, "band": 0.0, "cues": ["dark", "bright"]}
    context = dataclasses.replace(CONTEXT, folder=tmp_path)
    build("method", "self-training", **params, agreement=least).fit(samples[:6], samples[6:], INFO, context)
    _, (_, train, valid, _) = toys.fits
    chosen = json.loads((tmp_path / "cues.json").read_text())
    assert chosen["disc"] == {"cue": None, "agreement": 0}
    assert (chosen["square"]["cue"] is not None) == used
    assert 0.4 <= chosen["square"]["agreement"] < 1
    for sample, made in zip(samples, [*train, *valid], strict=True):
        outline = Cue(**chosen["square"]["cue"]).mask(sample.image) if used else sample.image[0] >= 0.5
        high = sample.image[0] >= 0.5
        np.testing.assert_array_equal(made.masks[0], high & outline & sample.labels[0])
        np.testing.assert_array_equal(made.ignore, (outline != high) & sample.labels[0])
        assert not made.masks[1].any()
    assert any(made.ignore.any() for made in train) == used


def test_the_student_has_a_seed_and_a_folder_of_its_own(toys, tmp_path):
    samples = toy_samples(6)
    context = dataclasses.replace(CONTEXT, folder=tmp_path)
    build("method", "self-training", teacher="teacher", student="careless", band=BAND).fit(
        samples[:4], samples[4:], INFO, context
    )
    names, trains, valids, contexts = zip(*toys.fits, strict=True)
    assert names == ("Teacher", "Careless")
    assert [len(valid) for valid in valids] == [2, 0]
    assert [one.folder for one in contexts] == [tmp_path / name for name in ("teacher", "student")]
    assert contexts[0].seed == CONTEXT.seed != contexts[1].seed
    np.testing.assert_array_equal(trains[1][0].masks[0], samples[0].image[0] >= 0.7)


def test_a_student_can_be_the_teacher_of_another(toys):
    samples = toy_samples(6)
    first = {"name": "self-training", "params": {"teacher": "teacher", "student": "careless", "band": BAND}}
    build("method", "self-training", teacher=first, student="careless", band=BAND).fit(
        samples[:4], samples[4:], INFO, CONTEXT
    )
    names, trains, *_ = zip(*toys.fits, strict=True)
    assert names == ("Teacher", "Careless", "Careless")
    np.testing.assert_array_equal(trains[2][0].masks[0], 1 - samples[0].image[0] >= 0.7)
    assert {inverted for inverted, *_ in toys.scored[-3:]} == {True}


@pytest.mark.parametrize(("presence", "expected"), [("student", 0.75), ("teacher", 0.25)])
def test_presence_is_the_chosen_models_and_maps_are_the_students(toys, tmp_path, presence, expected):
    samples = [sample.keep({Annotation.LABELS}) for sample in toy_samples(6)]
    params = {"teacher": "teacher", "student": "student", "presence": presence, "threshold": 0.5}
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


@pytest.mark.parametrize("presence", ["student", "teacher"])
def test_an_untrained_model_has_the_state_of_a_trained_one(presence):
    method = build("method", "self-training", teacher=TEACHER, student=UNET, presence=presence)
    untrained = method.untrained(INFO)
    restored = method.restore(untrained.state(), INFO, "cpu")
    assert restored.state().keys() == untrained.state().keys()
    assert any(name.startswith("teacher.") for name in untrained.state()) == (presence == "teacher")


def test_without_an_untrained_student_there_is_no_untrained_model():
    assert build("method", "self-training", teacher=TEACHER, student=FOREST, presence="teacher").untrained(INFO) is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"teacher": "unet", "student": "unet"},
            "teacher: expected a method that learns from labels, got 'unet', .*box",
        ),
        (
            {"student": "micra-net"},
            "student: expected a method that learns from masks, got 'micra-net', .* from labels",
        ),
        ({"student": FOREST, "start": "teacher"}, "'forest', .* start: random"),
        ({}, "parameter 'student' is missing"),
        ({"student": "unet", "threshold": 1.0}, "threshold"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(params, message):
    with pytest.raises(ConfigError, match=message):
        build("method", "self-training", **params)


def test_a_teacher_that_finds_nothing_is_named(toys):
    dark = [dataclasses.replace(sample, image=sample.image * 0) for sample in toy_samples(3)]
    method = build("method", "self-training", teacher="teacher", student="student", threshold=0.5)
    ranked = r"AUC of presence on the validation samples, 0.5 by chance: \w+ 0.50, \w+ 0.50"
    advice = "train for more epochs, and check the labels with micraframe data audit"
    with pytest.raises(DataError, match=rf"at or above 0.622 in the teacher's maps .* \({ranked}\); {advice}"):
        method.fit(dark, dark, INFO, CONTEXT)
    with pytest.raises(DataError, match=f"got none; {advice}"):
        method.fit(dark, [], INFO, CONTEXT)


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
        if label == "student: training" and done > total // 3:
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
    check("method", "self-training", teacher=teacher, student=FOREST, presence="teacher", threshold=0.5)


def test_it_serves_any_teacher_that_learns_from_labels():
    samples = [sample.keep({Annotation.LABELS}) for sample in full_samples(8)]
    nested = {"name": "self-training", "params": {"teacher": "intensity-otsu", "student": FOREST, "threshold": 0.5}}
    params = {"teacher": nested, "student": FOREST, "threshold": 0.5}
    trained = fit({"name": "self-training", "params": params}, samples[:6], samples[6:], INFO, CONTEXT)
    assert len(list(trained.predict([sample.image for sample in samples]))) == 8


@pytest.mark.parametrize("start", ["random", "teacher"])
def test_the_student_is_given_the_teachers_weights_where_asked(toys, start):
    samples = toy_samples(6)
    params = {"teacher": "teacher", "student": "student", "threshold": 0.5, "start": start}
    build("method", "self-training", **params).fit(samples[:4], samples[4:], INFO, CONTEXT)
    given = [context.start for *_, context in toys.fits]
    assert given == [None, None if start == "random" else {"presence": 0.25}]


def test_an_unlike_backbone_is_found_before_training():
    student = {"name": "unet", "params": {"widths": [8, 16]}}
    like = build("method", "self-training", teacher=TEACHER, student=student, start="teacher")
    assert (
        like.untrained(INFO).state().keys()
        == build("method", "unet", **student["params"]).untrained(INFO).state().keys()
    )
    for widths in ([8, 8], [8, 16, 16]):
        unlike = {"name": "unet", "params": {"widths": widths}}
        with pytest.raises(DataError, match="same backbone and widths"):
            build("method", "self-training", teacher=TEACHER, student=unlike, start="teacher").untrained(INFO)


def test_a_student_may_have_the_teacher_as_its_encoder():
    student = {"name": "unet", "params": {"widths": [4, 8]}}

    def teacher(widths):
        return {"name": "micra-net", "params": {"backbone": {"name": "unet-encoder", "params": {"widths": widths}}}}

    assert build("method", "self-training", teacher=teacher([4, 8]), student=student, start="teacher").untrained(INFO)
    with pytest.raises(DataError, match="same backbone and widths"):
        build("method", "self-training", teacher=teacher([8, 8]), student=student, start="teacher").untrained(INFO)


@pytest.mark.parametrize("classes", [1, 2])
def test_the_preset_restores_its_student(classes):
    info = DatasetInfo("toy", tuple(map(str, range(classes))), 1, Normalisation(), "0")
    method = build("method", "best-from-labels", teacher_widths=[4, 8], student_widths=[4, 6, 8])
    state = method.untrained(info).state()
    assert (6, 4, 3, 3) in {tensor.shape for tensor in state.values()}
    assert method.restore(state, info, "cpu").state().keys() == state.keys()


@pytest.mark.parametrize(
    ("roles", "loss", "widths"),
    [
        (("object",), "generalised-cross-entropy", (16, 32, 64)),
        (
            ("object", "contact"),
            "generalised-cross-entropy",
            (16, 32, 64),
        ),  # between objects, not one to tell from them
        (("object", "object"), "bce", (8, 16, 32, 64)),
    ],
)
def test_a_student_that_tells_classes_apart_continues_from_a_classifier(roles, loss, widths, monkeypatch):
    fitted = []
    monkeypatch.setattr(SelfTraining, "fit", lambda self, *_: fitted.append(self.params))
    info = DatasetInfo("toy", tuple(map(str, range(len(roles)))), 1, Normalisation(), "0", roles=roles)
    classes = roles.count("object")
    build("method", "best-from-labels").fit([], [], info, CONTEXT)
    assert fitted[0].student.params["loss"] == loss
    assert fitted[0].start == ("teacher" if classes > 1 else "random")
    teacher = fitted[0].teacher.params
    assert teacher["backbone"]["params"]["widths"] == widths
    names = (
        ("micraframe/unet", "micraframe/views") if classes == 1 else ("micraframe/unet-encoder", "micraframe/grad-cam")
    )
    assert (teacher["backbone"]["name"], teacher["extractor"]["name"]) == names


SHAPES = np.ones((9, 9), bool), np.add.outer(*[abs(np.arange(9) - 4)] * 2) < 5


def scene(number: int) -> Sample:
    """Return an image with a square, a diamond, both or neither; both are equally bright."""
    generator = np.random.default_rng(number)
    masks = np.zeros((2, 32, 32), bool)
    for mask, shape, left in zip(masks, SHAPES, generator.permutation([3, 19]), strict=True):
        if generator.random() < 0.6:
            top = generator.integers(2, 20)
            mask[top : top + 9, left : left + 9] = shape
    image = masks.any(axis=0) + generator.normal(0, 0.05, (1, 32, 32))
    return Sample(str(number), image.astype(np.float32), labels=masks.any(axis=(1, 2)), masks=masks)


def test_the_preset_tells_classes_apart_and_outlines_them():
    samples = [scene(number) for number in range(220)]
    labelled = [sample.keep({Annotation.LABELS}) for sample in samples]
    params = {"student_widths": [8, 16, 16], "epochs": 12, "batch_size": 8}
    trained = fit({"name": "best-from-labels", "params": params}, labelled[:160], labelled[160:180], INFO, CONTEXT)
    test = samples[180:]
    found = list(trained.predict([sample.image for sample in test]))
    overlaps = [
        np.count_nonzero(one.masks[index] & other.masks[index])
        / np.count_nonzero(one.masks[index] | other.masks[index])
        for one, other in zip(found, test, strict=True)
        for index in np.flatnonzero(other.labels)
    ]
    assert np.mean(overlaps) > 0.8
