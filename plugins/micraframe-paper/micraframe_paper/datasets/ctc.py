"""The Cell Tracking Challenge: six two-dimensional cell lines, with cells and the places where they touch."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple, final

from pydantic import Field, PositiveFloat

from micraframe.datasets.annotation import ImageAnnotation
from micraframe.datasets.crops import Handling, PositiveRule
from micraframe.datasets.image_dataset import ImageDataset, ImageDatasetParams
from micraframe.datasets.sources import SourceImage
from micraframe.errors import DataError
from micraframe.images import read_image, read_labels, resize, scaled_size
from micraframe.objects import count
from micraframe.types import FloatArray, Split
from micraframe_paper.datasets.defaults import default
from micraframe_paper.download import RemoteFile, Terms, fetch, root_of

TERMS: Final = Terms(
    "ctc",
    licence="free for the challenge; other scientific use with permission of the data's providers, commercial use also "
    "of the organisers",
    citation="V. Ulman et al., An objective comparison of cell-tracking algorithms, Nature Methods 14, 1141-1152, 2017",
    page="https://celltrackingchallenge.net/2d-datasets/",
)

LineName = Literal[
    "DIC-C2DH-HeLa", "Fluo-C2DL-MSC", "Fluo-N2DH-GOWT1", "Fluo-N2DL-HeLa", "PhC-C2DH-U373", "PhC-C2DL-PSC"
]


class CellLine(NamedTuple):
    """A cell line: the edge of its pixels in micrometres, as the challenge gives it, and its archive's SHA-256."""

    pixel_um: float
    sha256: str


LINES: Final[Mapping[LineName, CellLine]] = {
    "DIC-C2DH-HeLa": CellLine(0.19, "832fed2d05bb7488cf9c51a2994b75f8f3f53b3c3098856211f2d39023c34e1a"),
    # 0.3977 in one of its sequences, the challenge does not say in which
    "Fluo-C2DL-MSC": CellLine(0.3, "a083521f0cb673ae02d4957c5e6580c2e021943ef88101f6a2f61b944d671af2"),
    "Fluo-N2DH-GOWT1": CellLine(0.24, "1a7bd9a7d1d10c4122c7782427b437246fb69cc3322a975485c04e206f64fc2c"),
    "Fluo-N2DL-HeLa": CellLine(0.645, "35dd99d58e071aba0b03880128d920bd1c063783cc280f9531fbdc5be614c82e"),
    "PhC-C2DH-U373": CellLine(0.65, "b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e"),
    "PhC-C2DL-PSC": CellLine(1.6, "9d54bb8febc8798934a21bf92e05d92f5e8557c87e28834b2832591cdda78422"),
}
"""The paper's cell lines. It trained without the first: its cells fill the image at any scale at which they fit."""

EFFECTIVE_UM: Final = 0.5
"""Edge of a pixel, in micrometres, after the paper's resizing for crops of 256 px."""


class Frame(NamedTuple):
    """An image of a sequence: its number, its file, and the file of its numbered cells."""

    number: int
    image: Path
    cells: Path


def read_tracks(path: Path) -> dict[int, tuple[int, int]]:
    """Read the tracks of a sequence, `man_track.txt`: a line `L B E P` for each cell.

    Returns:
        For each cell L, the first frame B and the last frame E that show it. The parent P is not used.

    Raises:
        DataError: If it cannot be read, or a line is not of this form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); it tells how many cells a frame has: restore it, or set completeness: 0"
        ) from error
    tracks = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 4 or not all(field.isdecimal() for field in fields) or int(fields[1]) > int(fields[2]):
            raise DataError(f"{path}:{number}: expected 'cell first-frame last-frame parent', got {line!r}")
        cell, first, last, _ = map(int, fields)
        tracks[cell] = first, last
    return tracks


def annotated_frames(line: Path, sequence: str, corpora: tuple[str, ...], completeness: float) -> list[Frame]:
    """Return the frames of a sequence whose cells are outlined, in the order of time.

    Outlines by people, `01_GT/SEG/man_seg000.tif`, often show some cells of a frame only, and the others would count as
    background. The tracks, `01_GT/TRA/man_track.txt`, cover every cell: they tell whether outlines are complete.

    Args:
        line: The folder of a cell line, which holds the folder of the sequence.
        sequence: `01` or `02`.
        corpora: Where to look for outlines, in order: `GT` (gold truth, by people) and `ST` (silver truth, from
            several algorithms).
        completeness: Least number of outlined cells, as a share of the cells that the tracks say are in the frame; 0
            accepts all outlines, and needs no tracks.

    Raises:
        DataError: If the sequence or its tracks are missing or broken, or no frame is outlined.
    """
    folder = line / sequence
    numbered = {path: match[1] for path in folder.glob("t*.tif") if (match := re.fullmatch(r"t(\d+)", path.stem))}
    if not numbered:
        raise DataError(f"{folder}: expected the frames t000.tif, t001.tif, ..., found none")
    tracks = read_tracks(line / f"{sequence}_GT" / "TRA" / "man_track.txt") if completeness else {}

    def outlines(digits: str) -> Iterator[Path]:
        cells = sum(first <= int(digits) <= last for first, last in tracks.values())
        for corpus in corpora:
            path = line / f"{sequence}_{corpus}" / "SEG" / f"man_seg{digits}.tif"
            if path.is_file() and (not completeness or count(read_labels(path)[None]) >= completeness * cells):
                yield path

    found = ((path, digits, next(outlines(digits), None)) for path, digits in sorted(numbered.items()))
    frames = [Frame(int(digits), path, cells) for path, digits, cells in found if cells]
    if not frames:
        raise DataError(
            f"{folder}: expected frames with outlined cells in {' or '.join(f'{sequence}_{one}' for one in corpora)}, "
            f"got none of {len(numbered)} with at least {completeness:.0%} of their cells; lower completeness"
        )
    return frames


@final
class CellTrackingChallenge(ImageDataset["CellTrackingChallenge.Params"]):
    """Cells of six lines in time-lapse sequences, and the places where they touch, in overlapping crops.

    After Bilodeau et al. 2022: each image is resized to pixels of 0.5 um and scaled to [0, 1]; crops of 256 px overlap
    by a quarter; one contains cells if the area of the training images' mean cell is outlined in it, and contacts if
    it has a pixel of one. The area is a mean over all lines in use. The paper's crops of 128 px (`crop: 128, stride:
    96`) show single cells of each line; their scale factors are in its Supplementary Table 6, which we do not have:
    give them by `scales`. How the paper defined contacts is not known either; see `contact_distance`.

    Frames without complete outlines are left out (see `annotated_frames`). Sequence 01 is for training; the first half
    of the usable frames of 02 is for validation, the second for testing, so that no test frame has a neighbour in
    training. The paper's test images, four of each line from the challenge's unpublished sequences, were outlined by
    its authors and are not public. `seed`, `valid` and `test` do not matter, except for `limit`.

    With one line, its scale is known to `predict`, which resizes new images likewise; with several, it is not.
    """

    path_params = ("root",)

    class Params(ImageDatasetParams):
        root: str = Field(
            "",
            description="The folder that holds one of each cell line; may begin with ~ or $MICRAFRAME_DATA/. Empty: "
            "they are downloaded.",
        )
        lines: tuple[LineName, ...] = Field(
            tuple(LINES), min_length=1, description="Cell lines. The paper's results are without DIC-C2DH-HeLa."
        )
        scales: dict[LineName, PositiveFloat] = Field(
            {}, description="Factors by which to resize images, by cell line; others are resized to pixels of 0.5 um."
        )
        corpora: tuple[Literal["GT", "ST"], ...] = Field(
            ("GT", "ST"),
            min_length=1,
            description="Outlines to use, in order of preference: GT, by people, ST, from several algorithms.",
        )
        completeness: float = Field(
            0.9,
            ge=0,
            le=1,
            description="Least share of a frame's tracked cells that must be outlined; 0 uses every outlined frame.",
        )
        crop: int | None = default(ImageDatasetParams, "crop", 256)
        stride: int | None = default(ImageDatasetParams, "stride", 192)
        positive_rule: PositiveRule = default(ImageDatasetParams, "positive_rule", "object")
        ambiguous_train_crops: Literal["drop", "negative"] = default(
            ImageDatasetParams, "ambiguous_train_crops", "negative"
        )
        ambiguous_test_crops: Handling = default(ImageDatasetParams, "ambiguous_test_crops", "negative")
        contact_class: str = default(ImageDatasetParams, "contact_class", "contact")
        licence: str = default(ImageDatasetParams, "licence", TERMS.licence)
        citation: str = default(ImageDatasetParams, "citation", TERMS.citation)

        @property
        def factor(self) -> float:
            """Pixels of a sample per pixel of its file; of several lines, each image's reader resizes it first."""
            return super().factor * (self.line_scale(self.lines[0]) if len(self.lines) == 1 else 1)

        def line_scale(self, line: LineName) -> float:
            """Return the factor by which the images of a line are resized."""
            return self.scales.get(line, LINES[line].pixel_um / EFFECTIVE_UM)

    def default_name(self) -> str:
        """Return the dataset's name."""
        return TERMS.dataset

    def classes(self) -> tuple[str, ...]:
        """Return the name of the only class besides the contacts, which are made."""
        return ("cell",)

    def has_instances(self) -> bool:
        """Return True: cells are numbered."""
        return True

    def sources(self) -> list[SourceImage]:
        """Return the images with complete outlines, by line, sequence and time.

        Raises:
            DataError: If a line is missing and cannot be downloaded, or `annotated_frames` fails.
        """
        params = self.params
        remote = [
            RemoteFile(
                line,
                f"https://data.celltrackingchallenge.net/training-datasets/{line}.zip",
                f"sha256:{LINES[line].sha256}",
                archive=True,
            )
            for line in params.lines
        ]
        folders = fetch(remote, root_of(params.root), TERMS)
        sources = []
        for line, folder in zip(params.lines, folders, strict=True):
            scale = 1.0 if len(params.lines) == 1 else params.line_scale(line)
            for sequence in ("01", "02"):
                frames = annotated_frames(folder, sequence, params.corpora, params.completeness)
                for index, frame in enumerate(frames):
                    later: Split = "valid" if index < len(frames) / 2 else "test"
                    split: Split = "train" if sequence == "01" else later
                    sources.append(
                        SourceImage(
                            f"{line}-{sequence}-{frame.image.stem}",
                            functools.partial(_read_image, frame.image, scale),
                            functools.partial(_read_cells, frame.cells, scale),
                            group=f"{line}-{sequence}-{split}",
                            split=split,
                            files=(frame.image, frame.cells),
                        )
                    )
        return sources


def _read_image(path: Path, scale: float) -> FloatArray:
    image = read_image(path)
    return resize(image, scaled_size((image.shape[1], image.shape[2]), scale))


def _read_cells(path: Path, scale: float) -> ImageAnnotation:
    instances = read_labels(path)
    size = instances.shape[0], instances.shape[1]
    return ImageAnnotation(instances=instances[None]).resized(size, scaled_size(size, scale))
