from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from micraframe_unet.method import UNet, UNetModel

from micraframe import pipeline, registry
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError, ModelError
from micraframe.pipeline import Pipeline
from micraframe.testing import check, full_samples
from micraframe.tiling import Tiling
from micraframe.types import Annotation, DatasetInfo, FitContext, Normalisation, Progress, Sample

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
    annotate = registry.build("annotator", annotator).annotate
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
        samples.append(annotate(sample, 0)[0])
    return samples


def unet(**params: Any) -> Choice:
    return Choice(name="micraframe-unet/unet", params=params)


def fitted(samples: list[Sample], seed: int = 0, folder: Path | None = None, **params: Any) -> Pipeline:
    cut = len(samples) * 3 // 4
    context = FitContext(seed=seed, folder=folder, device="cpu", precision="float32")
    return pipeline.fit(unet(**params), samples[:cut], samples[cut:], INFO, context)


def weights(model: Pipeline) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.model.state().items()}


@pytest.mark.parametrize("encoder", ["unet-encoder", "tu-resnet10t"])
def test_conformance(encoder: str) -> None:
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


def mean_iou(model: Pipeline) -> float:
    test = samples_of(80)[64:]
    values = []
    for sample, prediction in zip(test, model.predict(sample.image for sample in test), strict=True):
        assert sample.masks is not None
        assert prediction.masks is not None
        values.append((sample.masks & prediction.masks).sum() / (sample.masks | prediction.masks).sum())
    return float(np.mean(values))


def test_what_ignored_pixels_are_annotated_as_does_not_matter() -> None:
    ignore = np.random.default_rng(0).random((24, 24)) < 0.3
    one = [replace(sample, ignore=ignore) for sample in samples_of(8)]
    other = [replace(sample, masks=np.asarray(sample.masks) ^ ignore) for sample in one]
    params = QUICK | {"loss": "generalised-cross-entropy"}
    assert weights(fitted(one, **params)) == weights(fitted(other, **params))
    assert weights(fitted(one, **params)) != weights(fitted(samples_of(8), **params))


def test_masks_with_errors_are_learned_from() -> None:
    def shifted(sample: Sample, number: int) -> Sample:
        return replace(sample, masks=np.roll(np.asarray(sample.masks), 4 * (number % 3 == 0), 2))

    given = [shifted(sample, number) for number, sample in enumerate(samples_of(64))]
    assert mean_iou(fitted(given, **LEARNING, loss="generalised-cross-entropy")) > 0.7


def test_classes_may_overlap_unless_the_head_resolves_it(tmp_path: Path) -> None:
    samples = []
    for sample in full_samples(8):
        assert sample.masks is not None
        samples.append(replace(sample, masks=np.repeat(sample.masks.any(0, keepdims=True), 2, 0), instances=None))
    model = fitted(samples, **LEARNING)
    allowed = next(model.predict([samples[1].image]))
    assert allowed.masks is not None
    assert allowed.masks.all(0).any()
    model.save(tmp_path / "model")
    rule = {"name": "fixed", "value": 0.5}
    head = Choice(name="semantic", params={"overlap": "argmax", "mask_threshold": rule})
    single = next(pipeline.load(tmp_path / "model", "cpu", head=head).predict([samples[1].image]))
    assert single.masks is not None
    assert np.array_equal(single.masks.any(0), allowed.masks.any(0))
    assert not single.masks.all(0).any()


def test_presence_and_masks_follow_from_the_maps() -> None:
    fit = fitted(full_samples(8), **QUICK)
    assert isinstance(fit.model, UNetModel)
    images = [np.random.default_rng(0).random((1, *size), np.float32) for size in ((33, 47), (33, 47), (5, 9))]
    for image, prediction in zip(images, fit.predict(images), strict=True):
        scores = prediction.scores
        assert scores.classes == (0, 1)
        assert scores.coarse is None
        assert np.array_equal(scores.presence, scores.maps.max((1, 2)))
        assert np.array_equal(prediction.masks, (scores.maps > 0.5) & prediction.present[:, None, None])
        assert np.allclose(scores.maps, fit.model.probabilities(image[None])[0], atol=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_a_killed_run_resumes(tmp_path: Path) -> None:
    params = QUICK | {"training": {"epochs": 3, "batch_size": 4}}

    class Killed(Progress):
        def advance(self, label: str, done: int, total: int, numbers: Any = None) -> None:
            if done > total / 2:
                raise KeyboardInterrupt

    samples = full_samples(12)
    context = FitContext(3, tmp_path / "run", "cpu", "float32")
    with pytest.raises(KeyboardInterrupt):
        pipeline.fit(unet(**params), samples[:9], samples[9:], INFO, replace(context, progress=Killed()))
    resumed = pipeline.fit(unet(**params), samples[:9], samples[9:], INFO, context)
    assert weights(resumed) == weights(fitted(samples, 3, **params))
    assert weights(resumed) != weights(fitted(samples, 4, **params))
    header = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert "dice disc,dice square" in header


def test_the_recipe_has_defaults_of_its_own() -> None:
    built = registry.build("method", "unet", training={"epochs": 7})
    assert isinstance(built, UNet)
    training = built.params.training
    assert (training.epochs, training.batch_size, training.pos_weight) == (7, 16, None)


def test_image_level_labels_are_rejected() -> None:
    assert not UNet.learns_from & {Annotation.LABELS}
    labelled = [sample.keep({Annotation.LABELS}) for sample in full_samples(4)]
    with pytest.raises(DataError, match="expected points or boxes or masks, .* got labels"):
        fitted(labelled, **QUICK)
    dotted = [sample.keep({Annotation.POINTS}) for sample in full_samples(8)]
    everywhere = [sample for sample in dotted if sample.points and all(len(one) for one in sample.points)]
    assert len(everywhere) >= 4
    with pytest.raises(DataError, match="set background_distance"):
        fitted(everywhere, **QUICK)


def test_a_saved_model_scores_the_same_and_its_learned_parameters_cannot_be_overridden(tmp_path: Path) -> None:
    fit = fitted(full_samples(4), **QUICK)
    fit.save(tmp_path / "model")
    image = np.random.default_rng(0).random((1, 33, 47), np.float32)
    before, after = (next(one.score([image])) for one in (fit, pipeline.load(tmp_path / "model", "cpu")))
    # Another head thresholds probabilities as the default head does, unless it has a threshold of its own.
    instance = pipeline.load(tmp_path / "model", "cpu", head="instance").head.params.mask_threshold
    assert (instance.name, instance.value) == ("fixed", 0.5)
    other = pipeline.load(tmp_path / "model", "cpu", head=Choice(name="instance", params={"mask_threshold": "otsu"}))
    assert other.head.params.mask_threshold.name == "otsu"
    assert np.array_equal(before.maps, after.maps)
    for override in ({"loss": "mse"}, {"widths": (4, 8, 16)}, {"point_radius": 5}):
        with pytest.raises(ConfigError, match="of method unet that can be changed after training; only the head can"):
            pipeline.load(tmp_path / "model", "cpu", **override)
    with pytest.raises(RuntimeError, match="Missing key"):
        registry.build("method", "unet", widths=(4, 8, 16)).restore(fit.model.state(), INFO, "cpu")


def test_pretrained_weights_of_the_own_encoder_do_not_exist() -> None:
    with pytest.raises(ModelError, match="no published weights"):
        fitted(full_samples(4), pretrained=True, **QUICK)


def test_narrow_normalisation_changes_rounding_only() -> None:
    image = np.random.default_rng(0).random((1, 33, 47), np.float32)
    torch_, narrow = (next(fitted(full_samples(8), norm=norm, **QUICK).score([image])) for norm in ("torch", "narrow"))
    assert 0 < np.abs(torch_.maps - narrow.maps).max() < 1e-3


def test_tiles_give_the_maps_of_the_whole_image() -> None:
    model = fitted(samples_of(8), **QUICK)
    image = np.random.default_rng(5).random((1, 150, 203)).astype(np.float32)
    (whole,) = model.score([image])
    (tiled,) = replace(model, tiling=Tiling(size=96, halo=32)).score([image])  # its receptive field reaches 18 pixels
    assert np.abs(tiled.maps - whole.maps).max() < 1e-6
    assert np.abs(tiled.presence - whole.presence).max() < 1e-6
    (near,) = replace(model, tiling=Tiling(size=64, halo=0)).score([image])
    assert np.abs(near.maps - whole.maps).max() > 1e-3, "without a halo, seams are visible"
    assert near.presence.tolist() == near.maps.max(axis=(1, 2)).tolist()


def test_images_are_scored_in_exact_float32() -> None:
    model = fitted(samples_of(8), **QUICK).model
    seen = []
    model.network.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    list(model.score([np.zeros((1, 24, 24), np.float32)], lambda presence: [0]))
    assert seen == ["ieee"]


def test_training_starts_from_the_backbone_that_is_given() -> None:
    samples = samples_of(4)
    recipe = {"epochs": 1, "learning_rate": 1e-12, "early_stopping": None, "augmentations": []}
    method = registry.build("method", "unet", widths=(4, 8), training=recipe)
    context = FitContext(seed=1, device="cpu", precision="float32")
    start = registry.build("method", "unet", widths=(4, 8)).untrained(INFO).state()
    given, anew = (
        method.fit(samples, samples, INFO, each).state() for each in (replace(context, start=start), context)
    )
    name = "network.backbone.encoder.blocks.1a.conv.weight"
    torch.testing.assert_close(given[name], start[name])
    assert not torch.allclose(anew[name], start[name])
