from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micraframe_unet.method import NAME, FittedUNet, UNet

from micraframe import registry
from micraframe.errors import DataError, ModelError
from micraframe.testing import check, full_samples
from micraframe.tiling import Tiling, predict
from micraframe.types import Annotation, DatasetInfo, Normalisation, Progress, Run, Sample

INFO = DatasetInfo("discs and squares", ("disc", "square"), 1, Normalisation("min-max"), "0" * 64)
QUICK: dict[str, Any] = {"widths": (4, 8), "training": {"epochs": 1, "batch_size": 4}}
LEARNING: dict[str, Any] = {
    "widths": (8, 8),
    "training": {
        "epochs": 8,
        "batch_size": 4,
        "optimiser": "adamw",
        "learning_rate": 0.03,
        "schedule": "one-cycle",
        "augmentations": [],
    },
}


def samples_of(count: int, annotator: str = "full") -> list[Sample]:
    """Images with a bright disc (class 0) and a dark one (class 1), each absent from every third image."""
    told = registry.build("annotator", annotator)
    rows, columns = np.mgrid[:24, :24]
    samples = []
    for number in range(count):
        rng = np.random.default_rng(number)
        masks = np.stack([np.hypot(rows - rng.integers(6, 18), columns - x) < 5 for x in rng.permutation([6, 17])])
        masks[0] &= number % 3 != 0
        masks[1] &= number % 3 != 1
        image = 0.5 + 0.4 * masks[0] - 0.4 * masks[1] + rng.normal(0, 0.05, (24, 24))
        labels = np.asarray(masks.any((1, 2)))
        sample = Sample(f"{number}", image.astype(np.float32)[None], labels=labels, masks=masks)
        samples.append(told.annotate(sample, 0)[0])
    return samples


def unet(**params: Any) -> UNet:
    made = registry.build("method", NAME, **params)
    assert isinstance(made, UNet)
    return made


def fitted(samples: list[Sample], seed: int = 0, folder: Path | None = None, **params: Any) -> FittedUNet:
    cut = len(samples) * 3 // 4
    run = Run(seed=seed, folder=folder, device="cpu", precision="float32")
    return unet(**params).fit(samples[:cut], samples[cut:], INFO, run)


def weights(model: FittedUNet) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.network.state_dict().items()}


@pytest.mark.parametrize("encoder", ["unet-encoder", "tu-resnet10t"])
def test_it_keeps_every_promise(encoder: str) -> None:
    check("method", "unet", encoder=encoder, **QUICK)


def test_the_entry_module_is_light() -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'timm', 'segmentation_models_pytorch'}"
    code = f"import sys, micraframe_unet; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("annotator", "least"), [("full", 0.85), ("polygons", 0.5), ("boxes", 0.65), ("scribbles", 0.75), ("points", 0.4)]
)
def test_it_learns_from(annotator: str, least: float) -> None:
    given = [sample.keep(UNet.learns_from) for sample in samples_of(64, annotator)]
    assert mean_iou(fitted(given, **LEARNING)) > least


def mean_iou(model: FittedUNet) -> float:
    test = samples_of(80)[64:]
    values = []
    for sample, prediction in zip(test, model.predict(sample.image for sample in test), strict=True):
        assert sample.masks is not None
        assert prediction.masks is not None
        assert prediction.method == NAME
        values.append((sample.masks & prediction.masks).sum() / (sample.masks | prediction.masks).sum())
    return float(np.mean(values))


def test_classes_may_overlap_unless_the_head_forbids_it(tmp_path: Path) -> None:
    samples = []
    for sample in full_samples(8):
        assert sample.masks is not None
        samples.append(replace(sample, masks=np.repeat(sample.masks.any(0, keepdims=True), 2, 0), instances=None))
    model = fitted(samples, **LEARNING)
    allowed = next(model.predict([samples[1].image]))
    assert allowed.masks is not None
    assert allowed.masks.all(0).any()
    model.save(tmp_path / "model")
    head = {"name": "semantic", "params": {"overlap": "argmax", "threshold": {"name": "fixed", "value": 0.5}}}
    single = next(unet(head=head, **LEARNING).load(tmp_path / "model", "cpu").predict([samples[1].image]))
    assert single.masks is not None
    assert np.array_equal(single.masks.any(0), allowed.masks.any(0))
    assert not single.masks.all(0).any()


def test_scores_maps_and_masks_belong_together() -> None:
    model = fitted(full_samples(8), **QUICK)
    images = [np.random.default_rng(0).random((1, *size), np.float32) for size in ((33, 47), (33, 47), (5, 9))]
    for image, prediction in zip(images, model.predict(images), strict=True):
        assert prediction.score_map is not None
        values = prediction.score_map.values
        assert np.array_equal(prediction.scores, values.max((1, 2)))
        assert np.array_equal(prediction.masks, values > 0.5)
        assert np.allclose(values, model.probabilities(image[None])[0], atol=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    params = QUICK | {"training": {"epochs": 3, "batch_size": 4}}

    class Killed(Progress):
        def advance(self, label: str, done: int, total: int, numbers: Any = None) -> None:
            if done > total / 2:
                raise KeyboardInterrupt

    samples = full_samples(12)
    run = Run(3, tmp_path / "run", "cpu", "float32")
    with pytest.raises(KeyboardInterrupt):
        unet(**params).fit(samples[:9], samples[9:], INFO, replace(run, progress=Killed()))
    resumed = unet(**params).fit(samples[:9], samples[9:], INFO, run)
    assert weights(resumed) == weights(fitted(samples, 3, **params))
    assert weights(resumed) != weights(fitted(samples, 4, **params))
    header = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert "dice disc,dice square" in header


def test_parameters_have_the_defaults_that_their_recipe_announces() -> None:
    training = unet(training={"epochs": 7}).params.training
    assert (training.epochs, training.batch_size, training.pos_weight) == (7, 16, None)


def test_weak_labels_are_refused() -> None:
    assert not UNet.learns_from & {Annotation.LABELS}
    labelled = [sample.keep({Annotation.LABELS}) for sample in full_samples(4)]
    with pytest.raises(DataError, match="image-level labels are not enough"):
        fitted(labelled, **QUICK)
    dotted = [sample.keep({Annotation.POINTS}) for sample in full_samples(8)]
    everywhere = [sample for sample in dotted if sample.points and all(len(one) for one in sample.points)]
    assert len(everywhere) >= 4
    with pytest.raises(DataError, match="set background_distance"):
        fitted(everywhere, **QUICK)


def test_a_model_that_is_another_is_refused(tmp_path: Path) -> None:
    fitted(full_samples(4), **QUICK).save(tmp_path / "model")
    with pytest.raises(ModelError, match="do not fit"):
        unet(widths=(4, 8, 16)).load(tmp_path / "model")
    control = registry.build("method", "centre-blob")
    samples = full_samples(4)
    control.fit(samples, samples, INFO, Run()).save(tmp_path / "control")
    with pytest.raises(ModelError, match=f"centre-blob; a {NAME} is wanted"):
        unet().load(tmp_path / "control")
    with pytest.raises(ModelError, match="has 2 channels"):
        next(unet(**QUICK).load(tmp_path / "model", "cpu").predict([np.zeros((2, 8, 8), np.float32)]))


def test_in_tiles_it_says_what_it_says_of_the_whole() -> None:
    model = fitted(samples_of(8), **QUICK)
    image = np.random.default_rng(5).random((1, 150, 203)).astype(np.float32)
    (whole,) = model.predict([image])
    (tiled,) = predict(model, [image], Tiling(size=96, halo=32))  # its reach is 18 pixels
    assert whole.score_map is not None
    assert tiled.score_map is not None
    assert np.abs(tiled.score_map.values - whole.score_map.values).max() < 1e-6
    assert np.abs(tiled.scores - whole.scores).max() < 1e-6
    (near,) = predict(model, [image], Tiling(size=64, halo=0))
    assert near.score_map is not None
    assert np.abs(near.score_map.values - whole.score_map.values).max() > 1e-3, "without a halo, edges show"
    assert near.scores.tolist() == near.score_map.values.max(axis=(1, 2)).tolist()
