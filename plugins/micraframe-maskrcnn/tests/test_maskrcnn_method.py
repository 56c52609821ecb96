from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from micraframe import pipeline, registry
from micraframe.annotators.scribbles import Scribbles
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError
from micraframe.interfaces import Thresholds
from micraframe.objects import bounding_boxes
from micraframe.pipeline import Pipeline
from micraframe.testing import check
from micraframe.tiling import Tiling
from micraframe.tuning import tune
from micraframe.types import DatasetInfo, FitContext, Normalisation, Prediction, Progress, Sample

INFO = DatasetInfo("shapes", ("bright", "dark"), 2, Normalisation(), "0" * 64)
CONTEXT = FitContext(seed=3, device="cpu", precision="float32")
TRAINING = {
    "epochs": 20,
    "batch_size": 4,
    "optimiser": "adamw",
    "learning_rate": 4e-3,
    "schedule": "one-cycle",
    "gradient_clipping": 10.0,
    "augmentations": [{"kind": "flip"}, {"kind": "quarter-turns"}],
}
SMALL = {
    "backbone": {"name": "unet-encoder", "params": {"widths": [8, 16, 32]}},
    "strides": [2, 4],
    "pyramid": 16,
    "box_head": 32,
    "mask_head": [16],
    "anchors": [3.0, 5.0],
    "ratios": [1.0],
    "rois_per_image": 32,
    "training": TRAINING,
}
SHORT = {**SMALL, "training": {**TRAINING, "epochs": 2}}
IMAGE = np.zeros((2, 40, 48), np.float32)


def samples(count: int, start: int = 0) -> list[Sample]:
    """Bright and dark discs, of two classes, on grey; two channels; each third image is empty."""
    made = []
    y, x = np.mgrid[:40, :48]
    for number in range(start, start + count):
        rng = np.random.default_rng(number)
        image = (0.5 + 0.05 * rng.standard_normal((2, 40, 48))).astype(np.float32)
        instances = np.zeros((2, 40, 48), np.int32)
        for label in range(0 if number % 3 == 2 else 3):
            index, radius = label % 2, rng.uniform(4, 7)
            disc = (y - rng.uniform(6, 34)) ** 2 + (x - rng.uniform(6, 42)) ** 2 < radius**2
            disc &= ~instances.any(0)
            instances[index][disc] = label + 1
            image[:, disc] = (1.0, 0.0)[index]
        made.append(
            Sample(f"s{number}", image, masks=instances > 0, instances=instances, boxes=bounding_boxes(instances))
        )
    return made


def method(params: Mapping[str, object] = SHORT, **changes: object):
    return registry.build("method", "mask-rcnn", **{**params, **changes})


def fit(train: Sequence[Sample], valid: Sequence[Sample], params=SHORT, context=CONTEXT, **changes) -> Pipeline:
    return pipeline.fit(Choice(name="mask-rcnn", params={**params, **changes}), train, valid, INFO, context)


def detections(**params: object) -> Choice:
    return Choice(name="detections", params=params)


def mean_iou(test: Sequence[Sample], predictions: Iterable[Prediction]) -> float:
    """Return the mean IoU of masks over images and classes, without those that have no mask in either."""
    pairs = [
        (truth & mask, truth | mask)
        for sample, prediction in zip(test, predictions, strict=True)
        for truth, mask in zip(sample.masks, prediction.masks, strict=True)
    ]
    return float(np.mean([both.sum() / either.sum() for both, either in pairs if either.any()]))


def f1(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the F1 of objects at an IoU of 0.7, of label images (H, W); NaN without objects."""
    pairs = [((truth == i) & (found == j), (truth == i) | (found == j)) for i, j in product(ids(truth), ids(found))]
    matched = sum(both.sum() > 0.7 * either.sum() for both, either in pairs)
    count = len(ids(truth)) + len(ids(found))
    return 2 * matched / count if count else np.nan


def ids(labels: np.ndarray) -> list[int]:
    return np.unique(labels[labels > 0]).tolist()


def only(*kinds: str, count: int = 8, start: int = 0) -> list[Sample]:
    gone = {kind: None for kind in ("masks", "instances", "boxes") if kind not in kinds}
    return [replace(sample, **gone) for sample in samples(count, start)]


def weights(fitted) -> str:
    state = fitted.model.state()
    return hashlib.sha256(b"".join(state[name].contiguous().numpy().tobytes() for name in sorted(state))).hexdigest()


@pytest.fixture(scope="module")
def learned():
    """Return a pipeline trained on 60 images, and 12 other images."""
    return fit(samples(60), samples(6, 70), SMALL), samples(12, 100)


def test_conformance():
    check("method", "mask-rcnn", **SHORT)


def test_the_default_network_is_a_resnet50_without_pretraining():
    default = method({}).params
    assert default.backbone.params["model"] == "resnet50"
    assert "pretrained" not in default.backbone.params


def test_a_timm_backbone_takes_any_number_of_channels():
    info = replace(INFO, channels=4, classes=("a", "b", "c"), roles=())
    backbone = {"name": "timm", "params": {"model": "resnet18", "out_indices": [1, 2, 3, 4]}}
    given_ = [
        replace(one, image=np.repeat(one.image, 2, 0), masks=None, boxes=None, instances=one.instances[[0, 1, 0]])
        for one in samples(2)
    ]
    params = {**SHORT, "backbone": backbone, "strides": [4, 8, 16, 32], "training": {**TRAINING, "epochs": 1}}
    fitted = pipeline.fit(Choice(name="mask-rcnn", params=params), given_, given_, info, CONTEXT)
    network = fitted.model.network
    assert network.stride == 32
    assert network.roi_heads.box_predictor.module.cls_score.out_features == 4
    assert not any(getattr(module, "inplace", False) for module in network.pyramid.modules())


def test_it_finds_objects_and_their_classes(learned):
    fitted, test = learned
    predictions = list(fitted.predict(sample.image for sample in test))
    found = [
        f1(truth, mine)
        for sample, prediction in zip(test, predictions, strict=True)
        for truth, mine in zip(sample.instances, prediction.instances, strict=True)
    ]
    assert np.nanmean(found) > 0.8
    empty = [prediction for sample, prediction in zip(test, predictions, strict=True) if not sample.masks.any()]
    assert len(empty) == 4
    assert not any(prediction.present.any() for prediction in empty)


def test_a_saved_model_predicts_the_same(learned, tmp_path: Path):
    fitted, test = learned
    fitted.save(tmp_path / "model")
    loaded = pipeline.load(tmp_path / "model", "cpu")
    images = [sample.image for sample in test]
    for before, after in zip(fitted.predict(images), loaded.predict(images), strict=True):
        assert np.array_equal(before.instances, after.instances)
        assert np.array_equal(before.scores.maps, after.scores.maps)


def test_head_and_inference_parameters_can_change_after_training(learned, tmp_path: Path):
    fitted, test = learned
    fitted.save(tmp_path / "model")
    image = test[0].image
    [before] = fitted.predict([image])
    assert before.present.any()
    strict = pipeline.load(tmp_path / "model", "cpu", head=detections(presence_threshold=1.0))
    [after] = strict.predict([image])
    assert np.array_equal(after.scores.presence, before.scores.presence)
    assert not after.instances.any()
    [one] = pipeline.load(tmp_path / "model", "cpu", detections=1).predict([image])
    assert np.count_nonzero(one.scores.presence) == 1


@pytest.mark.parametrize("override", [{"anchors": [9.0]}, {"min_size": 80}, {"pyramid": 8}, {"rois_per_image": 8}])
def test_learned_parameters_cannot_be_overridden(learned, tmp_path: Path, override):
    fitted, _ = learned
    fitted.save(tmp_path / "model")
    with pytest.raises(ConfigError, match="only detections, nms_iou and the head can"):
        pipeline.load(tmp_path / "model", "cpu", **override)


def test_tuned_thresholds_act_like_the_same_thresholds_in_a_configuration(learned):
    fitted, test = learned
    images = [sample.image for sample in test]
    tuned = fitted.with_thresholds(Thresholds((0.1, 0.95), 0.2), "validation")
    rule = {"name": "fixed", "value": 0.2}
    configured = fitted.with_head(detections(presence_threshold=[0.1, 0.95], mask_threshold=rule))
    changed = 0
    both = zip(tuned.predict(images), configured.predict(images), fitted.predict(images), images, strict=True)
    for mine, other, before, image in both:
        again = tuned.decide(before.scores, image)
        for name in ("present", "masks", "instances"):
            assert np.array_equal(getattr(mine, name), getattr(other, name))
            assert np.array_equal(getattr(again, name), getattr(other, name))
        assert [(one.name, one.value) for one in mine.thresholds] == [(one.name, one.value) for one in other.thresholds]
        assert {one.origin for one in mine.thresholds} == {"validation"}
        changed += not np.array_equal(mine.instances, before.instances)
    assert changed


def test_tuning_finds_better_thresholds(learned):
    fitted, test = learned
    strict = fitted.with_thresholds(Thresholds((1.0, 1.0), 0.95), "validation")
    scores = list(strict.score(sample.image for sample in test))
    tuned = strict.with_thresholds(tune(strict, test, scores), "validation")
    pairs = list(zip(scores, test, strict=True))
    assert not any(strict.decide(one, sample.image).masks.any() for one, sample in pairs)
    assert mean_iou(test, (tuned.decide(one, sample.image) for one, sample in pairs)) > 0.6


def test_tiles_find_the_objects_of_the_whole_image(learned):
    fitted, _ = learned
    image = np.concatenate(
        [np.concatenate([one.image for one in samples(3, start)], 2) for start in (200, 203, 206)], 1
    )
    [whole] = fitted.predict([image])
    [tiled] = replace(fitted, tiling=Tiling(size=96, halo=32)).predict([image])
    assert min(f1(one, other) for one, other in zip(whole.instances, tiled.instances, strict=True)) > 0.8
    best = [several.scores.max(initial=0) for several in tiled.scores.objects]
    assert tiled.scores.presence.tolist() == best


@pytest.mark.parametrize("name", ["semantic", "instance", "detection", "classification"])
def test_any_other_head_decides_by_the_maps(learned, name):
    fitted, test = learned
    present = [sample.masks.any((1, 2)) for sample in test]
    other = fitted.with_head(name)
    predictions = list(other.predict(sample.image for sample in test))
    right = [np.array_equal(one.present, truth) for one, truth in zip(predictions, present, strict=True)]
    assert np.mean(right) > 0.8
    if name != "classification":
        assert mean_iou(test, predictions) > 0.6


def test_images_are_resized_to_min_size(learned):
    fitted, test = learned
    sample = test[0]
    small = torch.nn.functional.interpolate(torch.tensor(sample.image)[None], scale_factor=0.5)[0].numpy()
    [plain] = fitted.predict([sample.image])
    model = method(SMALL, min_size=40).restore(fitted.model.state(), INFO, "cpu")
    [resized] = replace(fitted, model=model).predict([small])
    assert resized.instances.shape == (2, 20, 24)
    enlarged = np.kron(resized.masks, np.ones((1, 2, 2), bool))
    assert (enlarged & plain.masks).sum() > 0.6 * (enlarged | plain.masks).sum()


def test_same_seed_same_bytes():
    train, valid = samples(6), samples(3, 50)
    first, again = (weights(fit(train, valid)) for _ in range(2))
    assert first == again
    assert first != weights(fit(train, valid, context=replace(CONTEXT, seed=4)))


def test_a_killed_training_resumes_to_the_same_bytes(tmp_path: Path):
    train, valid = samples(6), samples(3, 50)
    whole = fit(train, valid, context=replace(CONTEXT, folder=tmp_path / "whole"))

    class Kill(Progress):
        def advance(self, label, done, total, numbers=None):
            if done > total // 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(train, valid, context=replace(CONTEXT, folder=tmp_path / "cut", progress=Kill()))
    resumed = fit(train, valid, context=replace(CONTEXT, folder=tmp_path / "cut"))
    assert weights(resumed) == weights(whole)
    header = (tmp_path / "whole" / "log.csv").read_text().splitlines()[0]
    assert "loss mask" in header


@pytest.mark.parametrize("kind", ["instances", "boxes", "masks"])
def test_each_kind_of_annotation_is_enough(kind):
    fitted = fit(only(kind), only(kind, count=3, start=50), context=replace(CONTEXT, precision="bfloat16"))
    assert all(torch.isfinite(tensor.float()).all() for tensor in fitted.model.state().values())


def test_scribbles_are_rejected():
    scribbles = Scribbles(Scribbles.Params())
    drawn = [scribbles.annotate(sample, 0)[0].keep(method().learns_from) for sample in samples(3)]
    with pytest.raises(DataError, match="expected training samples with objects of known outline, got none"):
        fit(drawn, drawn)


def test_samples_without_objects_are_rejected():
    nothing = [replace(sample, masks=sample.masks & False, instances=None, boxes=None) for sample in samples(3)]
    with pytest.raises(DataError, match="'shapes': expected training samples with objects"):
        fit(nothing, nothing)


def test_a_backbone_without_the_strides_is_rejected():
    with pytest.raises(
        ConfigError, match=r"backbone's strides \[1, 2, 4\].*, got \[16\]; the backbone has none of them"
    ):
        fit(samples(3), samples(3), strides=[16])


def test_weights_of_another_network_are_rejected(learned):
    fitted, _ = learned
    with pytest.raises(RuntimeError, match="size mismatch"):
        method(SMALL, pyramid=8).restore(fitted.model.state(), INFO, "cpu")
