"""What does it cost to sweep a large image with overlapping windows?

Dense against exact: all windows of 256 x 256 that begin in one tile of 1024 x 1024, with 75 % overlap, by MICRA-Net's
own network (32 to 256 filters); they take turns, so that a busy machine is busy for both. And the peak memory of a
process that sweeps a tiled TIFF of 10 240 x 10 240.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile
import torch

from benchmarks.speed.memory import peak
from benchmarks.speed.subject import NARROW, WIDTHS, assemble, classifier
from benchmarks.speed.timing import Record, Settings, record, take_turns
from micraframe.config import Choice
from micraframe.extractors.frozen import fast_copy
from micraframe.micranet import MicraNet
from micraframe.runtime.memory import reuse_freed_memory
from micraframe.sweep import SweepOptions, sweep_image
from micraframe.sweep.engine import SweepEngine, dense_tile, exact_tile, reach
from micraframe.sweep.image import open_image
from micraframe.sweep.windows import lay_windows
from micraframe.types import DatasetInfo, Normalisation

WINDOW, OVERLAP, TILE = 256, 0.75, 1024
ROOT = Path(__file__).parents[2]


def records(settings: Settings) -> list[Record]:
    """Return the speed-up of dense over exact sweeps, and the peak memory of a sweep."""
    widths, side = (NARROW, 2048) if settings.quick else (WIDTHS, 10240)
    return [*speedup(settings, widths), memory(side, widths)]


def speedup(settings: Settings, widths: Sequence[int]) -> list[Record]:
    """Time both on the middle tile of 3 x 3, which has neighbours on all sides."""
    network = classifier(widths, settings.device, classes=2)
    frozen, precision = fast_copy(network, "float32")
    image = np.random.default_rng(0).random((3 * TILE, 3 * TILE), np.float32)
    layout = lay_windows(image.shape, frozen.layers[-1].stride, (WINDOW, WINDOW), OVERLAP, TILE)
    halo = reach(frozen)
    tile = torch.from_numpy(image[None, None, TILE : 2 * TILE, TILE : 2 * TILE].copy()).to(settings.device)

    def bare() -> None:
        with torch.inference_mode():
            network(tile)

    # As in a sweep, and for all routes.
    with open_image(image) as opened, reuse_freed_memory():
        engine = SweepEngine(frozen, precision, opened, Normalisation(), *layout)
        routes = {
            "dense": lambda: dense_tile(engine, halo, 1, 1),
            "exact": lambda: exact_tile(engine, 1, 1),
            "bare": bare,
        }
        seconds = take_turns(routes, settings)
    return [
        record(f"sweep: a tile of {TILE} x {TILE}", "seconds: dense", seconds["dense"], "seconds"),
        record("sweep: 75 % overlap", "exact / dense", seconds["exact"] / seconds["dense"], target=">= 12"),
        record(
            "sweep: over a bare pass", "dense / bare torch forward pass of the tile", seconds["dense"] / seconds["bare"]
        ),
    ]


def memory(side: int, widths: Sequence[int]) -> Record:
    """Sweep an image in a separate process, and return its peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tifffile.imwrite(
            folder / "image.tif", noise(side), shape=(side, side), dtype=np.uint8, tile=(512, 512), compression="zlib"
        )
        arguments = ["-m", "benchmarks.speed.sweep", name, *map(str, widths)]
        done = subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return record(
        f"sweep: memory at {side} x {side}",
        "peak of a process, torch included",
        [json.loads(done.stdout)],
        "MiB",
        "<= 2048",
    )


def inside(folder: Path, widths: Sequence[int]) -> float:
    """Sweep the image of `folder`, and return this process's peak memory in MiB."""
    params = MicraNet.Params(backbone=Choice(name="unet-encoder", params={"widths": list(widths)}))
    info = DatasetInfo("noise", ("one", "two"), 1, Normalisation("min-max"), "0" * 64)
    trained = assemble(params, classifier(widths, classes=2), info)
    with reuse_freed_memory():
        sweep_image(trained, folder / "image.tif", folder / "out", SweepOptions(window=(WINDOW, WINDOW), tile=TILE))
    return peak()


def noise(side: int) -> Iterator[np.ndarray]:
    """Yield the tiles of an image of noise, one at a time."""
    generator = np.random.default_rng(0)
    for _ in range((-(-side // 512)) ** 2):
        yield generator.integers(0, 200, (512, 512), np.uint8)


if __name__ == "__main__":
    print(inside(Path(sys.argv[1]), [int(width) for width in sys.argv[2:]]))
