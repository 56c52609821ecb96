"""The trained methods of a study as ready models, by name: `models/NAME`, besides those by hash, which runs share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from micraframe import registry
from micraframe.config import Choice, Study
from micraframe.interfaces import Thresholds
from micraframe.modelfile import ModelFile, share_weights
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun
from micraframe.study.report.wording import slugs
from micraframe.tuning import read_thresholds
from micraframe.types import Origin, Progress


def named(runs: Iterable[StudyRun]) -> list[tuple[str, StudyRun]]:
    """Return each run that trains with the name of its ready model: dataset, method, annotator and seed."""
    trained = [run for run in runs if run.kind == "method"]
    names = slugs([f"{run.info.name} {run.method} {run.annotator} seed {run.seed}" for run in trained])
    return list(zip(names, trained, strict=True))


def write_models(runs: Iterable[StudyRun], study: Study, folder: StudyFolder, progress: Progress) -> tuple[Path, ...]:
    """Write the ready model of each completed run that this study has trained; return their folders.

    It has the run's head and inference parameters, and the thresholds that were tuned on validation images, or else
    those of the head. Models that are there already are left as they are; no weights are read or trained.

    Args:
        runs: All runs of the study, so that a model has the same name whichever of them are completed.
        study: Says how images are tiled.
        folder: The study's files.
        progress: Progress callback; also receives the models that cannot be written.
    """
    written = []
    for name, run in named(runs):
        if not (folder.is_done(run) and folder.is_trained(run)):
            continue
        target = folder.path / "models" / name
        try:
            _write(run, study, folder, target)
        except (OSError, ValueError) as error:  # a damaged or missing model must not cost the study its report
            progress.advance(f"models/{name}: not written: {error}", 0, 0)
        else:
            written.append(target)
    return tuple(written)


def _write(run: StudyRun, study: Study, folder: StudyFolder, target: Path) -> None:
    method, fixed = run.compared.method, folder.head(run)
    head, untuned, origins = fixed, None, dict[str, Origin]()
    if "validation" in folder.thresholds(run):
        thresholds = read_thresholds(folder.run(run))
        head, untuned = _with_thresholds(fixed, thresholds), fixed
        tuned = {"presence": thresholds.presence, "mask": thresholds.mask}
        origins = {kind: "validation" for kind, value in tuned.items() if value is not None}
    share_weights(folder.model(run), target, ModelFile(method, head, run.info, {}, study.tiling, origins, untuned))


def _with_thresholds(head: Choice, thresholds: Thresholds) -> Choice:
    built = registry.build("head", head.name, **head.params).with_thresholds(thresholds)
    return Choice(name=head.name, params=built.params.model_dump(mode="json"))
