"""Sweeps an image tile by tile. What is done is on the disk, and is not done again."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from micraframe import __version__, registry
from micraframe.classifier import Classifier
from micraframe.config import Precision
from micraframe.errors import ConfigError, DataError, ModelError
from micraframe.files import atomic, digest, digest_json, write_json
from micraframe.images import write_png
from micraframe.micranet import NAME, FittedMicraNet
from micraframe.modelfile import hash_weights, load_model, versions
from micraframe.reuse import release_blocks, reused_blocks
from micraframe.sweep import engine as engines
from micraframe.sweep.engine import Engine
from micraframe.sweep.image import LargeImage, open_image
from micraframe.sweep.intensities import fix, passes
from micraframe.sweep.ome_zarr import write_map
from micraframe.sweep.picture import draw, shrink
from micraframe.sweep.proposals import Proposal, in_common, propose, write_geojson, write_table
from micraframe.sweep.tiles import DIGITS, Measured, Tiles, forget_others
from micraframe.sweep.windows import lay, probability_map
from micraframe.types import FloatArray, Normalisation, Progress

Mode = Literal["dense", "exact", "both"]

MAP = "probability.ome.zarr"
TABLE = "proposals.csv"
GEOJSON = "proposals.geojson"
OVERLAY = "overlay.png"
REPORT = "report.json"
WINDOWS = "windows-{mode}.csv"


@dataclass(frozen=True)
class Options:
    """How to sweep.

    Attributes:
        mode: `dense`, `exact` (window by window, as the paper does), or `both`, which compares them.
        window: (height, width) of a window in pixels; None is the size of the images that the model learned from.
        overlap: Share of a window that the next one covers too, in [0, 1).
        threshold: On the probability, for proposals.
        tile: Side in pixels of what is computed at a time.
        precision: Of the convolutions: `auto`, `float32` or `bfloat16`.
    """

    mode: Mode = "dense"
    window: tuple[int, int] | None = None
    overlap: float = 0.75
    threshold: float = 0.5
    tile: int = 1024
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.mode not in ("dense", "exact", "both"):
            raise ConfigError(f"mode {self.mode!r}; write dense, exact or both")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold {self.threshold}; a number above 0, at most 1, is wanted")


@dataclass(frozen=True)
class Agreement:
    """How far dense and exact sweeps agree.

    Attributes:
        correlation: The least of the classes', so that one on which they disagree shows; None where there is none.
        correlations: Pearson's, of the windows' probabilities, by class; None where they are constant in either sweep.
        mean_difference: Mean absolute difference of these probabilities.
        windows_above: Windows (of each class) that are at or above the threshold in both sweeps.
        windows_above_dense: In the dense sweep.
        windows_above_exact: In the exact sweep.
        proposals_in_common: Proposals of both sweeps that lie within half a window of each other.
        proposals_dense: Of the dense sweep.
        proposals_exact: Of the exact sweep.
        speedup: Seconds of the exact sweep per second of the dense one.
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
class Report:
    """What was done.

    Attributes:
        image: Where the image came from.
        model: The folder of the model; None if it came from memory.
        weights: SHA-256 of the model's weights: of its file `weights.safetensors`.
        versions: Of micraframe, its plugins, and what they compute with.
        fingerprint: Of all that decides what tiles hold; `tiles/` has a folder named by its beginning.
        size: (H, W) in pixels.
        classes: Names of the K classes.
        mode: `dense`, `exact` or `both`.
        window: (height, width) of a window in pixels: what was asked for, as a multiple of the network's stride, and at
            most the image.
        window_asked: (height, width) in pixels that was asked for, or of the images that the model learned from.
        step: Pixels from one window to the next: a multiple of the stride too.
        windows: Number of windows.
        threshold: On the probability, for proposals.
        precision: Of the convolutions.
        device: That computed.
        proposals: Number of proposals.
        area: Share of the image that the proposals cover, in [0, 1]: what is left to look at.
        seconds: That computing took, by mode, resumed runs included.
        agreement: Between dense and exact, where both were asked for.
        notes: What a reader of the results should know, a sentence each.
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
    threshold: float
    precision: str
    device: str
    proposals: int
    area: float
    seconds: dict[str, float]
    agreement: Agreement | None
    notes: tuple[str, ...]


def sweep_file(
    model: Path,
    image: Path,
    output: Path,
    options: Options | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Sweep an image file with a saved model; see `sweep_image`.

    Raises:
        ModelError: If the model cannot be read, or is not of MICRA-Net.
        DataError: If the image cannot be read or has other channels than the model's images.
    """
    saved = load_model(model)
    if registry.catalog().find("method", saved.method.name).qualified != NAME:
        raise ModelError(f"{model} is a model of {saved.method.name}; only one of {NAME} can sweep")
    fitted = registry.build("method", saved.method.name, **saved.method.params).load(model, device)
    assert isinstance(fitted, FittedMicraNet)
    return _sweep_image(fitted, image, output, options, progress, say, model)


def sweep_image(
    fitted: FittedMicraNet,
    image: Path | npt.NDArray[Any],
    output: Path,
    options: Options | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Find where in an image, which may be larger than memory, the classes are.

    Writes to `output`: the probability map as OME-Zarr, ranked proposals as CSV and as GeoJSON for QuPath, a picture of
    the whole, the probabilities of all windows as `windows-dense.csv` or `windows-exact.csv`, and `report.json`. What
    was computed for each tile is kept in `tiles/`: a sweep of the same image with the same model goes on from there.
    What an earlier sweep left in `output` is replaced when all is computed.

    Args:
        fitted: A trained model.
        image: A path, or an array (H, W) or (C, H, W) in the units that the model's normalisation begins with.
        output: The folder to write to.
        options: How to sweep.
        progress: Whom to tell how far it has come.
        say: Is called with each of the report's notes, as soon as it is known.

    Raises:
        ConfigError: If no window is given and the model does not know the size of its training images.
        ModelError: If mode is not `exact` and the network looks at the whole image at once.
        DataError: If the image cannot be read or has other channels than the model's images.
    """
    return _sweep_image(fitted, image, output, options, progress, say, None)


@final
class _Notes:
    """Collects notes, and tells each at once."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self.all: list[str] = []
        self._say = say

    def add(self, note: str) -> None:
        self.all.append(note)
        if self._say:
            self._say(note)


def _sweep_image(
    fitted: FittedMicraNet,
    image: Path | npt.NDArray[Any],
    output: Path,
    options: Options | None,
    progress: Progress | None,
    say: Callable[[str], None] | None,
    model: Path | None,
) -> Report:
    options = options or Options()
    progress = progress or Progress()
    notes = _Notes(say)
    with open_image(image) as opened:
        if opened.channels != fitted.info.channels:
            raise ModelError(
                f"{opened.name} has {opened.channels} channels; the model learned from images of {fitted.info.channels}"
            )
        for note in opened.notes:
            notes.add(note)
        return _sweep(fitted, opened, output, options, progress, notes, model)


def _sweep(
    fitted: FittedMicraNet,
    image: LargeImage,
    output: Path,
    options: Options,
    progress: Progress,
    notes: _Notes,
    model: Path | None,
) -> Report:
    classes = fitted.info.classes
    modes = ("dense", "exact") if options.mode == "both" else (options.mode,)
    asked = _window(fitted, options)
    stride = fitted.classifier.layers[-1].stride
    size = (image.height, image.width)
    rows, columns = lay(size, stride, asked, options.overlap, options.tile)
    window = (rows.window * stride, columns.window * stride)
    if any(used + stride <= wanted for used, wanted in zip(window, asked, strict=True)):
        notes.add(
            f"{image.name}: windows of {asked[0]} x {asked[1]} pixels do not fit in {size[0]} x {size[1]}; they are "
            f"cut to {window[0]} x {window[1]}"
        )
    if fitted.info.image_size is None and fitted.info.normalisation.kind not in ("none", "fixed"):
        notes.add(
            f"{image.name}: the model learned from images that were each brought to their own range "
            f"({fitted.info.normalisation.kind}); this one is brought to its range as a whole, and its windows may "
            "look unlike them: if too much is found, train with normalisation scope: train"
        )
    classifier, precision = engines.freeze(fitted.classifier, options.precision)
    weights = hash_weights(fitted.classifier.state_dict())
    fingerprint = digest(
        __version__,
        image.fingerprint,
        digest_json([asdict(fitted.info.normalisation), asdict(rows), asdict(columns), str(precision)]),
        f"{fitted.classifier.backbone} {fitted.classifier.pooling}",
        weights,
    )
    tiles = Tiles(output / "tiles" / fingerprint[:DIGITS])
    measured = _measure(classifier, image, fitted.info.normalisation, rows.tile * stride, modes, tiles, progress)
    assert measured.normalisation is not None
    machine = Engine(classifier, precision, image, measured.normalisation, rows, columns)

    probabilities: dict[str, FloatArray] = {}
    maps: dict[str, FloatArray] = {}
    proposals: dict[str, list[Proposal]] = {}
    seconds: dict[str, float] = {}
    block = rows.step * stride
    for mode in modes:
        probabilities[mode], seconds[mode] = _run(mode, machine, measured, tiles, progress, notes)
        maps[mode] = probability_map(probabilities[mode], rows, columns)
        proposals[mode] = propose(maps[mode], classes, block, size, options.threshold)

    # From here on old results go; their report first, so that it never lies beside others than its own.
    (output / REPORT).unlink(missing_ok=True)
    for mode in ("dense", "exact"):
        if mode in modes:
            _write_windows(output / WINDOWS.format(mode=mode), probabilities[mode], machine, classes)
        else:
            (output / WINDOWS.format(mode=mode)).unlink(missing_ok=True)
    forget_others(tiles.folder)
    first = modes[0]
    write_map(output / MAP, maps[first], classes, block)
    write_table(output / TABLE, proposals[first])
    write_geojson(output / GEOJSON, proposals[first], classes)
    small, factor = shrink(image)
    write_png(output / OVERLAY, draw(small, factor, maps[first], block, proposals[first], classes))
    report = Report(
        image=image.name,
        model=None if model is None else str(model),
        weights=weights,
        versions=versions(),
        fingerprint=fingerprint,
        size=size,
        classes=classes,
        mode=options.mode,
        window=window,
        window_asked=asked,
        step=block,
        windows=len(machine.rows.windows) * len(machine.columns.windows),
        threshold=options.threshold,
        precision=str(machine.precision).removeprefix("torch."),
        device=str(next(machine.classifier.parameters()).device),
        proposals=len(proposals[first]),
        area=_covered(proposals[first], block, size),
        seconds={mode: round(value, 3) for mode, value in seconds.items()},
        agreement=_agreement(probabilities, classes, proposals, seconds, options.threshold, window)
        if options.mode == "both"
        else None,
        notes=tuple(notes.all),
    )
    write_json(output / REPORT, asdict(report))
    return report


def _window(fitted: FittedMicraNet, options: Options) -> tuple[int, int]:
    window = options.window or fitted.info.image_size
    if window is None:
        raise ConfigError(
            "the model does not know the size of the images that it learned from: give the side of a window in pixels "
            "(--window), which should be that size"
        )
    return window


def _measure(
    classifier: Classifier,
    image: LargeImage,
    normalisation: Normalisation,
    side: int,
    modes: Sequence[str],
    tiles: Tiles,
    progress: Progress,
) -> Measured:
    """Return what must be known before the first tile, and keep it, each part as soon as it is known."""
    measured = tiles.measured()
    # The reach first: it may be that there is none, and this is sooner known than the intensities.
    if "dense" in modes and measured.reach is None:
        began = time.perf_counter()
        reach = engines.reach(classifier, progress)
        measured = replace(measured, reach=reach, seconds=time.perf_counter() - began)
        tiles.keep_measured(measured)
    if measured.normalisation is not None:
        return measured
    labels = pass_labels(passes(normalisation))

    def parts() -> Iterator[FloatArray]:
        label = next(labels)
        tops = range(0, image.height, side)
        for number, top in enumerate(tops):
            for left in range(0, image.width, side):
                yield image.read(top, min(top + side, image.height), left, min(left + side, image.width))
            progress.advance(label, number + 1, len(tops))

    measured = replace(measured, normalisation=fix(normalisation, parts))
    tiles.keep_measured(measured)
    return measured


def pass_labels(count: int) -> Iterator[str]:
    """Yield what each pass over an image is called, so that two are told apart."""
    for number in range(1, count + 1):
        yield "measure intensities" if count == 1 else f"measure intensities, pass {number} of {count}"


def _run(
    mode: str, machine: Engine, measured: Measured, tiles: Tiles, progress: Progress, notes: _Notes
) -> tuple[FloatArray, float]:
    """Compute the tiles that are not done, and return the windows' probabilities and the seconds that all took."""
    halo, seconds = (measured.reach or 0, measured.seconds) if mode == "dense" else (0, 0.0)
    numbers = [(row, column) for row in range(len(machine.rows.tiles)) for column in range(len(machine.columns.tiles))]
    damaged = 0

    def load(row: int, column: int) -> FloatArray:
        done = tiles.load(mode, row, column)
        if done is None:
            raise DataError(
                f"{tiles.folder}: the tile {mode}-{row}-{column} was written and cannot be read any more; run the same "
                "sweep again, which computes it anew"
            )
        return done[0]

    shape = None
    with reused_blocks():
        for done, (row, column) in enumerate(numbers, start=1):
            there = tiles.exists(mode, row, column)
            finished = tiles.load(mode, row, column)
            damaged += there and finished is None
            if finished is None:
                began = time.perf_counter()
                before, shape = shape, _shape(machine, row, column)
                if shape != before:
                    release_blocks()
                if mode == "dense":
                    values = engines.dense_tile(machine, halo, row, column)
                else:
                    values = engines.exact_tile(machine, row, column)
                finished = values, time.perf_counter() - began
                tiles.keep(mode, row, column, *finished)
            seconds += finished[1]
            progress.advance(f"sweep {mode}", done, len(numbers))
    if damaged:
        notes.add(f"{tiles.folder}: tiles of mode {mode} whose files were damaged, computed anew: {damaged}")
    began = time.perf_counter()
    join = engines.dense_windows if mode == "dense" else engines.exact_windows
    probabilities = join(machine, load)
    return probabilities, seconds + time.perf_counter() - began


def _shape(machine: Engine, row: int, column: int) -> tuple[tuple[int, bool], ...]:
    """Return what decides how large the blocks of memory are that a tile takes: its sides, and where there is no halo.

    Down and across: the cells of the tile, and whether it lies within the image, away from both ends.
    """
    axes = ((machine.rows, row), (machine.columns, column))
    return tuple(
        (int(axis.tiles[number, 1] - axis.tiles[number, 0]), 0 < number < len(axis.tiles) - 1) for axis, number in axes
    )


def _write_windows(path: Path, probabilities: FloatArray, machine: Engine, classes: tuple[str, ...]) -> None:
    """Write a line for each window: where it lies, in pixels, and the probability of each class."""
    stride = machine.rows.stride
    height, width = machine.rows.window * stride, machine.columns.window * stride
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", "y", "width", "height", *classes])
        for top, line in zip(machine.rows.windows[:, 0].tolist(), probabilities, strict=True):
            for left, scores in zip(machine.columns.windows[:, 0].tolist(), line.tolist(), strict=True):
                writer.writerow([left * stride, top * stride, width, height, *(f"{score:.6g}" for score in scores)])


def _covered(proposals: list[Proposal], block: int, size: tuple[int, int]) -> float:
    """Return the share of the image's pixels that lie in at least one proposal."""
    edges = [np.minimum(np.arange(0, side + block, block), side) for side in size]
    covered = np.zeros([len(edge) - 1 for edge in edges])
    for one in proposals:
        covered[
            one.y // block : -(-(one.y + one.height) // block), one.x // block : -(-(one.x + one.width) // block)
        ] = 1
    return float(np.diff(edges[0]) @ covered @ np.diff(edges[1])) / (size[0] * size[1])


def correlations(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> list[float | None]:
    """Return Pearson's correlation of the columns of two arrays (windows, K); None where a column is constant.

    Not of all columns together, which what differs between classes would raise.
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
    threshold: float,
    window: tuple[int, int],
) -> Agreement:
    dense, exact = (probabilities[mode].astype(np.float64).reshape(-1, len(classes)) for mode in ("dense", "exact"))
    by_class = correlations(dense, exact)
    return Agreement(
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
