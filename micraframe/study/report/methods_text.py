"""A study as the methods section of a paper, written from the study and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from micraframe import config, registry
from micraframe.config import Choice, Study
from micraframe.interfaces import Column
from micraframe.pricing import SOURCES, Prices
from micraframe.study.plan import StudyRun, build_metrics, label
from micraframe.study.report.citations import HOLM, MILLER, SATTERTHWAITE, SCHUIRMANN, References
from micraframe.study.report.planned import Planning
from micraframe.study.report.results import ALPHA
from micraframe.study.report.wording import annotation_text, count_text, listed
from micraframe.study.tables import MOST_BLOCKS
from micraframe.tuning import GRID
from micraframe.types import DatasetInfo, Split

_PROPER_NAMES = {"python": "Python", "torch": "PyTorch", "numpy": "NumPy", "adam": "Adam", "adamw": "AdamW"}


@dataclass(frozen=True)
class DatasetSize:
    """How many images a dataset has.

    Attributes:
        images: Number of images of each split.
        groups: Number of independent groups among the test images; 0 before any run has completed.
    """

    images: Mapping[Split, int]
    groups: int


@dataclass(frozen=True)
class MethodsText:
    """The text.

    Attributes:
        paragraphs: Heading and text of each; citations are numbers in brackets.
        references: The cited works, from 1.
    """

    paragraphs: tuple[tuple[str, str], ...]
    references: tuple[str, ...]


def methods_text(
    study: Study,
    runs: Sequence[StudyRun],
    planning: Planning,
    sizes: Mapping[str, DatasetSize],
    columns: Mapping[str, Column],
    versions: Mapping[str, str],
) -> MethodsText:
    """Write the text.

    Args:
        study: The study, resolved.
        runs: All its runs, completed or not.
        planning: Its planned comparisons.
        sizes: By dataset.
        columns: The columns of the report's tables, the primary metric first.
        versions: Versions of the software, by distribution.
    """
    references = References()
    paragraphs = (
        ("Data", _data(runs, sizes, references)),
        ("Annotation", _annotation(study, runs, references)),
        ("Methods", _methods(study, runs, references)),
        ("Thresholds", _thresholds(study)),
        ("Metrics", _metrics(study, columns, references)),
        ("Statistics", _statistics(study, planning, references)),
        ("Software", _software(study, versions)),
    )
    return MethodsText(paragraphs, references.listed())


def _data(runs: Sequence[StudyRun], sizes: Mapping[str, DatasetSize], references: References) -> str:
    infos = {run.info.name: run.info for run in runs}
    return " ".join(_dataset(info, sizes[name], references) for name, info in infos.items())


def _dataset(info: DatasetInfo, size: DatasetSize, references: References) -> str:
    classes = f"{len(info.classes)} classes" if len(info.classes) > 1 else "one class"
    pixels = f" of {info.image_size[0]} x {info.image_size[1]} pixels" if info.image_size else ""
    channels = f"{info.channels} channels" if info.channels > 1 else "one channel"
    licence = f" (licence: {info.licence})" if info.licence else ""
    images = size.images
    groups = f", the latter from {size.groups} independent groups" if 0 < size.groups < images["test"] else ""
    return (
        f"The dataset {info.name}{references.cite(info.citation)}{licence} has {classes} ({', '.join(info.classes)}) "
        f"and images{pixels} with {channels}: {images['train']} for training, "
        f"{images['valid']} for validation and {images['test']} for testing{groups}."
    )


def _annotation(study: Study, runs: Sequence[StudyRun], references: References) -> str:
    described = dict.fromkeys(
        f"{annotation_text(label(each.annotator, 'annotator'))} ({_summary(each.annotator, references)})"
        for each in study.methods
    )
    text = (
        "Every annotation was derived from the dataset's own annotation of the training images and, for methods that "
        "use them, of the validation images. Each method received its own annotation and nothing else: "
        f"{listed(list(described), '; ')}. "
    )
    if any(run.compared.train_images for run in runs):
        text += (
            "Where a number of images is given, only that many training images, drawn at random by the seed of the "
            "run, and, for methods that use validation images, the same fraction of these were annotated. "
        )
    preset, basis = study.prices.preset, Prices().preset
    source = f"{preset}{references.cite(SOURCES[preset])}"
    if preset != basis:
        source += f"; what it does not report is taken from {basis}{references.cite(SOURCES[basis])}"
    text += (
        f"We estimated annotation time from published timings per image and per object ({source}), with the lowest and "
        "highest plausible times as its range."
    )
    if study.prices.tasks:
        text += f" We replaced the timings for {listed(list(study.prices.tasks))} as stated in the configuration."
    return text


def _methods(study: Study, runs: Sequence[StudyRun], references: References) -> str:
    annotations: dict[str, list[str]] = {}
    recipes: dict[str, dict[str, dict[str, None]]] = {}
    for run in (run for run in runs if run.kind == "method"):
        described = f'"{run.method}" ({_composition(run, references)})'
        given = annotations.setdefault(described, [])
        annotation = annotation_text(run.annotator)
        if annotation not in given:
            given.append(annotation)
        if recipe := _recipe(run.compared.method.params.get("training")):
            recipes.setdefault(recipe, {}).setdefault(run.method, {})[annotation] = None
    trained = [
        f"{described}, trained {'separately ' if len(given) > 1 else ''}on {listed(given)}"
        for described, given in annotations.items()
    ]
    text = f"We compared {listed(trained, '; ')}. "
    several = Counter(method for recipe in recipes.values() for method in recipe)
    for recipe, methods in recipes.items():
        names = [
            f'"{method}"{f" on {listed(list(given))}" if several[method] > 1 else ""}'
            for method, given in methods.items()
        ]
        text += f"{listed(names)} {'was' if len(names) == 1 else 'were'} trained {recipe}. "
    if any(each.budgets or each.train_share for each in study.methods):
        text += "With a share of the training images, a method takes as many optimisation steps as with all of them. "
    if tiling := study.tiling:
        text += (
            f"Images larger than {tiling.size} pixels were cut into overlapping tiles of about that size, of which at "
            f"least {tiling.halo} pixels along inner edges were discarded. For every method, the scores of all tiles "
            "were merged before any decision was made. The class maps of MICRA-Net are scaled within each tile and "
            "blank in tiles where the classifier does not find the class. "
        )
    if any(run.kind == "ceiling" for run in runs):
        text += (
            "As ceilings, we also measured each annotation of the test images as if it were a prediction: a method "
            "that reproduces this annotation cannot exceed it. "
        )
    seeds = listed([str(seed) for seed in study.seeds])
    runs_text = f"with the random seeds {seeds}" if len(study.seeds) > 1 else f"once, with the random seed {seeds}"
    return f"{text}Each method was run {runs_text}. The configuration lists all parameters."


def _recipe(training: Any) -> str:
    """Return a training recipe in words; empty for anything else."""
    if not isinstance(training, dict) or not {"epochs", "batch_size", "optimiser", "learning_rate"} <= training.keys():
        return ""
    details = [f"learning rate {training['learning_rate']:g}"]
    if training.get("weight_decay"):
        details.append(f"weight decay {training['weight_decay']:g}")
    details.append(f"batch size {training['batch_size']}")
    if training.get("schedule"):
        details.append(f"{training['schedule']} schedule")
    optimiser = _PROPER_NAMES.get(training["optimiser"], training["optimiser"])
    most = "at most " if training.get("early_stopping") else ""
    return f"for {most}{count_text(training['epochs'], 'epoch')} with {optimiser} ({', '.join(details)})"


def _thresholds(study: Study) -> str:
    text = "Thresholds were fixed beforehand, and all comparisons use these fixed thresholds."
    if study.tuning_images:
        annotation = annotation_text(label(study.tuning_annotator, "annotator"))
        text += (
            f" In addition, we tuned the thresholds on up to {count_text(study.tuning_images, 'validation image')} "
            f"with {annotation}, drawn at random by the seed of the run (their annotation time is added to the "
            "method's), and on the test images. The latter, the oracle thresholds, use test labels: an upper bound, "
            "never a result. Two more mask thresholds follow from the labels that a method has of these validation "
            "images: `negatives`, the 99 % quantile of the maps in images without the class; and `expected-share`, "
            "which as many pixels of images with the class exceed as are expected if the map is a probability. "
            "Tuning maximised the mean IoU over these images. A class counts as present either by its fixed threshold "
            "or by the threshold with the highest accuracy for that class, and masks are cut either by the fixed rule "
            f"or at one of {len(GRID)} values from {GRID[0]:g} to {GRID[-1]:g}. Where no image has outlines, only the "
            "presence thresholds were tuned, for accuracy. Oracle thresholds bound each seed's mean IoU under this "
            "tuning and no other metric."
        )
    return text


def _metrics(study: Study, columns: Mapping[str, Column], references: References) -> str:
    cited = {
        column.name: references.cite(registry.catalog().find("metric", choice.name).component.citation)
        for choice, metric in zip(study.metrics, build_metrics(study), strict=True)
        for column in metric.columns()
        if column.name in columns
    }
    text = f"The primary metric is {study.primary_metric}. "
    if columns:
        described = [f"{name} ({column.definition}){cited[name]}" for name, column in columns.items()]
        text += f"We measured {listed(described, '; ')}. "
    text += (
        "Where a metric is undefined for a class in an image, such as an overlap where neither truth nor prediction "
        "contains the class, that value is left out; the others are averaged over classes, then over test images, then "
        "over trained models."
    )
    if pooled := [name for name, column in columns.items() if not column.is_mean]:
        text += f" {listed(pooled)} {'is' if len(pooled) == 1 else 'are'} computed from all test images together."
    return text


def _statistics(study: Study, planning: Planning, references: References) -> str:
    text = (
        "Each number is the mean over trained models (one for each seed) of that model's own number over the test "
        "images. We treated trained models and groups of test images, such as the crops of one field, as crossed "
        "random effects: models were trained independently, groups are the same for all models. Each group's "
        "contribution to a model's number is its jackknife pseudo-value, obtained by leaving the group out"
        f"{references.cite(MILLER)}; more than {MOST_BLOCKS} groups were left out in {MOST_BLOCKS} blocks. From these "
        "contributions we estimated the variances between models, between groups and of their interaction by the mean "
        "squares of the two-way table. Intervals are 95 % intervals of Student's t with "
        f"Satterthwaite's degrees of freedom{references.cite(SATTERTHWAITE)}. Methods were compared on the same "
        "groups, so the variance of a difference is that of the groups' differences plus what models vary beyond it. "
        "We first tested whether all methods (without controls, and with one of those that share a trained model) are "
        "equal, if there are several, by a quasi-F test with the same variance components. "
    )
    if planning.pairs:
        late = len(planning.late)
        named = "are named in the configuration"
        if planning.recorded:
            named = f"were named {'after' if late == len(planning.pairs) else 'before'} results existed"
            if 0 < late < len(planning.pairs):
                named += f", except {late:,} named afterwards"
        text += (
            f"The comparisons that answer the question {named}, and their p values were corrected together by Holm's "
            f"method{references.cite(HOLM)} (significant: p <= {ALPHA:g}). "
        )
    if planning.dropped:
        text += f"Comparisons named before results existed and dropped since: {planning.dropped:,}. "
    text += f"All {'other ' if planning.pairs else ''}comparisons are exploratory; their p values are not corrected. "
    if study.margin is not None:
        text += (
            f"We call two methods equivalent only where two one-sided tests (TOST) at the level {ALPHA:g}"
            f"{references.cite(SCHUIRMANN)} show that they differ by less than the margin of {study.margin:g} in "
            f"{study.primary_metric}{', which was set after results existed' if planning.late_margin else ''}. "
        )
    else:
        text += "As no margin of equivalence was declared, a large p value does not mean that two methods are equal. "
    if len(study.seeds) == 1:
        text += (
            "Each method was trained once, so nothing is known of how much trained models vary: intervals and tests of "
            "methods with random training are conditional on these trained models. "
        )
    return text.rstrip()


def _software(study: Study, versions: Mapping[str, str]) -> str:
    used = [f"{_PROPER_NAMES.get(name, name)} {version}" for name, version in versions.items()]
    return f"We used {listed(used)} (device: {study.device}, precision: {study.precision})."


def _summary(annotator: Choice, references: References) -> str:
    component = registry.catalog().find("annotator", annotator.name).component
    return f"{component.summary[0].lower()}{component.summary[1:]}{references.cite(component.citation)}"


def _composition(run: StudyRun, references: References) -> str:
    """Return a method and the components that it is made of: `micra-net [1]: extractor grad-cam [3], head semantic`."""
    method = _named("method", run.compared.method, references, with_parts=False)
    parts = _parts("method", run.compared.method, references)
    if run.compared.head:
        parts.append(f"head {_named('head', run.compared.head, references)}")
    return ": ".join(filter(None, [method, ", ".join(parts)]))


def _parts(kind: str, choice: Choice, references: References) -> list[str]:
    """Return the components that a component is made of, each as `kind name [citation]`."""
    params = registry.load(registry.catalog().find(kind, choice.name)).Params
    return [
        f"{field} {_named(inner, Choice.model_validate(choice.params[field]), references)}"
        for field in params.model_fields
        if (inner := config.kind_of(params, field)) and isinstance(choice.params.get(field), dict)
    ]


def _named(kind: str, choice: Choice, references: References, with_parts: bool = True) -> str:
    """Return a component's name, its plugin's too unless it is micraframe, its citation and its own parts."""
    entry = registry.catalog().find(kind, choice.name)
    name = choice.name.removeprefix("micraframe/") + references.cite(entry.component.citation)
    parts = _parts(kind, choice, references) if with_parts else []
    return f"{name} ({', '.join(parts)})" if parts else name
