"""Reads the published model files of the MICRA-Net paper into micraframe models, with a preset of their dataset.

The layout of a file, with the architectures of each dataset:

    file[architecture].attrs["trainer_params"]         JSON: num_classes, num_input_images, size
    file[architecture][model][key]                     arrays: conv1a.weight, bnorm1a.running_mean, ..., linear1.bias
    file[architecture][model][fold][key]               P. vivax, MICRANet-finetuned

    F-actin    MICRANet (trainer_params under model_params)
    CTC        MICRANet
    EM         MICRANet-2:1, -1:1, -1:2, -1:5, -1:8, -1:16; attribute class_thresholds
    P. vivax   MICRANet-naive, MICRANet-finetuned; attribute class_thresholds

Nothing in a file is executed.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch
from torch import Tensor

from micraframe import pipeline
from micraframe.config import Choice, resolve_choice
from micraframe.datasets.paths import file_digest
from micraframe.errors import ConfigError, ModelError, counted, reason_of
from micraframe.interfaces import Thresholds
from micraframe.modelfile import versions
from micraframe.pipeline import Pipeline
from micraframe.registry import build
from micraframe.types import DatasetInfo, Normalisation, Role
from micraframe_paper.datasets import ctc, em_axon, f_actin, p_vivax
from micraframe_paper.finetuning import joined_states
from micraframe_paper.hdf5 import opened
from micraframe_paper.presets import DATASETS, VERSIONS, Studied, Version, preset

PREFIX: Final = "MICRANet"
"""How the names of MICRA-Net's architectures begin; other groups of a file, such as baselines, are left out."""

_LINEAR: Final = "linear1.weight"
_STAGES: Final = re.compile(r"conv([1-9])a\.weight")


@dataclass(frozen=True, eq=False)
class ZooModel:
    """A model of a file.

    Attributes:
        architecture: The name of its architecture, such as `MICRANet-1:5`.
        name: Its name within the architecture.
        folds: The weights of each of its folds, by the keys of a `Classifier`; most models have one.
        thresholds: The validated probability at which each class counts as present; None: none is in the file.
        nested: Whether the trainer's parameters are under `model_params`, as for F-actin.
        size: (H, W) of the training crops; None: it is not in the file.
    """

    architecture: str
    name: str
    folds: tuple[Mapping[str, Tensor], ...]
    thresholds: tuple[float, ...] | None
    nested: bool
    size: tuple[int, int] | None

    @property
    def widths(self) -> tuple[int, ...]:
        """The filters of each stage of the network."""
        stages = (self.folds[0].get(f"backbone.blocks.{stage}a.conv.weight") for stage in range(1, 10))
        return tuple(len(weight) for weight in stages if weight is not None)

    @property
    def channels(self) -> int:
        """The channels of the images."""
        return int(self.folds[0]["backbone.blocks.1a.conv.weight"].shape[1])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.folds[0]["linear.weight"])


def read_zoo(path: Path) -> list[ZooModel]:
    """Return the MICRA-Nets of a file.

    Raises:
        ModelError: If it is not such a file, or a model is not complete.
    """
    expected = "a published model file, HDF5 with groups of architectures that have trainer_params"
    with opened(path, ModelError, expected, "download it again") as file:
        found = [
            _read_model(f"{path}: {architecture}/{name}", file[architecture], name)
            for architecture in file
            if architecture.startswith(PREFIX)
            for name in file[architecture]
        ]
    if not found:
        raise ModelError(f"{path}: expected groups whose names begin with {PREFIX}, found none; name a published model")
    return found


def dataset_of(models: list[ZooModel]) -> Studied:
    """Return the dataset that a file's models learned from, by the names of their architectures and their layout."""
    kinds = {model.architecture.removeprefix(PREFIX) for model in models}
    if any(re.fullmatch(r"-\d+:\d+", kind) for kind in kinds):
        return "em-axon"
    if kinds & {"-naive", "-finetuned"}:
        return "p-vivax"
    return "f-actin" if models[0].nested else "ctc"


def to_pipeline(
    model: ZooModel,
    dataset: Studied,
    version: Version,
    fingerprint: str,
    intensities: tuple[float, float] | None = None,
) -> Pipeline:
    """Return a model of a file as a pipeline with a preset.

    Several folds become a model of `k-fold-finetuning`, whose probabilities and maps are the means over the folds.

    Args:
        model: The model.
        dataset: What it learned from.
        version: The preset's.
        fingerprint: Hash of the file, because that of the training data is not known.
        intensities: The smallest and the largest value of the scaling of F-actin's images: `intensity_scaling`.

    Raises:
        ConfigError: If F-actin's intensities are missing, or are given for other images.
        ModelError: If the weights are not those of the dataset's classes and channels.
    """
    where, chosen = f"{model.architecture}/{model.name}", preset(dataset, version)
    info = _info(dataset, fingerprint, model.size, intensities)
    if (model.classes, model.channels) != (len(info.classes), info.channels):
        raise ModelError(
            f"{where}: expected {counted(len(info.classes), 'class', 'classes')} and "
            f"{counted(info.channels, 'channel')} for dataset {dataset}, got {model.classes} and {model.channels}; "
            "choose another dataset"
        )
    backbone = {"name": "micraframe/unet-encoder", "params": {"widths": list(model.widths)}}
    method = Choice(name="micraframe/micra-net", params={**chosen.params, "backbone": backbone})
    state = model.folds[0]
    if len(model.folds) > 1:
        # The method has to say where its source model comes from; it is not read again.
        params = {"source": method.model_dump(), "models": [model.architecture], "folds": len(model.folds)}
        method = Choice(name="micraframe-paper/k-fold-finetuning", params=params)
        state = joined_states(model.folds)
    method = resolve_choice("method", method)
    blank = pipeline.untrained(method, info, chosen.head)
    assert blank is not None  # both methods have models that have learned nothing
    try:
        restored = build("method", method.name, **method.params).restore(state, info, "cpu")
    except RuntimeError as error:
        raise ModelError(
            f"{where}: the weights do not fit the network: {reason_of(error)}; download the file again"
        ) from error
    origin = {"data": fingerprint, "imported": where, "preset": f"{dataset} {version}", **versions()}
    found = dataclasses.replace(blank, model=restored, provenance=origin)
    if model.thresholds is None:
        return found
    return found.with_thresholds(Thresholds(presence=model.thresholds), "validation")


def import_zoo(
    path: Path,
    output: Path,
    dataset: str | None = None,
    version: str = "official",
    intensities: tuple[float, float] | None = None,
) -> Iterator[tuple[Path, ZooModel, Pipeline]]:
    """Write every MICRA-Net of a file as a saved model, and yield its folder, what was read, and the pipeline.

    Args:
        path: The file.
        output: Folder for the models, each in `ARCHITECTURE/MODEL`.
        dataset: What they learned from; None: inferred from the file.
        version: The preset's.
        intensities: As in `to_pipeline`.

    Raises:
        ConfigError: If there is no such dataset or preset, or as in `to_pipeline`.
        ModelError: If the file or a model in it cannot be used; models before it have been written.
    """
    for name, value, known in (("dataset", dataset, DATASETS), ("preset", version, VERSIONS)):
        if value is not None and value not in known:
            raise ConfigError(f"{name}: expected {' or '.join(known)}, got {value!r}; choose one of them")
    models = read_zoo(path)
    studied = next((each for each in DATASETS if each == dataset), None) or dataset_of(models)
    chosen = next(each for each in VERSIONS if each == version)
    for model in models:
        made = to_pipeline(model, studied, chosen, file_digest(path), intensities)
        folder = output.joinpath(*(re.sub(r"[^\w.+-]", "-", name) for name in (model.architecture, model.name)))
        made.save(folder)
        yield folder, model, made


def _info(
    dataset: Studied, fingerprint: str, size: tuple[int, int] | None, intensities: tuple[float, float] | None
) -> DatasetInfo:
    if dataset == "f-actin" and intensities is None:
        raise ConfigError(
            "intensities: expected two numbers for f-actin, got none; give the median of the training images' minima, "
            "and the median of their maxima plus three standard deviations"
        )
    if dataset != "f-actin" and intensities is not None:
        raise ConfigError(f"intensities: expected none for {dataset}, got {intensities}; leave them out")
    low, high = intensities or (0.0, 1.0)
    if not high > low:
        raise ConfigError(f"intensities: expected MIN < MAX, got {low:g} and {high:g}; swap them")
    objects: tuple[Role, ...] = ("object",)
    known: dict[Studied, tuple[tuple[str, ...], int, Normalisation, tuple[Role, ...]]] = {
        "f-actin": (
            f_actin.CLASSES,
            1,
            Normalisation("fixed", offset=(low,), scale=(f_actin.HEADROOM * (high - low),)),
            objects * 2,
        ),
        "ctc": (("cell", "contact"), 1, Normalisation("min-max"), ("object", "contact")),
        "em-axon": (("axon DAB",), 1, em_axon.EmAxon.normalisation, objects),
        "p-vivax": (("infected",), 3, Normalisation("mean-sd", per_channel=True), objects),
        "modified-mnist": (tuple("0123456789"), 1, Normalisation(), objects * 10),
    }
    terms = {"f-actin": f_actin.TERMS, "ctc": ctc.TERMS, "p-vivax": p_vivax.TERMS}.get(dataset)
    classes, channels, normalisation, roles = known[dataset]
    return DatasetInfo(
        name=dataset,
        classes=classes,
        channels=channels,
        normalisation=normalisation,
        fingerprint=fingerprint,
        licence=terms.licence if terms else "",
        citation=terms.citation if terms else "",
        image_size=size,
        roles=roles,
    )


def _read_model(where: str, architecture: h5py.Group, name: str) -> ZooModel:
    trainer = json.loads(_text(architecture.attrs["trainer_params"]))
    nested = "model_params" in trainer
    settings = trainer["model_params"] if nested else trainer
    group = architecture[name]
    folds = [group] if _LINEAR in group else [group[fold] for fold in group]
    if not folds:
        raise ModelError(f"{where}: expected weights, or folds of weights, found none; download the file again")
    states = tuple(_state(f"{where}{fold.name.removeprefix(group.name)}", fold) for fold in folds)
    size = np.atleast_1d(settings["size"]).astype(int).tolist() if "size" in settings else []
    model = ZooModel(
        architecture.name.removeprefix("/"), name, states, None, nested, (size[0], size[-1]) if size else None
    )
    found = [_thresholds(where, (fold, group, architecture), model.classes) for fold in folds]
    for key, number in (("num_classes", model.classes), ("num_input_images", model.channels)):
        if settings.get(key, number) != number:
            raise ModelError(
                f"{where}: expected {key} {settings[key]}, got weights for {number}; download the file again"
            )
    known = [each for each in found if each is not None]
    return dataclasses.replace(model, thresholds=tuple(np.mean(known, axis=0).tolist())) if known else model


def _state(where: str, group: h5py.Group) -> dict[str, Tensor]:
    """Return the arrays of a group by the keys of a `Classifier`.

    Raises:
        ModelError: If one is missing, or there is one that the network has not.
    """
    stages = sum(bool(_STAGES.fullmatch(key)) for key in group)
    names = {f"linear1.{part}": f"linear.{part}" for part in ("weight", "bias")}
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for block in (f"{stage}{half}" for stage in range(1, stages + 1) for half in "ab"):
        names |= {f"conv{block}.{part}": f"backbone.blocks.{block}.conv.{part}" for part in ("weight", "bias")}
        names |= {f"bnorm{block}.{part}": f"backbone.blocks.{block}.norm.{part}" for part in norms}
    if not stages or set(group) != set(names):
        differing = ", ".join(sorted(set(group) ^ set(names))[:3])
        raise ModelError(
            f"{where}: expected the arrays of {stages or 4} stages of conv and bnorm and of linear1, got others "
            f"({differing} ...); download the file again"
        )
    return {names[key]: torch.from_numpy(np.array(group[key][()])) for key in group}


def _thresholds(where: str, groups: tuple[h5py.Group, ...], classes: int) -> tuple[float, ...] | None:
    """Return the attribute `class_thresholds` of the first of these groups that has one: a number for each class."""
    given = next((group.attrs["class_thresholds"] for group in groups if "class_thresholds" in group.attrs), None)
    if given is None:
        return None
    values = json.loads(_text(given)) if isinstance(given, str | bytes) else given
    numbers = np.asarray(values, np.float64).ravel()
    if numbers.size not in (1, classes) or not ((numbers >= 0) & (numbers <= 1)).all():
        raise ModelError(
            f"{where}: class_thresholds: expected {counted(classes, 'number')} from 0 to 1, got {numbers.tolist()}; "
            "download the file again"
        )
    return tuple(np.broadcast_to(numbers, classes).tolist())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
