"""`micraframe tune`: thresholds from validation images, in a new model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe import registry
from micraframe.cli.output import Device, print_table, progress
from micraframe.cli.predict import Tuned
from micraframe.cli.remodel import NewModel
from micraframe.errors import ConfigError, DataError
from micraframe.runtime.files import refuse_existing

if TYPE_CHECKING:
    from micraframe.interfaces import Thresholds
    from micraframe.pipeline import Pipeline
    from micraframe.types import DatasetInfo, Sample


def tune(
    model: Annotated[Path, typer.Argument(help="A saved model's folder.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="A configuration, whose dataset's validation images are used; or, with --masks or --negatives, a "
            "folder of images."
        ),
    ],
    output: NewModel,
    origin: Annotated[
        Tuned,
        typer.Option(
            help="How: validation, the highest mean IoU with the masks; or by image-level labels alone: negatives, the "
            "99 % quantile of the maps in images without the class; or expected-share, the share of pixels that the "
            "maps expect."
        ),
    ] = "validation",
    masks: Annotated[
        Path | None,
        typer.Option(help="Masks of the images, in a folder as evaluate reads it: NAME.png, or CLASS/NAME.png."),
    ] = None,
    negatives: Annotated[
        bool,
        typer.Option(
            "--negatives", help="The images show none of the classes; they set the mask threshold, and need no mask."
        ),
    ] = False,
    sizes: Annotated[
        bool,
        typer.Option(
            "--sizes",
            help="First set the head's smoothing and minimum_size from these images, as `auto` does in training.",
        ),
    ] = False,
    device: Device = "auto",
) -> None:
    """Tune a trained model's thresholds on images that it has not learned from, and save them in a new model.

    The old model stays as it is, and the new one shares its weights. With origin validation, images that have labels
    but no masks are also used, for presence. Everything that the model predicts states where its thresholds come from.
    """
    from micraframe.batch.learned import contact_complaints
    from micraframe.pipeline import load
    from micraframe.runtime.memory import reuse_freed_memory

    refuse_existing(output)
    if sizes and negatives:
        raise ConfigError("--sizes: expected images with objects to measure, got --negatives; leave one out")
    old = load(model, device)
    origin, samples = _samples(old.info, data, masks, negatives, origin)
    progress().advance(f"tune on {len(samples)} images", 0, 0)
    with reuse_freed_memory():
        untuned = _sized(old.without_tuning(), samples) if sizes else old.without_tuning()
        thresholds = _tuned(untuned, samples, origin, presence=not negatives)
    new = untuned.with_thresholds(thresholds, origin)
    new.save(output, like=model)
    print_table(_changes(old, new))
    if sizes:
        print(", ".join(f"{name}: {getattr(new.head.params, name):g}" for name in ("smoothing", "minimum_size")))
    outlined = sum(sample.masks is not None or sample.instances is not None for sample in samples)
    print(f"Images: {len(samples)}; masks of {outlined or 'none'} of them were read")
    if thresholds.quality is not None:
        print(f"Mean IoU on these images: {thresholds.quality:.3f}")
    for complaint in contact_complaints(new, (), samples):
        print(f"warning: {complaint}", file=sys.stderr)
    print(f"Model: {output}")


def _samples(
    info: DatasetInfo, data: Path, masks: Path | None, negatives: bool, origin: Tuned
) -> tuple[Tuned, tuple[Sample, ...]]:
    """Return the origin that the data allow, and the samples with no more annotation than it needs."""
    from micraframe.batch.labelled import labelled_images
    from micraframe.types import Annotation

    if masks is not None and negatives:
        raise ConfigError("expected --masks or --negatives, got both; leave one out")
    if negatives and origin not in ("validation", "negatives"):
        raise ConfigError(f"--negatives: expected --origin negatives, got {origin}; leave one out")
    if negatives:
        return "negatives", labelled_images(info, data, None)
    if masks is None and data.is_dir():
        raise ConfigError(f"{data}: expected --masks or --negatives with a folder of images; add one of them")
    samples = _validation_images(info, data) if masks is None else labelled_images(info, data, masks)
    if origin != "validation":
        samples = tuple(sample.keep({Annotation.LABELS}) for sample in samples)
    return origin, samples


def _validation_images(info: DatasetInfo, file: Path) -> tuple[Sample, ...]:
    """Return the validation samples of the only dataset of a configuration, with all annotation that there is."""
    from micraframe.cli.check import datasets_of, read_any

    choices = datasets_of(read_any(file))
    if len(choices) > 1:
        raise ConfigError(f"{file}: expected one dataset, got {len(choices)}; name one of them in a file of its own")
    dataset = registry.build("dataset", choices[0].name, **choices[0].params)
    theirs = dataset.info()
    if theirs.classes != info.classes:
        raise DataError(
            f"{file}: expected a dataset with the model's classes {', '.join(info.classes)}, got "
            f"{', '.join(theirs.classes)}"
        )
    if (theirs.normalisation, theirs.scale) != (info.normalisation, info.scale):
        print(
            f"warning: {file}: the dataset's normalisation or scale is not the model's, with which new images are "
            "predicted; the thresholds may not fit those",
            file=sys.stderr,
        )
    samples = tuple(dataset.samples("valid"))
    if not samples:
        raise DataError(f"{file}: expected validation images to tune thresholds on, got none; set the dataset's valid")
    return samples


def _tuned(pipeline: Pipeline, samples: Sequence[Sample], origin: Tuned, presence: bool) -> Thresholds:
    """Return the thresholds of this origin; that of presence only if it is asked for."""
    from micraframe import tuning

    if origin == "validation":
        scores = tuple(tuning.bounded(pipeline.score(iter([sample.image for sample in samples]))))
        found = tuning.tune(pipeline, samples, scores)
        if found.presence is None and found.mask is None and found.quality is None:
            raise DataError("expected images with masks or known labels, got none; add some")
        return found
    by_labels = tuning.tune_by_labels(pipeline, samples)
    if origin not in by_labels:
        raise DataError(
            f"--origin {origin}: expected a head that makes masks, and images with known labels that this needs, got "
            f"head {pipeline.head_name} and thresholds {', '.join(by_labels) or 'of no origin'}; use another --origin"
        )
    return by_labels[origin] if presence else replace(by_labels[origin], presence=None)


def _sized(pipeline: Pipeline, samples: Sequence[Sample]) -> Pipeline:
    """Return the pipeline with smoothing and minimum size from the objects of these images."""
    from micraframe.heads.masks import MaskParams
    from micraframe.heads.sizes import with_sizes

    params = pipeline.head.params
    if not isinstance(params, MaskParams):
        raise ConfigError(f"--sizes: expected a head that smooths maps, got {pipeline.head_name}; leave it out")
    auto = type(pipeline.head)(params.model_copy(update={"smoothing": "auto", "minimum_size": "auto"}))
    return replace(pipeline, head=with_sizes(auto, samples, pipeline.score, pipeline.info))


def _changes(old: Pipeline, new: Pipeline) -> list[dict[str, str]]:
    """Return a record of each threshold: what it was, what it is, and where it comes from now."""
    texts = [_thresholds(each) for each in (old, new)]
    return [
        {
            "threshold": name,
            "before": texts[0][name],
            "after": after,
            "origin": new.origins.get(name.partition(" ")[0], "fixed"),
        }
        for name, after in texts[1].items()
    ]


def _thresholds(pipeline: Pipeline) -> dict[str, str]:
    """Return a pipeline's thresholds in words: `presence of CLASS` for each class, and `mask` where it makes any."""
    from micraframe.interfaces import MaskHeadParams

    params, classes = pipeline.head.params, pipeline.info.classes
    presence = params.presence_threshold
    values = presence if isinstance(presence, tuple) else (presence,) * len(classes)
    found = {f"presence of {name}": f"{value:.4g}" for name, value in zip(classes, values, strict=True)}
    return found | ({"mask": str(params.mask_threshold)} if isinstance(params, MaskHeadParams) else {})
