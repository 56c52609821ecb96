"""The one place that predicts, tiles, applies heads and thresholds, saves and loads."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import micraframe
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError, InterfaceError, ModelError
from micraframe.interfaces import Model, Thresholds
from micraframe.modelfile import DESCRIPTION
from micraframe.pipeline import Pipeline, fit
from micraframe.registry import build
from micraframe.testing import full_samples
from micraframe.tiling import ALIGNMENT, Tiling
from micraframe.types import Annotation, DatasetInfo, FitContext, Normalisation, Sample, Scores

INFO = DatasetInfo("bright", ("one", "two"), 2, Normalisation(), "0" * 64)


class Brightness(Model):
    """Uses the image itself as the maps of those of its two classes that the rule chooses."""

    def __init__(self) -> None:
        self.seen = []

    def score(self, images, rule):
        for image in images:
            self.seen.append(image.shape[1:])
            presence = image.max(axis=(1, 2))
            classes = tuple(rule(presence))
            yield Scores(presence, classes, image[list(classes)], coarse=image[list(classes)] / 2)

    def state(self):
        return {}


def pipeline(head: str = "micraframe/semantic", tiling: Tiling | None = None, model=None, **params) -> Pipeline:
    return Pipeline(
        Choice(name="test/brightness"), model or Brightness(), head, build("head", head, **params), INFO, tiling
    )


@pytest.mark.parametrize("size", [(100, 100), (65, 200), (301, 130), (64, 64), (20, 97)])
def test_a_model_that_looks_at_one_pixel_gives_the_same_in_tiles(size):
    image = np.random.default_rng(3).random((2, *size), dtype=np.float32)
    rule = {"name": "fixed", "value": 0.7}
    (whole,) = pipeline(mask_threshold=rule).predict([image])
    cut = pipeline(mask_threshold=rule, tiling=Tiling(size=64, halo=16))
    (tiled,) = cut.predict([image])
    assert max(max(seen) for seen in cut.model.seen) < 64 + ALIGNMENT
    for name in ("present", "masks"):
        assert getattr(tiled, name).tobytes() == getattr(whole, name).tobytes()
    for name in ("presence", "maps", "coarse"):
        assert getattr(tiled.scores, name).tobytes() == getattr(whole.scores, name).tobytes()
    assert (tiled.status, tiled.thresholds) == (whole.status, whole.thresholds)


def test_a_class_has_a_map_of_zero_where_a_tile_does_not_have_it():
    image = np.full((2, 64, 128), 0.4, np.float32)
    image[1, 10, 100] = 0.9  # in the right half alone
    (tiled,) = pipeline(tiling=Tiling(size=64, halo=0)).predict([image])
    assert tiled.scores.classes == (1,)
    assert not tiled.scores.maps[0, :, :64].any()
    assert tiled.scores.maps[0, 20, 100] == np.float32(0.4)
    assert tiled.present.tolist() == [False, True]


def test_images_no_larger_than_a_tile_are_not_cut_and_order_is_kept():
    rng = np.random.default_rng(0)
    images = [rng.random((2, side, 70), dtype=np.float32) for side in (70, 64, 200)]
    cut = pipeline(tiling=Tiling(size=96, halo=0))
    found = list(cut.predict(iter(images)))
    assert [one.masks.shape[1:] for one in found] == [image.shape[1:] for image in images]
    assert cut.model.seen[:2] == [(70, 70), (64, 70)]


def test_images_that_are_not_cut_are_scored_together():
    class Calls(Brightness):
        calls = 0

        def score(self, images, rule):
            self.calls += 1
            return super().score(images, rule)

    rng = np.random.default_rng(0)
    images = [rng.random((2, side, 70), dtype=np.float32) for side in (64, 64, 70, 200, 200, 64, 64)]
    cut = pipeline(tiling=Tiling(size=96, halo=0), model=Calls())
    found = list(cut.score(iter(images)))
    assert cut.model.calls == 4
    for one, image in zip(found, images, strict=True):
        assert one.maps.tobytes() == next(pipeline().score([image])).maps.tobytes()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((3, 8, 8), np.float32), "image 0: expected 2 channels, as in the training images, got 3"),
        (np.zeros((2, 0, 8), np.float32), "empty"),
        (np.full((2, 8, 8), np.nan, np.float32), "NaN"),
        (np.zeros((2, 8, 8)), "float32"),
    ],
)
def test_invalid_images_are_refused_before_the_model_sees_them(image, reason):
    tested = pipeline()
    with pytest.raises(DataError, match=reason):
        next(tested.predict([image]))
    assert tested.model.seen == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Scores.without_maps(np.zeros(3, np.float32), (8, 8)), "expected scores of 2 classes"),
        (Scores.without_maps(np.zeros(2, np.float32), (8, 9)), r"size \(8, 8\), got 2 classes and size \(8, 9\)"),
        (None, "expected results for all images, got none for the last 1 image that it read"),
    ],
)
def test_a_model_that_breaks_its_promises_is_named(broken, reason):
    class Broken(Brightness):
        def score(self, images, rule):
            for _ in images:
                if broken is not None:
                    yield broken

    with pytest.raises(InterfaceError, match=f"test/brightness: .*{reason}"):
        list(pipeline(model=Broken()).predict([np.zeros((2, 8, 8), np.float32)]))


def test_thresholds_are_replaced_and_their_origin_is_recorded():
    image = np.stack([np.full((8, 8), 0.6, np.float32), np.full((8, 8), 0.3, np.float32)])
    (before,) = pipeline().predict([image])
    tuned = pipeline().with_thresholds(Thresholds((0.7, 0.2), 0.1), "validation")
    (after,) = tuned.predict([image])
    assert before.present.tolist() == [True, False]
    assert after.present.tolist() == [False, True]
    assert after.masks[1].all()
    assert {threshold.origin for threshold in before.thresholds} == {"fixed"}
    assert {threshold.origin for threshold in after.thresholds} == {"validation"}
    (other,) = tuned.with_head("micraframe/classification").predict([image])
    assert other.masks is None
    assert {threshold.origin for threshold in other.thresholds} == {"fixed"}


def annotated(name: str, channels: int = 2, labels: int | None = 2, masks: int | None = 2) -> Sample:
    made = np.ones((channels, 16, 16), np.float32)
    planes = None if masks is None else np.tile(np.eye(16, dtype=bool), (masks, 1, 1))
    return Sample(name, made, labels=None if labels is None else np.ones(labels, bool), masks=planes)


@pytest.mark.parametrize("method", ["micra-net", "centre-blob", "unet", "mask-rcnn", "forest"])
@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"channels": 3}, "'odd': expected 2 channels, got 3"),
        ({"labels": 3, "masks": 3}, "'odd': expected annotation of 2 classes, got labels of 3 and masks of 3"),
        ({"labels": None, "masks": None}, "'odd': expected .*, which the method learns from, got no annotation"),
    ],
)
def test_a_training_sample_unlike_its_dataset_is_named_whatever_the_method(method, odd, reason):
    samples = [annotated("a"), annotated("odd", **odd)]
    with pytest.raises(DataError, match=reason):
        fit(method, samples, [annotated("b")], INFO, FitContext(device="cpu"))
    with pytest.raises(DataError, match="dataset 'bright': expected one or more training samples, got none"):
        fit(method, [], [annotated("b")], INFO)


@pytest.mark.parametrize("method", ["micra-net", "unet", "mask-rcnn"])
def test_a_validation_sample_unlike_its_dataset_is_named(method):
    with pytest.raises(DataError, match="'odd': expected 2 channels, got 3"):
        fit(method, [annotated("a"), annotated("b")], [annotated("odd", channels=3)], INFO, FitContext(device="cpu"))


def test_a_sample_with_stronger_annotation_only_is_refused():
    expected = "'odd': expected labels, which the method learns from, got masks; .*`annotator: image-level`"
    with pytest.raises(DataError, match=expected):
        fit("centre-blob", [annotated("odd", labels=None)], [], INFO)


def test_the_size_of_the_training_images_is_recorded_if_they_share_one():
    small = annotated("small", masks=None)
    large = dataclasses.replace(small, image=np.zeros((2, 9, 10), np.float32))
    assert fit("centre-blob", [small, small], [], INFO).info == dataclasses.replace(INFO, training_size=(16, 16))
    assert fit("centre-blob", [small, large], [], INFO).info == INFO
    named = dataclasses.replace(INFO, image_size=(16, 16))
    assert fit("centre-blob", [small, small], [], named).info == named


@pytest.fixture(scope="module")
def trained() -> Pipeline:
    samples = [sample.keep({Annotation.LABELS}) for sample in full_samples(6, (64, 64))]
    method = Choice(
        name="micra-net",
        params={
            "backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}},
            "dropout": 0,
            "training": {"epochs": 1, "batch_size": 4},
        },
    )
    info = DatasetInfo("shapes", ("disc", "square"), 1, Normalisation(), "0" * 64)
    head = Choice(
        name="semantic", params={"presence_threshold": 0.0, "mask_threshold": {"name": "fixed", "value": 0.5}}
    )
    context = FitContext(seed=0, device="cpu", precision="float32")
    return fit(method, samples[:4], samples[4:], info, context, head)


def test_micra_net_gives_the_same_in_tiles_without_overlap(trained):
    image = full_samples(1, (64, 64))[0].image
    whole = Pipeline(trained.method, trained.model, trained.head_name, trained.head, trained.info)
    cut = Pipeline(
        *(getattr(whole, name) for name in ("method", "model", "head_name", "head", "info")), Tiling(size=64, halo=0)
    )
    (tiled,) = cut.predict([np.tile(image, (1, 2, 2))])
    (alone,) = whole.predict([image])
    assert np.allclose(tiled.scores.presence, alone.scores.presence, atol=1e-6)
    assert np.allclose(tiled.scores.maps, np.tile(alone.scores.maps, (1, 2, 2)), atol=1e-5)


def test_a_model_is_what_was_saved_unless_overridden_by_name(trained, tmp_path):
    image = full_samples(1, (64, 64))[0].image
    trained.with_thresholds(Thresholds((0.0, 0.1), 0.4), "validation").save(tmp_path / "model")
    same = micraframe.load(tmp_path / "model", "cpu")
    assert same.method == trained.method
    assert same.head.params.presence_threshold == (0.0, 0.1)
    assert same.head.params.mask_threshold.value == 0.4
    assert same.origins == {"presence": "validation", "mask": "validation"}
    (before,), (after,) = (one.score([image], lambda presence: (0, 1)) for one in (trained, same))
    assert before.maps.tobytes() == after.maps.tobytes()
    other = micraframe.load(
        tmp_path / "model",
        "cpu",
        head="classification",
        tiling=Tiling(size=64, halo=0),
        combiner=Choice(name="last-layer"),
    )
    assert other.head_name == "micraframe/classification"
    assert other.method.params["combiner"]["name"] == "micraframe/last-layer"
    assert other.method.params["extractor"] == trained.method.params["extractor"]
    assert other.tiling is not None
    assert other.origins == {}


@pytest.mark.parametrize("name", ["pooling", "backbone", "surely"])
def test_what_was_learned_cannot_be_overridden(trained, tmp_path, name):
    trained.save(tmp_path / "model")
    with pytest.raises(
        ConfigError,
        match=f"'{name}' is not a parameter of method micra-net that can .*only combiner, extractor and the head can",
    ):
        micraframe.load(tmp_path / "model", "cpu", **{name: "mean"})


def test_weights_that_do_not_fit_the_description_are_refused(trained, tmp_path):
    trained.save(tmp_path / "model")
    file = tmp_path / "model" / DESCRIPTION
    record = json.loads(file.read_text())
    record["method"]["params"]["backbone"]["params"]["widths"] = [5, 8]
    file.write_text(json.dumps(record))
    with pytest.raises(ModelError, match="the weights do not fit"):
        micraframe.load(tmp_path / "model", "cpu")
