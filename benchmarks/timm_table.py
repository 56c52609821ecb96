"""Writes `docs/timm.md`: which timm models serve as backbones, with which layers, and what others are told.

    .venv/bin/python benchmarks/timm_table.py

The tests make every row of it again.
"""

from __future__ import annotations

from pathlib import Path

from micraframe import build
from micraframe.errors import ModelError

PAGE = Path(__file__).parents[1] / "docs" / "timm.md"
SERVE = [
    "resnet10t",
    "skresnet18",
    "resnest14d",
    "convnext_atto",
    "inception_next_atto",
    "starnet_s1",
    "edgenext_xx_small",
    "efficientnet_lite0",
    "fbnetc_100",
    "mnasnet_small",
    "tinynet_e",
    "mobilenetv3_small_050",
    "lcnet_035",
    "ghostnet_050",
    "regnetx_002",
    "nf_regnet_b0",
    "repvgg_a0",
    "rexnet_100",
    "ese_vovnet19b_slim",
    "cspresnet50",
    "darknet17",
    "xception41",
    "densenet121",
    "vgg11",
]
REFUSED = [
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "xcit_nano_12_p16_224",
    "mambaout_femto",
    "hrnet_w18_small",
    "inception_v3",
]
HEAD = """# timm models as backbones

`backbone: {name: timm, params: {model: NAME}}` takes any model that passes a dry run when it is made: its features are
(B, channels, h, w) for images of any size, lie on the image cell by cell, and a gradient reaches each of them. These
are one small model of each family that was tried. The page is written by `benchmarks/timm_table.py`, and the tests make
every row again.

| model | layers | strides |
|---|---|---|
"""
MIDDLE = """
Others are told why they cannot serve:

| model | message |
|---|---|
"""


def served(model: str) -> str:
    """Return the row of a model that serves."""
    _, layers = build("backbone", "timm", model=model).create(1)
    names, strides = (", ".join(str(part) for part in parts) for parts in zip(*_parts(layers), strict=True))
    return f"| {model} | {names} | {strides} |"


def refused(model: str) -> str:
    """Return the row of a model that is refused."""
    try:
        build("backbone", "timm", model=model).create(1)
    except ModelError as error:
        return f"| {model} | {' '.join(str(error).split()).replace('|', '/')} |"
    raise SystemExit(f"{model} serves now: move it to the first table")


def _parts(layers: tuple[object, ...]) -> list[tuple[str, int]]:
    return [(layer.name, layer.stride) for layer in layers]


if __name__ == "__main__":
    rows = "\n".join(map(served, SERVE)) + "\n" + MIDDLE + "\n".join(map(refused, REFUSED)) + "\n"
    PAGE.write_text(HEAD + rows, encoding="utf-8")
