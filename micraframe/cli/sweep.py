"""`micraframe sweep`: finds the classes in an image that may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from micraframe.cli.output import AsJson, Device, duration, print_json, progress
from micraframe.cli.predict import Combiner, Extractor, Head, StudyOrigin, choices, with_study_thresholds
from micraframe.errors import ConfigError

if TYPE_CHECKING:
    from micraframe.sweep.ome_zarr import NgffVersion
    from micraframe.sweep.run import Mode, SweepReport
    from micraframe.types import Precision


def sweep(
    model: Annotated[Path, typer.Argument(help="Folder of a saved micra-net model.")],
    image: Annotated[Path, typer.Argument(help="A TIFF, the folder of a Zarr array or OME-Zarr, a PNG or JPEG.")],
    output: Annotated[
        Path,
        typer.Option(help="Folder for the results; a sweep in it is resumed, and may have another mode or threshold."),
    ],
    mode: Annotated[
        str, typer.Option(help="dense (fast), exact (window by window, as in the paper), or both, to compare them.")
    ] = "dense",
    window: Annotated[
        int | None,
        typer.Option(
            help="Side of a window in pixels. Default: that of the training images, if they are all of one size."
        ),
    ] = None,
    overlap: Annotated[
        float, typer.Option(help="Overlap between neighbouring windows, as a fraction of the window.")
    ] = 0.75,
    presence_threshold: Annotated[
        float | None,
        typer.Option(
            help="Presence probability above which a location is proposed. Default: the model's own threshold and, "
            "unless it was tuned, no lower than Otsu's threshold of the map."
        ),
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(help="Presence thresholds tuned by a study: STUDY/runs/KEY/thresholds.json.")
    ] = None,
    origin: StudyOrigin = None,
    masks: Annotated[
        bool,
        typer.Option(
            "--masks",
            help="Also write the masks and objects in the proposals, by the model's extractor, combiner and head, or "
            "those given here. The probability map itself is the classifier's, and uses none of them.",
        ),
    ] = False,
    head: Head = None,
    combiner: Combiner = None,
    extractor: Extractor = None,
    tile: Annotated[
        int, typer.Option(help="Side of the tiles, in pixels, computed one at a time; larger ones need more memory.")
    ] = 1024,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "float32",
    ngff: Annotated[
        str, typer.Option(help="OME-NGFF version of the map: 0.5, or 0.4 for viewers that cannot read Zarr 3.")
    ] = "0.5",
    as_json: AsJson = False,
) -> None:
    """Find where the classes are in a large image: a probability map and ranked proposals.

    It prints a summary; report.json in the output folder, or --json, has all details.
    """
    from micraframe.pipeline import load
    from micraframe.runtime.memory import reuse_freed_memory
    from micraframe.sweep import SweepOptions, sweep_image
    from micraframe.sweep.regions import MASKS, OBJECTS, OUTLINES
    from micraframe.sweep.run import GEOJSON, MAP, OVERLAY, REPORT, TABLE

    options = SweepOptions(
        mode=cast("Mode", mode),
        window=None if window is None else (window, window),
        overlap=overlap,
        presence_threshold=presence_threshold,
        tile=tile,
        precision=cast("Precision", precision),
        ngff=cast("NgffVersion", ngff),
    )
    pipeline = with_study_thresholds(load(model, device), thresholds, origin)
    others = choices(head=head, combiner=combiner, extractor=extractor)
    if others and not masks:
        raise ConfigError(f"--{next(iter(others))}: expected --masks too, which alone uses it; add it")
    segmenting = pipeline if masks else None
    if others:
        segmenting = with_study_thresholds(load(model, device, **others), thresholds, origin)

    def say(note: str) -> None:
        typer.echo(f"Note: {note}", err=True)

    with reuse_freed_memory():
        report = sweep_image(pipeline, image, output, options, progress(), say, model, segmenting, replace_other=False)
    if as_json:
        flat: dict[str, Any] = asdict(report)
        agreement = flat.pop("agreement") or {}
        print_json([flat | {f"agreement: {key}": value for key, value in agreement.items()}])
        return
    print("\n".join(summary(report)))
    for name in (TABLE, GEOJSON, OVERLAY, MAP, REPORT, *((MASKS, OBJECTS, OUTLINES) if masks else ())):
        print(f"File: {output / name}")


def summary(report: SweepReport) -> Iterator[str]:
    """Yield lines with what was found and how long it took; notes were printed as soon as they were known."""
    height, width = report.window
    yield f"Proposals: {report.proposals}, covering {report.area:.2%} of the image"
    if report.objects is not None:
        yield f"Objects in them: {report.objects}"
    yield f"Windows: {report.windows} of {height} x {width} pixels, {report.step} pixels apart"
    for mode, seconds in report.seconds.items():
        yield f"Computing time ({mode}): {duration(seconds)}"
    if report.agreement is not None:
        found = report.agreement
        correlation = "undefined" if found.correlation is None else f"{found.correlation:.3f}"
        yield (
            f"Dense against exact: correlation {correlation}; {found.proposals_dense} and {found.proposals_exact} "
            f"proposals, {found.proposals_in_common} in common; dense is {found.speedup:.3g} times as fast"
        )
