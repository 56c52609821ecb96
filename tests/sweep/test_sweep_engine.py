from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.errors import ModelError
from micraframe.extractors.frozen import fast_copy
from micraframe.pooling import LogSumExp
from micraframe.sweep.engine import (
    SweepEngine,
    check_dense,
    dense_tile,
    dense_windows,
    exact_tile,
    exact_windows,
    reach,
)
from micraframe.sweep.image import open_image
from micraframe.sweep.windows import lay_windows
from micraframe.testing import small_classifier
from micraframe.types import Layer, Normalisation


def unet(pooling="max", widths=(4, 6, 8, 8), channels=1):
    torch.manual_seed(0)
    network, layers = registry.build("backbone", "unet-encoder", widths=widths).create(channels)
    return lively(Classifier(network, layers, channels, 3, pooling).eval())


@pytest.mark.parametrize(("backbone", "pooling"), [("unet-encoder", LogSumExp()), ("unet", "max")])
def test_a_dense_sweep_is_of_pooled_features_of_the_deepest_layer(backbone, pooling):
    network, layers = registry.build("backbone", backbone, widths=(2, 3)).create(1)
    with pytest.raises(ModelError, match="pools evidence or has a decoder; sweep with mode exact"):
        check_dense(Classifier(network, layers, 1, 1, pooling))
    check_dense(unet())


def lively(classifier):
    """Give norms non-trivial statistics, and the linear layer weights that distinguish windows."""
    generator = torch.Generator().manual_seed(1)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    nn.init.normal_(classifier.linear.weight, generator=generator)
    return classifier


def engine(classifier, image, window, overlap=0.75, tile=32):
    stride = classifier.layers[-1].stride
    rows, columns = lay_windows(image.shape[1:], stride, window, overlap, tile)
    with open_image(image) as opened:
        return SweepEngine(*fast_copy(classifier, "float32"), opened, Normalisation(), rows, columns)


def dense(machine):
    halo = reach(machine.classifier)
    return dense_windows(machine, lambda row, column: dense_tile(machine, halo, row, column))


def exact(machine):
    return exact_windows(machine, lambda row, column: exact_tile(machine, row, column))


def padded(image, stride):
    after = [(0, -side % stride) for side in image.shape[1:]]
    return torch.from_numpy(np.pad(image, ((0, 0), *after), mode="edge"))[None]


def whole_image(classifier, image, machine):
    """Return the definition of a dense sweep: features of the whole image, pooled window by window."""
    with torch.no_grad():
        deepest = classifier.features(padded(image, machine.rows.stride))[-1]
        return np.array(
            [
                [
                    torch.sigmoid(classifier.logits(deepest[:, :, top:bottom, left:right]))[0].numpy()
                    for left, right in machine.columns.windows
                ]
                for top, bottom in machine.rows.windows
            ]
        )


UNET, UNET_MEAN, SMALL = unet(), unet("mean"), lively(small_classifier())


@settings(max_examples=40, deadline=None)
@given(
    classifier=st.sampled_from([UNET, UNET_MEAN, SMALL]),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    window=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    overlap=st.sampled_from([0, 0.3, 0.5, 0.75]),
    tile=st.integers(8, 100),
)
def test_tiles_leave_no_seams(classifier, size, window, overlap, tile):
    image = np.random.default_rng(0).normal(size=(1, *size)).astype(np.float32)
    machine = engine(classifier, image, window, overlap, tile)
    np.testing.assert_allclose(dense(machine), whole_image(classifier, image, machine), atol=1e-5)


@pytest.mark.parametrize("model", ["resnet18", "tf_mobilenetv3_small_minimal_100"])
def test_tiles_of_other_backbones_leave_no_seams(model):
    torch.manual_seed(0)
    network, layers = registry.build("backbone", "timm", model=model, out_indices=(0, 1, 2)).create(2)
    classifier = lively(Classifier(network, layers, 2, 2).eval())
    image = np.random.default_rng(0).normal(size=(2, 205, 170)).astype(np.float32)
    machine = engine(classifier, image, (64, 48), 0.6, 56)
    np.testing.assert_allclose(dense(machine), whole_image(classifier, image, machine), atol=1e-5)


@pytest.mark.parametrize("tile", [16, 40, 200])
@pytest.mark.parametrize("size", [(64, 64), (71, 118), (20, 90), (5, 3)])
def test_exact_is_the_classifier_on_each_crop(size, tile):
    image = np.random.default_rng(0).normal(size=(1, *size)).astype(np.float32)
    machine = engine(UNET, image, (32, 32), tile=tile)
    whole = padded(image, 8)
    with torch.no_grad():
        expected = [
            [
                torch.sigmoid(UNET(whole[:, :, 8 * top : 8 * bottom, 8 * left : 8 * right]))[0].numpy()
                for left, right in machine.columns.windows
            ]
            for top, bottom in machine.rows.windows
        ]
    np.testing.assert_allclose(exact(machine), np.array(expected), atol=1e-5)


def test_dense_equals_exact_where_one_window_covers_the_image():
    image = np.random.default_rng(0).normal(size=(1, 60, 47)).astype(np.float32)
    machine = engine(UNET, image, (64, 64))
    np.testing.assert_allclose(dense(machine), exact(machine), atol=1e-5)


@pytest.mark.parametrize(("widths", "pixels"), [((2,), 2), ((2, 2), 6), ((2, 2, 2), 14), ((2, 2, 2, 2), 30)])
def test_reach_equals_theory(widths, pixels):
    """Two 3x3 convolutions at stride s add 2 s to the reach; pooling within a cell adds nothing."""
    stride = 2 ** (len(widths) - 1)
    assert reach(unet(widths=widths)) == -(-pixels // stride)


def test_reach_is_not_misled_by_dead_units():
    classifier = unet(widths=(2, 2))
    for parameter in classifier.backbone.parameters():
        parameter.data.zero_()
    assert reach(classifier) == 3


class InnerFirst(nn.Module):
    """Registers a convolution of two channels before that of the image's single one."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(2, 2, 3, padding=1)
        self.outer = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, images):
        return [self.inner(self.outer(images))]


def test_channels_are_not_guessed_from_the_first_convolution():
    assert reach(Classifier(InnerFirst(), (Layer("inner", 2, 1),), 1, 1).eval()) == 2


class Global(nn.Module):
    """Multiplies every pixel by the mean of the image, as squeeze-and-excitation does."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, images):
        return [self.conv(images * images.mean((2, 3), keepdim=True))]


def test_a_network_of_unlimited_reach_cannot_be_tiled():
    with pytest.raises(ModelError, match="depends on the whole image.* mode exact"):
        reach(Classifier(Global(), (Layer("conv", 2, 1),), 1, 1).eval())


class Wide(nn.Module):
    """Depends on pixels up to a distance; with a gap, on every so many of them."""

    def __init__(self, distance, gap=1):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (1, 2 * distance // gap + 1), padding=(0, distance), dilation=(1, gap))

    def forward(self, images):
        return [self.conv(images)]


@pytest.mark.parametrize(("distance", "gap"), [(1, 1), (7, 1), (8, 1), (8, 8), (12, 12), (40, 1), (255, 1)])
def test_reach_is_that_of_the_furthest_pixel(distance, gap):
    assert reach(Classifier(Wide(distance, gap), (Layer("conv", 2, 1),), 1, 1).eval()) == distance


def test_a_reach_beyond_the_limit_has_its_own_message():
    with pytest.raises(ModelError, match="more than 256 pixels away"):
        reach(Classifier(Wide(256), (Layer("conv", 2, 1),), 1, 1).eval())


def test_an_unlimited_reach_is_recognised_at_the_first_strip():
    network, sizes = Global(), []
    network.conv.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(inputs[0].shape[2:])))
    with pytest.raises(ModelError):
        reach(Classifier(network, (Layer("conv", 2, 1),), 1, 1).eval())
    assert sizes == [(24, 4), (4, 24), (4, 512)]


def test_bfloat16_is_near_float32():
    image = np.random.default_rng(0).normal(size=(1, 64, 64)).astype(np.float32)
    machine = engine(UNET, image, (32, 32))
    classifier, precision = fast_copy(UNET, "bfloat16")
    rough = SweepEngine(classifier, precision, machine.image, machine.normalisation, machine.rows, machine.columns)
    for sweep in (dense, exact):
        assert 0 < np.abs(sweep(rough) - sweep(machine)).max() < 0.05
