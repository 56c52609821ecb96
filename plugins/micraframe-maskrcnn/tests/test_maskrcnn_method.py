from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from micraframe import registry
from micraframe.annotators.scribbles import Scribbles
from micraframe.errors import ConfigError, DataError, ModelError
from micraframe.metrics.objects import f1_curve, ious, overlaps
from micraframe.metrics.overlap import overlap
from micraframe.objects import bounding_boxes
from micraframe.study.tuning import redecided, tune
from micraframe.testing import check
from micraframe.types import DatasetInfo, Normalisation, Prediction, Progress, Run, Sample

INFO = DatasetInfo("shapes", ("bright", "dark"), 2, Normalisation(), "0" * 64)
RUN = Run(seed=3, device="cpu", precision="float32")
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
    "regions": 32,
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


def detections(**params: object) -> dict[str, object]:
    return {"name": "detections", "params": params}


def mean_iou(test: Sequence[Sample], predictions: Iterable[Prediction]) -> float:
    both = zip(test, predictions, strict=True)
    return float(np.nanmean([overlap(sample.masks, prediction.masks)["iou"] for sample, prediction in both]))


def only(*kinds: str, count: int = 8, start: int = 0) -> list[Sample]:
    gone = {kind: None for kind in ("masks", "instances", "boxes") if kind not in kinds}
    return [replace(sample, **gone) for sample in samples(count, start)]


def weights(fitted) -> str:
    state = fitted.network.state_dict()
    return hashlib.sha256(b"".join(state[name].contiguous().numpy().tobytes() for name in sorted(state))).hexdigest()


@pytest.fixture(scope="module")
def learned():
    """What was learned from 48 images, and 12 others."""
    return method(SMALL).fit(samples(48), samples(6, 50), INFO, RUN), samples(12, 100)


def test_it_keeps_the_promises_of_a_method():
    check("method", "mask-rcnn", **SHORT)


def test_the_default_network_can_be_made_of_any_number_of_channels():
    made = method({}, backbone={"name": "timm", "params": {"model": "resnet18", "out_indices": [1, 2, 3, 4]}})
    network = made._network(made._backbone(), channels=4, classes=3, seed=0)
    assert network.stride == 32
    assert network.roi_heads.box_predictor.module.cls_score.out_features == 4
    assert method({}).params.backbone.params["model"] == "resnet50"


def test_it_finds_objects_and_their_classes(learned):
    fitted, test = learned
    predictions = list(fitted.predict(sample.image for sample in test))
    found = [
        f1_curve(ious(overlaps(truth, mine)), [0.7])[0]
        for sample, prediction in zip(test, predictions, strict=True)
        for truth, mine in zip(sample.instances, prediction.instances, strict=True)
    ]
    assert np.nanmean(found) > 0.8
    empty = [prediction for sample, prediction in zip(test, predictions, strict=True) if not sample.masks.any()]
    assert len(empty) == 4
    assert not any(prediction.present.any() for prediction in empty)


def test_what_was_saved_predicts_the_same(learned, tmp_path: Path):
    fitted, test = learned
    fitted.save(tmp_path / "model")
    loaded = method(SMALL).load(tmp_path / "model", "cpu")
    images = [sample.image for sample in test]
    for before, after in zip(fitted.predict(images), loaded.predict(images[:]), strict=True):
        assert np.array_equal(before.instances, after.instances)
        assert np.array_equal(before.score_map.values, after.score_map.values)
        assert before.method == after.method == "micraframe-maskrcnn/mask-rcnn"


def test_what_decides_is_chosen_after_training(learned, tmp_path: Path):
    fitted, test = learned
    fitted.save(tmp_path / "model")
    image = test[0].image
    [before] = fitted.predict([image])
    assert before.present.any()
    strict = method(SMALL, head=detections(decision=1.0)).load(tmp_path / "model", "cpu")
    [after] = strict.predict([image])
    assert np.array_equal(after.scores, before.scores)
    assert not after.instances.any()
    [one] = method(SMALL, detections=1).load(tmp_path / "model", "cpu").predict([image])
    assert np.count_nonzero(one.scores) == 1
    assert set(type(method()).decided_after) == {"head", "overlap", "detections"}


def test_tuned_thresholds_decide_as_a_new_method_with_them_does(learned, tmp_path: Path):
    fitted, test = learned
    fitted.save(tmp_path / "model")
    images = [sample.image for sample in test]
    tuned = fitted.with_head(fitted.head.with_thresholds((0.1, 0.95), 0.2))
    head = detections(decision=[0.1, 0.95], threshold={"name": "fixed", "value": 0.2})
    new = method(SMALL, head=head).load(tmp_path / "model", "cpu")
    usual = list(fitted.predict(images))
    changed = 0
    for mine, other, before in zip(tuned.predict(images), new.predict(images), usual, strict=True):
        again = tuned.head.decide(before.score_map, before.scores, IMAGE)
        for name in ("scores", "present", "masks", "instances"):
            assert np.array_equal(getattr(mine, name), getattr(other, name))
            assert np.array_equal(getattr(again, name), getattr(other, name))
        assert mine.thresholds == other.thresholds == again.thresholds
        changed += not np.array_equal(mine.instances, before.instances)
    assert changed


def test_thresholds_are_tuned_and_never_for_the_worse(learned):
    fitted, test = learned
    strict = fitted.with_head(fitted.head.with_thresholds((1.0, 1.0), 0.95))
    known = tuple(strict.predict(sample.image for sample in test))
    tuned = tune(strict, test, known)
    better = redecided(strict, strict.head.with_thresholds(*tuned), test, known)
    assert mean_iou(test, better) > 0.6
    assert not any(prediction.masks.any() for prediction in known)


@pytest.mark.parametrize("name", ["semantic", "instance", "detection", "classification"])
def test_any_other_head_decides_by_the_score_map(learned, name):
    fitted, test = learned
    present = [sample.masks.any((1, 2)) for sample in test]
    other = fitted.with_head(registry.build("head", name))
    predictions = list(other.predict(sample.image for sample in test))
    right = [np.array_equal(one.present, truth) for one, truth in zip(predictions, present, strict=True)]
    assert np.mean(right) > 0.8
    if name != "classification":
        assert mean_iou(test, predictions) > 0.6


def test_images_are_seen_at_the_size_that_is_asked_for(learned, tmp_path: Path):
    fitted, test = learned
    fitted.save(tmp_path / "model")
    sample = test[0]
    small = torch.nn.functional.interpolate(torch.from_numpy(sample.image)[None], scale_factor=0.5)[0].numpy()
    [plain] = fitted.predict([sample.image])
    [resized] = method(SMALL, min_size=40).load(tmp_path / "model", "cpu").predict([small])
    assert resized.instances.shape == (2, 20, 24)
    blown_up = np.kron(resized.masks, np.ones((1, 2, 2), bool))
    assert (blown_up & plain.masks).sum() > 0.6 * (blown_up | plain.masks).sum()


def test_same_seed_same_bytes():
    train, valid = samples(6), samples(3, 50)
    first, again = (weights(method().fit(train, valid, INFO, RUN)) for _ in range(2))
    assert first == again
    assert first != weights(method().fit(train, valid, INFO, replace(RUN, seed=4)))


def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path):
    train, valid = samples(6), samples(3, 50)
    whole = method().fit(train, valid, INFO, replace(RUN, folder=tmp_path / "whole"))

    class Kill(Progress):
        def advance(self, label, done, total, numbers=None):
            if done > total // 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method().fit(train, valid, INFO, replace(RUN, folder=tmp_path / "cut", progress=Kill()))
    resumed = method().fit(train, valid, INFO, replace(RUN, folder=tmp_path / "cut"))
    assert weights(resumed) == weights(whole)
    header = (tmp_path / "whole" / "log.csv").read_text().splitlines()[0]
    assert "loss mask" in header


@pytest.mark.parametrize("kind", ["instances", "boxes", "masks"])
def test_each_kind_of_annotation_is_enough(kind):
    fitted = method().fit(only(kind), only(kind, count=3, start=50), INFO, replace(RUN, precision="bfloat16"))
    assert all(torch.isfinite(tensor.float()).all() for tensor in fitted.network.state_dict().values())


def test_scribbles_are_refused():
    scribbles = Scribbles(Scribbles.Params())
    drawn = [scribbles.annotate(sample, 0)[0].keep(method().learns_from) for sample in samples(3)]
    with pytest.raises(DataError, match="no training sample has an object of which it is known where it ends"):
        method().fit(drawn, drawn, INFO, RUN)


def test_samples_without_objects_are_refused():
    nothing = [replace(sample, masks=sample.masks * False, instances=None, boxes=None) for sample in samples(3)]
    with pytest.raises(DataError, match="'shapes': no training sample has an object"):
        method().fit(nothing, nothing, INFO, RUN)
    with pytest.raises(DataError, match="'s0' has neither instances, boxes nor masks"):
        method().fit(only(), only(), INFO, RUN)


def test_a_backbone_without_the_strides_is_refused():
    with pytest.raises(ConfigError, match=r"strides \[1, 2, 4\]; of the strides \[16\] wanted, none"):
        method(strides=[16]).fit(samples(3), samples(3), INFO, RUN)


def test_models_that_do_not_fit_are_refused(learned, tmp_path: Path):
    fitted, test = learned
    fitted.save(tmp_path / "model")
    with pytest.raises(ModelError, match="do not fit the network"):
        method(SMALL, pyramid=8).load(tmp_path / "model", "cpu")
    with pytest.raises(ModelError, match="image 0 has 1 channels; the model learned from images of 2"):
        next(fitted.predict([test[0].image[:1]]))
    control = registry.build("method", "centre-blob")
    labelled = [replace(sample, labels=sample.masks.any((1, 2))) for sample in samples(3)]
    control.fit(labelled, labelled, INFO, RUN).save(tmp_path / "control")
    with pytest.raises(ModelError, match=r"holds a micraframe/centre-blob; a micraframe-maskrcnn/mask-rcnn is wanted"):
        method().load(tmp_path / "control")
