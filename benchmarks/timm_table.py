"""Writes `docs/timm.md`: the timm models that serve as backbones, with their layers, and the errors for others.

    .venv/bin/python benchmarks/timm_table.py

The tests check every row of it.
"""

from __future__ import annotations

from pathlib import Path

from micraframe import build
from micraframe.classifier import Classifier, create_classifier
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

`backbone: {name: timm, params: {model: NAME}}` accepts any model that passes a dry run when it is created: its features
have shape (B, channels, h, w) for images of any size, each cell covers its pixels of the image, and gradients reach
every layer. The table lists one small model of each family that was tried. `benchmarks/timm_table.py` writes this page,
and the tests check every row.

| model | layers | strides |
|---|---|---|
"""
MIDDLE = """
Other models raise an error that says why they cannot serve:

| model | error |
|---|---|
"""


def served(model: str) -> str:
    """Return the row of a model that serves."""
    layers = _classifier(model).layers
    names, strides = ", ".join(layer.name for layer in layers), ", ".join(str(layer.stride) for layer in layers)
    return f"| {model} | {names} | {strides} |"


def refused(model: str) -> str:
    """Return the row of a model that is refused."""
    try:
        _classifier(model)
    except ModelError as error:
        return f"| {model} | {' '.join(str(error).split()).replace('|', '/')} |"
    raise SystemExit(f"{model} serves now: move it to the first table")


def _classifier(model: str) -> Classifier:
    return create_classifier(build("backbone", "timm", model=model), 1, 1)


if __name__ == "__main__":
    rows = "\n".join(map(served, SERVE)) + "\n" + MIDDLE + "\n".join(map(refused, REFUSED)) + "\n"
    PAGE.write_text(HEAD + rows, encoding="utf-8")
