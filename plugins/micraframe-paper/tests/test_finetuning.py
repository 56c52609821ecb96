from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micraframe_paper.finetuning import KFoldFinetuning, MeanModel, deal

from micraframe import pipeline, registry
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError
from micraframe.images import write_png
from micraframe.micranet import MicraNetModel
from micraframe.testing import check
from micraframe.types import DatasetInfo, FitContext, Normalisation, Sample

QUICK = {"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "augmentations": []}
SOURCE: dict[str, Any] = {
    "name": "micra-net",
    "params": {
        "backbone": {"name": "unet-encoder", "params": {"widths": [2, 3, 4, 5]}},
        "dropout": 0.0,
        "training": QUICK,
    },
}
INFO = DatasetInfo("new device", ("disc", "square"), 1, Normalisation("min-max"), "0" * 64)
CONTEXT = FitContext(seed=7, device="cpu", precision="float32")


def samples_of(count: int, images: int = 1000) -> list[Sample]:
    """Return random labelled crops, of so many images."""
    samples = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image, group = rng.random((1, 24, 19), np.float32), f"image {number % images}"
        samples.append(Sample(str(number), image, labels=rng.random(2) > 0.5, group=group))
    return samples


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the folders of two saved models."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        context = FitContext(seed=seed, device="cpu", precision="float32")
        pipeline.fit(Choice(**SOURCE), samples_of(8), samples_of(4), INFO, context).save(folder / str(seed))
    return [str(folder / "0"), str(folder / "1")]


def fitted(count: int = 12, context: FitContext = CONTEXT, **params: Any) -> MeanModel:
    method = registry.build("method", "k-fold-finetuning", **{"source": SOURCE, "training": QUICK, "folds": 3} | params)
    model = method.fit(samples_of(count), (), INFO, context)
    assert isinstance(model, MeanModel)
    return model


def weights(model: MeanModel) -> list[dict[str, bytes]]:
    return [{name: tensor.numpy().tobytes() for name, tensor in one.state().items()} for one in model.models]


def saved(folder: str) -> dict[str, bytes]:
    model = pipeline.load(folder, "cpu").model
    return {name: tensor.numpy().tobytes() for name, tensor in model.state().items()}


def test_conformance(models: list[str]) -> None:
    check("method", "k-fold-finetuning")
    check("method", "k-fold-finetuning", source=SOURCE, models=models, unfreeze="nothing")


@pytest.mark.parametrize(("unfreeze", "stages"), [("linear", ""), ("linear+4", "4"), ("linear+3,4", "34")])
def test_frozen_stages_keep_weights_and_statistics(models: list[str], unfreeze: str, stages: str) -> None:
    before = saved(models[1])  # of two, for seed 7
    for learned in weights(fitted(models=models, unfreeze=unfreeze)):
        for name in before:
            learns = name.startswith("linear") or name.split(".")[2][0] in stages
            if not learns:
                assert learned[name] == before[name]
        assert learned["linear.weight"] != before["linear.weight"]
        if stages:
            assert learned["backbone.blocks.4b.norm.running_mean"] != before["backbone.blocks.4b.norm.running_mean"]


def test_nothing_learns(models: list[str]) -> None:
    assert weights(fitted(models=models, unfreeze="nothing")) == [saved(models[1])]
    even = FitContext(seed=4, device="cpu", precision="float32")
    assert weights(fitted(models=models, unfreeze="nothing", context=even)) == [saved(models[0])]


def test_scores_are_means_over_the_folds(models: list[str]) -> None:
    model = fitted(models=models)
    images = [sample.image for sample in samples_of(5)]
    assert len(model.models) == 3
    found = list(model.score(images, lambda presence: [int(presence.argmax())]))
    for image, scores in zip(images, found, strict=True):
        parts = [next(one.score([image], lambda presence: [0, 1])) for one in model.models]
        mean = np.mean([part.presence for part in parts], axis=0)
        np.testing.assert_allclose(scores.presence, mean, atol=1e-6)
        assert scores.classes == (int(mean.argmax()),)
        for name in ("maps", "coarse"):
            expected = np.mean([getattr(part, name)[scores.classes[0]] for part in parts], axis=0)
            np.testing.assert_allclose(getattr(scores, name)[0], expected, atol=1e-5)
    nothing = next(model.score(images[:1], lambda presence: ()))
    assert (nothing.classes, nothing.size) == ((), (24, 19))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(models: list[str]) -> None:
    other = FitContext(seed=9, device="cpu", precision="float32")  # the same source model
    one, again, different = fitted(models=models), fitted(models=models), fitted(models=models, context=other)
    assert weights(one) == weights(again)
    assert weights(one) != weights(different)


def test_the_source_learns_from_another_dataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["image,rings,fibers"]
    for number in range(12):
        write_png(tmp_path / "images" / f"{number}.png", rng.integers(0, 255, (24, 19), np.uint8))
        lines.append(f"{number},{number % 2},{number // 2 % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    dataset = {
        "name": "folder",
        "params": {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels.csv"), "valid": 0.3},
    }
    rename = {"rings": "disc", "fibers": "square"}
    params = {"dataset": dataset, "rename": rename, "sources": 2}
    naive = [
        weights(fitted(unfreeze="nothing", context=FitContext(seed=seed, device="cpu", precision="float32"), **params))
        for seed in (0, 1, 2)
    ]
    assert naive[0] == naive[2] != naive[1]
    assert len(fitted(unfreeze="linear", **params).models) == 3
    with pytest.raises(DataError, match=r"expected the (source )?model's classes"):
        fitted(unfreeze="nothing", **params | {"rename": {}})


@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30),
    images=st.none() | st.integers(2, 9),
    folds=st.integers(2, 4),
    seed=st.integers(0, 5),
)
def test_folds_divide_images_with_all_their_crops(groups: list[str], images: int | None, folds: int, seed: int) -> None:
    if images is not None and images > len(set(groups)):
        with pytest.raises(DataError, match=f"expected at least the {images} training images of parameter images, got"):
            deal(groups, images, folds, seed)
        return
    if min(len(set(groups)), images or 100) < folds:
        with pytest.raises(DataError, match=f"expected at least {folds} images, one for each fold"):
            deal(groups, images, folds, seed)
        return
    found = deal(groups, images, folds, seed)
    names = [{groups[place] for place in fold} for fold in found]
    used = set().union(*names)
    assert len(used) == sum(map(len, names)) == (images or len(set(groups)))
    assert max(map(len, names)) - min(map(len, names)) <= 1
    assert sorted(place for fold in found for place in fold) == [n for n, name in enumerate(groups) if name in used]
    assert found == deal(groups, images, folds, seed)


def test_each_fold_selects_by_what_it_has_not_learned_from(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def record(model: MicraNetModel, unfreeze: str, recipe: Any, train: Any, valid: Any, *rest: Any) -> MicraNetModel:
        seen.append(([sample.group for sample in train], [sample.group for sample in valid], rest[1]))
        return model

    monkeypatch.setattr(MicraNetModel, "finetune", record)
    context = FitContext(seed=7, folder=tmp_path, device="cpu", precision="float32")
    method = registry.build("method", "k-fold-finetuning", source=SOURCE, models=models, folds=3, images=6)
    method.fit(samples_of(24, images=8), (), INFO, context)
    assert len(seen) == 3
    held = [group for _, valid, _ in seen for group in valid]
    assert len(held) == 18  # three crops of each of six images
    assert len(set(held)) == 6
    for train, valid, _ in seen:
        assert sorted(train + valid) == sorted(held)
        assert set(train).isdisjoint(valid)
    assert [part.folder for *_, part in seen] == [tmp_path / f"fold-{number}" for number in range(3)]
    assert len({part.seed for *_, part in seen}) == 3


def test_what_cannot_be_a_source_is_named(models: list[str], tmp_path: Path) -> None:
    wider = {"name": "micra-net", "params": {"backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}}}}
    with pytest.raises(ConfigError, match="expected a model of the network that `source` describes"):
        fitted(models=models, source=wider)
    averaged = {**SOURCE, "params": SOURCE["params"] | {"pooling": "mean"}}  # of the same weights
    with pytest.raises(ConfigError, match="source` describes, but its pooling is max, not mean; give source"):
        fitted(models=models, source=averaged)
    with pytest.raises(ConfigError, match="expected one of dataset and models, got neither"):
        fitted()
    with pytest.raises(ConfigError, match="expected source micra-net, got 'centre-blob'"):
        fitted(models=models, source={"name": "centre-blob"})
    with pytest.raises(ConfigError, match="unfreeze"):
        fitted(models=models, unfreeze="stage 4")
    described = json.loads((Path(models[0]) / "model.json").read_text())
    described["method"]["name"] = "micraframe/centre-blob"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps(described))
    (tmp_path / "model" / "weights.safetensors").write_bytes((Path(models[0]) / "weights.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="it is one of method micraframe/centre-blob"):
        fitted(models=[str(tmp_path / "model")])


def test_a_copy_for_each_fold_is_restored(models: list[str]) -> None:
    model = fitted(models=models, unfreeze="linear")
    method = registry.build("method", "k-fold-finetuning", source=SOURCE, models=models)
    assert isinstance(method, KFoldFinetuning)
    restored = method.restore(model.state(), INFO, "cpu")
    assert all(isinstance(one, MicraNetModel) for one in restored.models)
    assert weights(restored) == weights(model)
    with pytest.raises(RuntimeError):
        method.restore({"fold-0.linear.bias": torch.zeros(2)}, INFO, "cpu")
