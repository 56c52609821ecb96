"""Sweeps an image tile by tile. Finished tiles are on disk and are not computed again."""

from __future__ import annotations

import csv
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from micraframe import __version__
from micraframe.classifier import Classifier
from micraframe.errors import ConfigError, DataError, ModelError, counted
from micraframe.extractors.frozen import fast_copy
from micraframe.images import write_png
from micraframe.micranet import NAME, MicraNetModel
from micraframe.modelfile import hash_weights, versions
from micraframe.pipeline import Pipeline
from micraframe.runtime.files import atomic, digest, digest_json, write_json
from micraframe.runtime.memory import return_freed_memory
from micraframe.runtime.numerics import numerics
from micraframe.runtime.tables import write_csv
from micraframe.sweep import engine as engines
from micraframe.sweep.engine import SweepEngine
from micraframe.sweep.image import LargeImage, open_image
from micraframe.sweep.intensities import fix, passes
from micraframe.sweep.ome_zarr import NgffVersion, write_map
from micraframe.sweep.picture import draw, shrink
from micraframe.sweep.proposals import LARGEST, Proposal, in_common, propose, write_geojson
from micraframe.sweep.regions import forget_regions, write_regions
from micraframe.sweep.tiles import DIGITS, SweepMeasurements, TileStore, forget_others
from micraframe.sweep.windows import lay_windows, probability_map
from micraframe.thresholds import PresenceThreshold, otsu
from micraframe.types import DatasetInfo, FloatArray, Normalisation, Precision, Progress

Mode = Literal["dense", "exact", "both"]

MAP = "probability.ome.zarr"
TABLE = "proposals.csv"
GEOJSON = "proposals.geojson"
OVERLAY = "overlay.png"
REPORT = "report.json"
WINDOWS = "windows-{mode}.csv"

MOST_AREA = 0.5
"""Fraction of the image above which proposals narrow the search too little; a note says so."""


@dataclass(frozen=True)
class SweepOptions:
    """The options of a sweep.

    Attributes:
        mode: `dense`, `exact` (window by window, as in the paper), or `both`, which compares them.
        window: (height, width) of a window in pixels; None: the size of the training images.
        overlap: Fraction of a window that the next one covers too, in [0, 1).
        presence_threshold: Probability at which a place becomes a proposal; None: the threshold of the model's head
            and, unless it was tuned, no lower than Otsu's threshold of the map. Otsu's is the higher one where most of
            an image is positive: on a dense section of axons it left 36 of 38 proposals and raised the share that are
            correct from 66 % to 69 %; it changed nothing where white blood cells are rare.
        tile: Side in pixels of the tiles that are computed at a time.
        precision: Precision of the convolutions: `auto`, `float32` or `bfloat16`.
        ngff: Version of OME-NGFF in which the map is written: `0.4` or `0.5`.

    Raises:
        ConfigError: If the mode, the threshold or the version is not valid.
    """

    mode: Mode = "dense"
    window: tuple[int, int] | None = None
    overlap: float = 0.75
    presence_threshold: float | None = None
    tile: int = 1024
    precision: Precision = "float32"
    ngff: NgffVersion = "0.5"

    def __post_init__(self) -> None:
        if self.mode not in ("dense", "exact", "both"):
            raise ConfigError(f"mode: expected dense, exact or both, got {self.mode!r}")
        if self.presence_threshold is not None and not 0 < self.presence_threshold <= 1:
            raise ConfigError(
                f"presence_threshold: expected a number above 0 and at most 1, got {self.presence_threshold}"
            )
        if self.ngff not in ("0.4", "0.5"):
            raise ConfigError(f"ngff: expected version 0.4 or 0.5, got {self.ngff!r}")


@dataclass(frozen=True)
class SweepAgreement:
    """How well a dense and an exact sweep agree.

    Attributes:
        correlation: The lowest of the classes' correlations; None if there is none.
        correlations: Pearson's correlation of the windows' probabilities, by class; None if one sweep is constant.
        mean_difference: Mean absolute difference of these probabilities.
        windows_above: Number of windows, over all classes, that reach the threshold in both sweeps.
        windows_above_dense: Number that reach it in the dense sweep.
        windows_above_exact: Number that reach it in the exact sweep.
        proposals_in_common: Number of proposals that can be paired with one of the other sweep within half a window.
        proposals_dense: Number of proposals of the dense sweep.
        proposals_exact: Number of proposals of the exact sweep.
        speedup: Time of the exact sweep divided by the time of the dense sweep.
    """

    correlation: float | None
    correlations: dict[str, float | None]
    mean_difference: float
    windows_above: int
    windows_above_dense: int
    windows_above_exact: int
    proposals_in_common: int
    proposals_dense: int
    proposals_exact: int
    speedup: float


@dataclass(frozen=True)
class SweepReport:
    """The settings and results of a sweep.

    Attributes:
        image: Path of the image.
        model: Folder of the model; None if it came from memory.
        weights: SHA-256 of the model's weights: of its file `weights.safetensors`.
        versions: Versions of micraframe, its plugins and its dependencies.
        fingerprint: Hash of everything that determines the values of tiles; a folder in `tiles/` has its first digits
            as a name.
        size: (H, W) in pixels.
        classes: Names of the K classes.
        mode: `dense`, `exact` or `both`.
        window: (height, width) of a window in pixels: a multiple of the network's stride, and at most the image.
        window_asked: (height, width) of the window that was requested, or of the training images.
        step: Pixels from one window to the next: a multiple of the stride too.
        windows: Number of windows.
        presence_threshold: Probability at which a place becomes a proposal; one, or one per class.
        precision: Precision of the convolutions.
        device: Device of the computation.
        proposals: Number of proposals.
        area: Fraction of the image that the proposals cover, in [0, 1]: what is left to inspect.
        seconds: Computing time, by mode, including interrupted sweeps.
        agreement: Between dense and exact, in mode `both`.
        notes: Caveats, one sentence each.
        objects: Number of objects that were found within the proposals; None if no masks were made.
    """

    image: str
    model: str | None
    weights: str
    versions: dict[str, str]
    fingerprint: str
    size: tuple[int, int]
    classes: tuple[str, ...]
    mode: Mode
    window: tuple[int, int]
    window_asked: tuple[int, int]
    step: int
    windows: int
    presence_threshold: PresenceThreshold
    precision: str
    device: str
    proposals: int
    area: float
    seconds: dict[str, float]
    agreement: SweepAgreement | None
    notes: tuple[str, ...]
    objects: int | None = None


def sweep_image(
    pipeline: Pipeline,
    image: Path | npt.NDArray[Any],
    output: Path,
    options: SweepOptions | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    model: Path | None = None,
    segmenting: Pipeline | None = None,
    replace_other: bool = True,
) -> SweepReport:
    """Find where in an image, which may be larger than memory, the classes are.

    Writes to `output`: the probability map as OME-Zarr, ranked proposals as CSV and as GeoJSON for QuPath, an overview
    picture, the probabilities of all windows as `windows-dense.csv` or `windows-exact.csv`, and `report.json`. The
    results of each tile are kept in `tiles/`: a sweep of the same image with the same model resumes from there. The
    outputs of an earlier sweep are replaced when everything is computed. With `segmenting`, also the masks and objects
    in the proposals.

    Args:
        pipeline: A trained MICRA-Net.
        image: A path, or an array (H, W) or (C, H, W), before normalisation.
        output: Folder to write to.
        options: The options of the sweep.
        progress: Progress callback.
        say: Called with each of the report's notes as soon as it is known.
        model: Folder that the pipeline was loaded from, for the report.
        segmenting: Also predicts the proposals: see `micraframe.sweep.regions`. It may have another head, combiner or
            extractor than the pipeline, whose probability map uses none of these.
        replace_other: Whether the results of a sweep of another image, model, window, overlap, tile or precision are
            replaced, or those that another processor, number of threads or version computed. Those of the same sweep
            with another mode or threshold always are.

    Raises:
        ConfigError: If no window is given and the model does not know the size of its training images; or the folder
            has results of another sweep, and they are not to be replaced.
        ModelError: If the model is not a MICRA-Net; or the head of `segmenting` makes no masks; or mode is not `exact`,
            and the classifier pools evidence or has a decoder, or the network's deepest layer depends on the whole
            image everywhere.
        DataError: If the image cannot be read, or does not have as many channels as the training images.
    """
    if not isinstance(pipeline.model, MicraNetModel):
        raise ModelError(
            f"{model or 'sweep'}: expected a model of {NAME}, got one of {pipeline.method.name}; predict the image "
            "with --tile, or train that method"
        )
    if segmenting is not None and not segmenting.uses_maps:
        raise ModelError(f"expected a head that makes masks, got {segmenting.head_name}; choose another --head")
    options, progress = options or SweepOptions(), progress or Progress()
    info, trained = pipeline.info, pipeline.model.classifier
    modes = ("dense", "exact") if options.mode == "both" else (options.mode,)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if say:
            say(text)

    with open_image(image) as opened:
        if opened.channels != info.channels:
            expected = counted(info.channels, "channel")
            raise DataError(f"{opened.name}: expected {expected}, as in the training images, got {opened.channels}")
        for each in opened.notes:
            note(each)
        asked = options.window or info.image_size or info.training_size
        if asked is None:
            raise ConfigError(
                f"dataset {info.name!r}: expected training images of one size, got several, or a model that does not "
                "record their size; give the side of a window in pixels (--window), such as that of most training "
                "images"
            )
        if "dense" in modes:
            engines.check_dense(trained)
        stride = trained.layers[-1].stride
        size = (opened.height, opened.width)
        rows, columns = lay_windows(size, stride, asked, options.overlap, options.tile)
        window, block = (rows.window * stride, columns.window * stride), rows.step * stride
        if any(used + stride <= expected for used, expected in zip(window, asked, strict=True)):
            note(
                f"{opened.name}: windows of {asked[0]} x {asked[1]} pixels do not fit in {size[0]} x {size[1]}; they "
                f"are cut to {window[0]} x {window[1]}"
            )
        for each in _caveats(info):
            note(f"{opened.name}: {each}")
        classifier, precision = fast_copy(trained, options.precision)
        weights = hash_weights(pipeline.model.state())
        fingerprint = digest(
            __version__,
            opened.fingerprint,
            digest_json([asdict(info.normalisation), asdict(rows), asdict(columns), str(precision)]),
            f"{trained.backbone} {trained.pooling}",
            digest_json(numerics(next(classifier.parameters()).device.type)),
            weights,
        )
        if not replace_other:
            _refuse_other(output, fingerprint)
        tiles = TileStore(output / "tiles" / fingerprint[:DIGITS])
        measured = _measure(classifier, opened, info.normalisation, rows.tile * stride, modes, tiles, progress)
        assert measured.normalisation is not None
        engine = SweepEngine(classifier, precision, opened, measured.normalisation, rows, columns)

        probabilities: dict[str, FloatArray] = {}
        seconds: dict[str, float] = {}
        for mode in modes:
            probabilities[mode], seconds[mode] = _run(mode, engine, measured, tiles, progress, note)
        maps = {mode: probability_map(each, rows, columns) for mode, each in probabilities.items()}
        probability = maps[modes[0]]
        threshold = proposal_threshold(pipeline, options, probability)
        proposals = {
            mode: propose(each, info.classes, block, size, window, threshold, LARGEST) for mode, each in maps.items()
        }
        found = proposals[modes[0]]
        area = _covered(found, block, size)
        if area > MOST_AREA:
            note(f"{opened.name}: the proposals cover {100 * area:.0f} % of the image; raise --presence-threshold")

        # Replace old results, their report first, so that a report never describes other results.
        (output / REPORT).unlink(missing_ok=True)
        for mode in ("dense", "exact"):
            path = output / WINDOWS.format(mode=mode)
            if mode in modes:
                _write_windows(path, probabilities[mode], engine, info.classes)
            else:
                path.unlink(missing_ok=True)
        forget_others(tiles.folder)
        write_map(output / MAP, probability, info.classes, block, options.ngff)
        write_csv(output / TABLE, found, Proposal)
        write_geojson(output / GEOJSON, found, info.classes)
        objects = None
        if segmenting is None:
            forget_regions(output)
        else:
            objects = write_regions(segmenting, opened, measured.normalisation, found, output, progress)
        small, factor = shrink(opened)
        write_png(output / OVERLAY, draw(small, factor, probability, block, found, info.classes))
        both = options.mode == "both"
        report = SweepReport(
            image=opened.name,
            model=None if model is None else str(model),
            weights=weights,
            versions=versions(),
            fingerprint=fingerprint,
            size=size,
            classes=info.classes,
            mode=options.mode,
            window=window,
            window_asked=asked,
            step=block,
            windows=len(rows.windows) * len(columns.windows),
            presence_threshold=threshold,
            precision=str(precision).removeprefix("torch."),
            device=str(next(classifier.parameters()).device),
            proposals=len(found),
            area=area,
            seconds={mode: round(value, 3) for mode, value in seconds.items()},
            agreement=_agreement(probabilities, info.classes, proposals, seconds, threshold, window) if both else None,
            notes=tuple(notes),
            objects=objects,
        )
        write_json(output / REPORT, asdict(report))
        return report


def _refuse_other(output: Path, fingerprint: str) -> None:
    """Raise `ConfigError` if a folder has the results of a sweep with another fingerprint."""
    try:
        known = json.loads((output / REPORT).read_text(encoding="utf-8"))["fingerprint"]
    except FileNotFoundError:
        return  # no results, or those of an interrupted sweep
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known != fingerprint:
        raise ConfigError(
            f"{output}: expected a new folder, or one of the same sweep, got the results of another (image, model, "
            "window, overlap, tile, precision, processor, number of threads or a version differ); choose another "
            "--output, or delete it"
        )


def _caveats(info: DatasetInfo) -> Iterator[str]:
    """Yield what may make an image look different from the training images."""
    if info.image_size is None and info.normalisation.kind not in ("none", "fixed"):
        yield (
            f"each training image was normalised by its own range ({info.normalisation.kind}), this one by the range "
            "of the whole image, so its windows may look different; if there are too many proposals, train with "
            "normalisation scope: train"
        )
    if info.scale != 1:
        yield (
            f"the training images were resized by a factor of {info.scale:g}; sweep does not resize: give it an image "
            "at the scale of the resized training images"
        )


def proposal_threshold(pipeline: Pipeline, options: SweepOptions, probability: FloatArray) -> PresenceThreshold:
    """Return the threshold of proposals in a map (K, block rows, block columns), as `SweepOptions` describes it."""
    own = pipeline.head.params.presence_threshold
    if options.presence_threshold is not None or "presence" in pipeline.origins:
        return options.presence_threshold or own
    # Otsu's threshold is the highest value of the lower side, and what reaches the presence threshold is proposed.
    above = [np.nextafter(np.float32(otsu(plane)), np.float32(1)) for plane in probability]
    return tuple(np.maximum(own, above).tolist())


def _measure(
    classifier: Classifier,
    image: LargeImage,
    normalisation: Normalisation,
    side: int,
    modes: Sequence[str],
    tiles: TileStore,
    progress: Progress,
) -> SweepMeasurements:
    """Return the measurements that tiles depend on, and keep each as soon as it is known."""
    measured = tiles.measured()
    # The reach first: it takes less time than the intensities, and may show that a dense sweep is impossible.
    if "dense" in modes and measured.reach is None:
        start = time.perf_counter()
        reach = engines.reach(classifier, progress)
        measured = replace(measured, reach=reach, seconds=time.perf_counter() - start)
        tiles.keep_measured(measured)
    if measured.normalisation is not None:
        return measured
    count, begun = passes(normalisation), itertools.count(1)

    def parts() -> Iterator[FloatArray]:
        label = "measuring intensities" + (f", pass {next(begun)} of {count}" if count > 1 else "")
        tops = range(0, image.height, side)
        for done, top in enumerate(tops, start=1):
            for left in range(0, image.width, side):
                yield image.read(top, min(top + side, image.height), left, min(left + side, image.width))
            progress.advance(label, done, len(tops))

    measured = replace(measured, normalisation=fix(normalisation, parts))
    tiles.keep_measured(measured)
    return measured


def _run(
    mode: str,
    engine: SweepEngine,
    measured: SweepMeasurements,
    tiles: TileStore,
    progress: Progress,
    note: Callable[[str], None],
) -> tuple[FloatArray, float]:
    """Compute the missing tiles, and return the windows' probabilities and the seconds that all tiles took."""
    halo, seconds = (measured.reach or 0, measured.seconds) if mode == "dense" else (0, 0.0)
    numbers = [(row, column) for row in range(len(engine.rows.tiles)) for column in range(len(engine.columns.tiles))]
    damaged = 0

    def load_tile(row: int, column: int) -> FloatArray:
        saved = tiles.load(mode, row, column)
        if saved is None:
            raise DataError(
                f"{tiles.folder}: tile {mode}-{row}-{column} was written but cannot be read; run the same sweep again "
                "to recompute it"
            )
        return saved[0]

    shape = None
    for done, (row, column) in enumerate(numbers, start=1):
        existed = tiles.exists(mode, row, column)
        finished = tiles.load(mode, row, column)
        damaged += existed and finished is None
        if finished is None:
            start = time.perf_counter()
            before, shape = shape, _shape(engine, row, column)
            if shape != before:
                return_freed_memory()
            if mode == "dense":
                values = engines.dense_tile(engine, halo, row, column)
            else:
                values = engines.exact_tile(engine, row, column)
            finished = values, time.perf_counter() - start
            tiles.keep(mode, row, column, *finished)
        seconds += finished[1]
        progress.advance(f"sweep {mode}", done, len(numbers))
    if damaged:
        note(f"{tiles.folder}: recomputed {counted(damaged, 'damaged tile')} of mode {mode}")
    start = time.perf_counter()
    join = engines.dense_windows if mode == "dense" else engines.exact_windows
    probabilities = join(engine, load_tile)
    return probabilities, seconds + time.perf_counter() - start


def _shape(engine: SweepEngine, row: int, column: int) -> tuple[tuple[int, bool], ...]:
    """Return what determines the sizes of a tile's blocks of memory.

    Along rows and columns: the tile's cells, and whether it has a halo on both sides.
    """
    axes = ((engine.rows, row), (engine.columns, column))
    return tuple(
        (int(axis.tiles[number, 1] - axis.tiles[number, 0]), 0 < number < len(axis.tiles) - 1) for axis, number in axes
    )


def _write_windows(path: Path, probabilities: FloatArray, engine: SweepEngine, classes: tuple[str, ...]) -> None:
    """Write a line for each window: its position in pixels, and the probability of each class."""
    stride = engine.rows.stride
    height, width = engine.rows.window * stride, engine.columns.window * stride
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", "y", "width", "height", *classes])
        for top, line in zip(engine.rows.windows[:, 0].tolist(), probabilities, strict=True):
            for left, scores in zip(engine.columns.windows[:, 0].tolist(), line.tolist(), strict=True):
                writer.writerow([left * stride, top * stride, width, height, *(f"{score:.6g}" for score in scores)])


def _covered(proposals: list[Proposal], block: int, size: tuple[int, int]) -> float:
    """Return the fraction of the image's pixels that lie in at least one proposal."""
    edges = [np.minimum(np.arange(0, side + block, block), side) for side in size]
    covered = np.zeros([len(edge) - 1 for edge in edges])
    for one in proposals:
        covered[
            one.y // block : -(-(one.y + one.height) // block), one.x // block : -(-(one.x + one.width) // block)
        ] = 1
    return float(np.diff(edges[0]) @ covered @ np.diff(edges[1])) / (size[0] * size[1])


def correlations(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> list[float | None]:
    """Return Pearson's correlation of the columns of two arrays (windows, K); None if a column is constant.

    By column, since differences between classes would raise the correlation of all values.
    """
    return [
        float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) > 0 and np.ptp(second) > 0 else None
        for first, second in zip(one.T, other.T, strict=True)
    ]


def _agreement(
    probabilities: dict[str, FloatArray],
    classes: tuple[str, ...],
    proposals: dict[str, list[Proposal]],
    seconds: dict[str, float],
    threshold: PresenceThreshold,
    window: tuple[int, int],
) -> SweepAgreement:
    dense, exact = (probabilities[mode].astype(np.float64).reshape(-1, len(classes)) for mode in ("dense", "exact"))
    by_class = correlations(dense, exact)
    return SweepAgreement(
        correlation=min((value for value in by_class if value is not None), default=None),
        correlations=dict(zip(classes, by_class, strict=True)),
        mean_difference=float(np.abs(dense - exact).mean()),
        windows_above=int(((dense >= threshold) & (exact >= threshold)).sum()),
        windows_above_dense=int((dense >= threshold).sum()),
        windows_above_exact=int((exact >= threshold).sum()),
        proposals_in_common=in_common(proposals["dense"], proposals["exact"], min(window) / 2),
        proposals_dense=len(proposals["dense"]),
        proposals_exact=len(proposals["exact"]),
        speedup=round(seconds["exact"] / seconds["dense"], 2),
    )
