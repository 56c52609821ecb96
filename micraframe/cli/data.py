"""`micraframe data`: examine a dataset before training on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from micraframe import registry
from micraframe.cli.check import datasets_of, read_any
from micraframe.cli.output import AsJson, ConfigFile, print_table, wrapped

if TYPE_CHECKING:
    from micraframe.datasets.audit import Audit

app = typer.Typer(help="Examine a dataset before training on it.", no_args_is_help=True)


@app.command()
def audit(
    file: ConfigFile,
    object_size: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Typical width of an object in pixels of the files: scale and crop are proposed from it and the "
            "labels, and no mask is measured.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report what the datasets of a configuration offer, and propose scale and crop.

    It counts images, crops, positives and negatives, measures objects, and warns of classes without negatives and of
    objects larger than the crop, which labels cannot teach. Unless --object-size is given, sizes come from the masks or
    boxes of up to 20 validation images.
    """
    from micraframe.datasets.audit import audit as examine

    audits = [
        examine(registry.build("dataset", choice.name, **choice.params), object_size)
        for choice in datasets_of(read_any(Path(file)))
    ]
    if as_json:
        print(json.dumps([asdict(one) for one in audits], indent=2, ensure_ascii=False))
        return
    for number, one in enumerate(audits):
        if number:
            print()
        _print(one)


def _print(audit: Audit) -> None:
    sample = "crops" if audit.crop or audit.cut else "samples"
    kind = f"crop {audit.crop}" if audit.crop else "crops as they are" if audit.cut else "whole images"
    at = f"scale {audit.scale:g}, {kind}"
    print(wrapped(f"{audit.dataset} ({at})", "", "  "))
    sizes = [f"{h} x {w} ({count})" for h, w, count in audit.image_sizes]
    more = f", and {len(sizes) - 6} more sizes" if len(sizes) > 6 else ""
    print(wrapped(f"{'Crop' if audit.cut else 'Image'} sizes (H x W): {', '.join(sizes[:6])}{more}", "", "  "))
    print()
    print_table(
        [
            {
                "split": one.split,
                "class": one.class_,
                **({} if audit.cut and not audit.crop else {"images": one.images}),
                sample: one.samples,
                "positive": one.positive,
                "negative": one.negative,
            }
            for one in audit.counts
        ]
    )
    if audit.sizes:
        print("\nObject sizes in px: 10 % of the objects are smaller than the first number,")
        print("half than the second, 90 % than the third")
        print_table(
            [
                {
                    "class": one.class_,
                    "objects": one.objects,
                    "width (10/50/90 %)": _text(one.width),
                    "diameter (10/50/90 %)": _text(one.diameter),
                }
                for one in audit.sizes
            ]
        )
    print()
    for finding in audit.findings:
        print(wrapped(str(finding), "", "  "))
    if audit.proposal:
        one = audit.proposal
        classes = dict.fromkeys(count.class_ for count in audit.counts)
        shares = ", ".join(f"{share:.0%} ({name})" for name, share in zip(classes, one.negatives, strict=True))
        if one.cut_again:
            print(f"\nProposal: micraframe crops IMAGES --size {one.crop} --scale {one.scale:g} ...")
        else:
            print(f"\nProposal:\n  scale: {one.scale:g}\n  crop: {one.crop}")
        print(wrapped(f"Expected negative crops: {shares}. Basis: {one.basis}.", "", "  "))
        print("Rule: docs/audit.md")


def _text(quantiles: tuple[float, ...]) -> str:
    return " / ".join(f"{value:.0f}" for value in quantiles)
