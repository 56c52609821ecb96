"""A study in the words of a paper's methods section, made of what the study is and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from micraframe import registry
from micraframe.config import Choice, Study
from micraframe.statistics import RESAMPLES
from micraframe.study.plan import Cell, label
from micraframe.study.report.citations import COMPONENTS, HOLM, PRICES, References
from micraframe.study.report.definitions import definitions
from micraframe.study.report.results import ALPHA
from micraframe.study.report.wording import listed
from micraframe.study.tuning import GRID
from micraframe.types import DatasetInfo, Split

_SOFTWARE = {"python": "Python", "torch": "PyTorch", "numpy": "NumPy"}


@dataclass(frozen=True)
class MethodsText:
    """The text.

    Attributes:
        paragraphs: Each with a heading; citations as numbers in brackets.
        references: What the numbers stand for, from 1.
    """

    paragraphs: tuple[tuple[str, str], ...]
    references: tuple[str, ...]


def methods_text(
    study: Study,
    cells: Sequence[Cell],
    sizes: Mapping[str, Mapping[Split, int]],
    groups: Mapping[str, int],
    metrics: Sequence[str],
    versions: Mapping[str, str],
) -> MethodsText:
    """Write the text.

    Args:
        study: The study, resolved.
        cells: All of it, done or not.
        sizes: By dataset, the number of images of each split.
        groups: By dataset, the number of independent groups that its test images are of; 0 where nothing is done yet.
        metrics: Those of the report's tables, the primary one first.
        versions: Of all software that took part, by distribution.
    """
    references = References()
    paragraphs = (
        ("Data", _data(cells, sizes, groups, references)),
        ("Annotation", _annotation(study, cells, references)),
        ("Methods compared", _methods(study, references)),
        ("Thresholds", _thresholds(study)),
        ("Measures", _measures(study, metrics)),
        ("Statistics", _statistics(references)),
        ("Software", _software(study, versions)),
    )
    return MethodsText(paragraphs, references.listed())


def price_presets(study: Study) -> tuple[str, ...]:
    """Return whose prices the study's annotation is reckoned with, each once."""
    choices = [contender.annotator for contender in study.contenders] + ([study.tuning_annotator] if study.tune else [])
    costs = [choice.params["cost"] for choice in choices if isinstance(choice.params.get("cost"), dict)]
    return tuple(dict.fromkeys(str(cost["preset"]) for cost in costs if cost.get("preset")))


def _data(
    cells: Sequence[Cell],
    sizes: Mapping[str, Mapping[Split, int]],
    groups: Mapping[str, int],
    references: References,
) -> str:
    infos = {cell.info.name: cell.info for cell in cells}
    return " ".join(_dataset(info, sizes[name], groups[name], references) for name, info in infos.items())


def _dataset(info: DatasetInfo, sizes: Mapping[Split, int], groups: int, references: References) -> str:
    classes = f"{len(info.classes)} classes" if len(info.classes) > 1 else "one class"
    size = f" of {info.image_size[0]} x {info.image_size[1]} pixels" if info.image_size else ""
    channels = f"{info.channels} channels" if info.channels > 1 else "one channel"
    licence = f" (licence: {info.licence})" if info.licence else ""
    return (
        f"The dataset {info.name}{references.cite(info.citation)}{licence} has {classes} "
        f"({', '.join(info.classes)}) and images{size} with {channels}: {sizes['train']} to train on, "
        f"{sizes['valid']} to validate on and {sizes['test']} to test on"
        + (f", the latter of {groups} independent groups." if 0 < groups < sizes["test"] else ".")
    )


def _annotation(study: Study, cells: Sequence[Cell], references: References) -> str:
    annotators = _distinct("annotator", [contender.annotator for contender in study.contenders])
    described = [f"{name} ({_summary('annotator', choice)})" for name, choice in annotators.items()]
    text = (
        "Annotation was simulated from the full annotation of the training and validation images; each method was "
        f"given that of its annotator and nothing else: {'; '.join(described)}. "
    )
    if any(contender.images for contender in study.contenders):
        text += (
            "Where a number of images is named, so many of the training images, drawn by the seed, and the same share "
            "of the validation images were annotated. "
        )
    presets = price_presets(study)
    if presets:
        sources = listed([f"{name}{references.cite(PRICES.get(name, ''))}" for name in presets])
        text += (
            f"The hours that annotation takes were reckoned from published times per image and per object ({sources}), "
            "with the lowest and highest that are plausible."
        )
        if _own_prices(study):
            text += " Some of these were replaced, as the configuration has it."
    return text


def _methods(study: Study, references: References) -> str:
    methods: dict[tuple[str, str], Choice] = {}
    for contender in study.contenders:
        choice = contender.method
        methods.setdefault((contender.label or label(choice, "method"), choice.model_dump_json()), choice)
    described: dict[str, None] = {}
    for (name, _), choice in methods.items():
        quoted, parts = f'"{name}"', _parts(choice.params, references)
        described[f"{quoted} ({_named(choice.name, references)}{': ' if parts else ''}{parts})"] = None
    text = f"Compared were {'; '.join(described)}. "
    recipes: dict[str, list[str]] = {}
    for (name, _), choice in methods.items():
        training = choice.params.get("training")
        if isinstance(training, dict) and {"epochs", "batch_size", "optimiser", "learning_rate"} <= training.keys():
            most = "at most " if training.get("early_stopping") else ""
            recipe = (
                f"for {most}{training['epochs']} epochs in batches of {training['batch_size']} with "
                f"{training['optimiser']} (learning rate {training['learning_rate']:g}"
                + (f", weight decay {training['weight_decay']:g}" if training.get("weight_decay") else "")
                + (f", schedule {training['schedule']}" if training.get("schedule") else "")
                + ")"
            )
            recipes.setdefault(recipe, [])
            # Names may hold commas.
            if f'"{name}"' not in recipes[recipe]:
                recipes[recipe].append(f'"{name}"')
    if recipes:
        trained = [f"{listed(names)} {recipe}" for recipe, names in recipes.items()]
        text += f"Trained were {'; '.join(trained)}. "
    seeds = listed([str(seed) for seed in study.seeds])
    seeded = f"with seeds {seeds}" if len(study.seeds) > 1 else f"once, with seed {seeds}"
    if tiling := study.tiling:
        text += (
            f"Images larger than {tiling.size} pixels were cut into tiles of about that size, of which {tiling.halo} "
            "pixels or more along the inner edges were not used; score maps were joined before they were decided on, "
            "those of all methods in the same way but for controls, which saw images whole. A class map of MICRA-Net "
            "is scaled in each tile, and blank in those in which the classifier does not find the class. "
        )
    return text + f"Each was run {seeded}. All parameters are in the configuration."


def _thresholds(study: Study) -> str:
    text = "Thresholds were fixed beforehand, and all comparisons are of fixed thresholds."
    if study.tune:
        name = label(study.tuning_annotator, "annotator")
        text += (
            f" Beside these, the thresholds of methods that have any were tuned on up to {study.tune} validation "
            f"images, drawn by the seed and given the annotation {name}, whose hours are added to the method's; and, "
            "as an oracle that is no result, on the test images. Tuned thresholds are those of the highest mean IOU on "
            "these images, presence being decided as with the fixed ones or, class by class, as is most accurate "
            f"there, and masks cut by the fixed rule or at one of {len(GRID)} values from {GRID[0]:g} to {GRID[-1]:g}; "
            "where no image has outlines, presence alone is tuned, for accuracy. The oracle is an upper bound of each "
            "seed's mean IOU with such thresholds, and of no other measure."
        )
    return text


def _measures(study: Study, metrics: Sequence[str]) -> str:
    used = list(dict.fromkeys([study.primary, *metrics]))
    told = definitions(used)
    others = [name for name in used if not definitions([name])]
    text = f"The primary measure was {study.primary}. "
    if told:
        text += f"Measured were {told}. "
    if others:
        text += f"Besides, {listed(others)}, as the plugin that measures it defines it. "
    return text + (
        "A measure that is undefined for a class in an image, such as an overlap where neither truth nor prediction "
        "holds the class, is left out; others are averaged over classes, then seeds, then test images."
    )


def _statistics(references: References) -> str:
    return (
        f"Intervals are 95 % percentile bootstrap intervals of {RESAMPLES:,} resamples of the test images, those of "
        "one group, such as crops of one field, being resampled together. Means are over the images for which a "
        "measure is defined, and what is tested is their difference. For each measure, all contenders were first "
        "compared by a repeated-measures F statistic, groups being paired, with a p value from "
        f"{RESAMPLES:,} exchanges of all values of a group between contenders; where it was significant "
        f"(p <= {ALPHA:g}), pairs followed by paired randomisation tests of the difference of means ({RESAMPLES:,} "
        f"exchanges), corrected for the number of pairs by Holm's method{references.cite(HOLM)}. Seeds were averaged "
        "before, so that n is the number of test images."
    )


def _software(study: Study, versions: Mapping[str, str]) -> str:
    told = [f"{_SOFTWARE.get(name, name)} {version}" for name, version in versions.items()]
    return f"Everything was run with {listed(told)}; device {study.device}, precision {study.precision}."


def _distinct(kind: str, choices: Iterable[Choice]) -> dict[str, Choice]:
    return {label(choice, kind): choice for choice in choices}


def _summary(kind: str, choice: Choice) -> str:
    summary = registry.catalog().find(kind, choice.name).component.summary
    return summary[0].lower() + summary[1:]


def _parts(params: Mapping[str, Any], references: References) -> str:
    """Return the components that a method or component is made of: `extractor grad-cam [3], combiner pca`."""
    told = []
    for key, value in params.items():
        if isinstance(value, dict) and value.keys() == {"name", "params"} and isinstance(value["params"], dict):
            inner = _parts(value["params"], references)
            told.append(f"{key} {_named(value['name'], references)}{f' ({inner})' if inner else ''}")
    return ", ".join(told)


def _named(qualified: str, references: References) -> str:
    """Return a component's name, with its plugin's where this is not micraframe itself, and its citation."""
    return qualified.removeprefix("micraframe/") + references.cite(COMPONENTS.get(qualified, ""))


def _own_prices(study: Study) -> bool:
    costs = [contender.annotator.params.get("cost") for contender in study.contenders]
    return any(
        isinstance(cost, dict) and any(value is not None for key, value in cost.items() if key != "preset")
        for cost in costs
    )
