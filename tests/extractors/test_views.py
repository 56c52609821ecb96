"""Maps and presence, averaged over flips and quarter turns of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from micraframe import registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.errors import ModelError
from micraframe.extractors.views import View, choose_views, explain_views
from micraframe.pooling import LogSumExp
from micraframe.types import FloatArray, Layer

ALL = choose_views(flips=True, quarter_turns=True)
LAYERS = (Layer("shallow", 2, 1), Layer("middle", 3, 2), Layer("deepest", 3, 6))
SIZES = [(24, 24), (12, 18), (13, 17), (7, 6), (1, 5)]


class Symmetric(nn.Module):
    """Looks at every pixel and its mean over blocks of 1, 2 and 6: equivariant, with floor pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.Conv2d(*widths, 1) for widths in ((1, 2), (2, 3), (3, 3)))

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.mix[0](images)
        second = self.mix[1](functional.avg_pool2d(first, 2))
        return [first, second, self.mix[2](functional.avg_pool2d(second, 3).tanh())]


def symmetric() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Symmetric(), LAYERS, 1, 3, LogSumExp(), dropout=0).eval()


def ordinary(pooling: Any = "max") -> Classifier:
    torch.manual_seed(0)
    return create_classifier(registry.build("backbone", "unet-encoder", widths=(3, 4)), 1, 3, pooling).eval()


def noise(count: int, size: tuple[int, int]) -> FloatArray:
    return np.random.default_rng(0).random((count, 1, *size), np.float32)


def prepare(classifier: Classifier, extractor: str = "grad-cam", **params: Any):
    return registry.build("extractor", "views", extractor=extractor, **params).prepare(classifier)


def test_the_views_are_the_eight_symmetries_of_a_square() -> None:
    image = np.arange(9).reshape(1, 3, 3)
    for flips, turns, count in ((True, True, 8), (True, False, 4), (False, True, 4), (False, False, 1)):
        views = choose_views(flips, turns)
        assert views[0] == View()
        assert len({view.apply(image).tobytes() for view in views}) == len(views) == count


@given(st.sampled_from(ALL), st.integers(1, 5), st.integers(1, 5))
def test_a_view_is_undone(view: View, height: int, width: int) -> None:
    values = np.arange(2 * height * width).reshape(2, height, width)
    np.testing.assert_array_equal(view.undo(view.apply(values)), values)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("extractor", ["evidence", "grad-cam"])
def test_an_equivariant_network_gives_the_same_maps_for_one_view_and_all(extractor: str, size: tuple[int, int]) -> None:
    classifier = symmetric()
    explain = registry.build("extractor", extractor).prepare(classifier)

    def see(views: list[View]):
        return explain_views(explain, noise(2, size), lambda presence: (2, 0), views, LAYERS, extractor == "evidence")

    for one, every in zip(see(ALL[:1]), see(ALL), strict=True):
        assert (one.size, one.classes, one.layers) == (every.size, every.classes, every.layers)
        np.testing.assert_allclose(one.presence, every.presence, atol=1e-6)
        for layer, alone, mean in zip(one.layers, one.maps, every.maps, strict=True):
            assert mean.shape == (2, *(-(-side // layer.stride) for side in size))
            np.testing.assert_allclose(alone, mean, atol=1e-6)
            assert np.ptp(alone) > 0 or layer.stride > min(size)


def test_where_strides_divide_the_size_one_view_is_the_extractor_itself() -> None:
    classifier, images = ordinary(), noise(2, (12, 8))
    explain = registry.build("extractor", "grad-cam").prepare(classifier)
    one = explain_views(explain, images, lambda presence: (1,), ALL[:1], classifier.layers)
    for expected, maps in zip(explain(images, lambda presence: (1,)), one, strict=True):
        np.testing.assert_array_equal(expected.presence, maps.presence)
        for layer in range(len(maps.layers)):
            np.testing.assert_allclose(expected.maps[layer], maps.maps[layer], atol=1e-6)


@pytest.mark.parametrize(("extractor", "pooling"), [("grad-cam", "max"), ("evidence", LogSumExp())])
@pytest.mark.parametrize("size", [(12, 8), (33, 47)])
def test_it_is_the_mean_of_what_the_extractor_says_of_each_view(
    extractor: str, pooling: Any, size: tuple[int, int]
) -> None:
    classifier, images = ordinary(pooling), noise(1, size)
    explain = registry.build("extractor", extractor).prepare(classifier)
    [maps] = prepare(classifier, extractor, quarter_turns=True)(images, lambda presence: (2, 1))
    edge = [(0, 0), (0, 0), *((0, -side % 2) for side in size)]
    seen = [explain(view.apply(np.pad(images, edge, "symmetric")), lambda presence: (2, 1))[0] for view in ALL]
    np.testing.assert_allclose(maps.presence, np.mean([each.presence for each in seen], 0), atol=1e-6)
    for place, layer in enumerate(maps.layers):
        mean = np.mean([view.undo(each.maps[place]) for view, each in zip(ALL, seen, strict=True)], 0)
        rows, columns = (-(-side // layer.stride) for side in size)
        np.testing.assert_allclose(maps.maps[place], mean[:, :rows, :columns], atol=1e-5)


def test_a_flipped_image_has_flipped_maps() -> None:
    explain, images = prepare(ordinary()), noise(1, (12, 10))
    [one], [other] = (explain(batch, lambda presence: (0,)) for batch in (images, images[..., ::-1].copy()))
    np.testing.assert_allclose(one.maps[-1], other.maps[-1][..., ::-1], atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from([("grad-cam", "max"), ("evidence", LogSumExp())]),
    st.tuples(st.integers(4, 20), st.integers(4, 20)),
    st.lists(st.sets(st.integers(0, 2)), min_size=1, max_size=4),
    st.booleans(),
)
def test_the_mean_presence_chooses_classes_and_a_batch_is_batches_of_one(
    names: tuple[str, Any], size: tuple[int, int], chosen: list[set[int]], turns: bool
) -> None:
    explain, images = prepare(ordinary(names[1]), names[0], quarter_turns=turns), noise(len(chosen), size)
    means = np.stack([maps.presence for maps in explain(images, lambda presence: ())])

    def rule(presence: FloatArray) -> tuple[int, ...]:
        place = int(np.abs(means - presence).max(1).argmin())
        assert np.allclose(means[place], presence, atol=1e-6), "classes are chosen by nothing but mean presence"
        return tuple(chosen[place])

    together = explain(images, rule)
    assert [set(maps.classes) for maps in together] == chosen
    for image, maps in zip(images, together, strict=True):
        [alone] = explain(image[None], rule)
        np.testing.assert_allclose(alone.presence, maps.presence, atol=1e-6)
        for one, other in zip(alone.maps, maps.maps, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_without_any_it_is_the_other_extractor() -> None:
    classifier, images = ordinary(), noise(1, (9, 11))
    [expected] = registry.build("extractor", "grad-cam").prepare(classifier)(images, lambda presence: (0,))
    [maps] = prepare(classifier, flips=False)(images, lambda presence: (0,))
    assert all(map(np.array_equal, maps.maps, expected.maps))


def test_what_the_extractor_cannot_explain_views_cannot() -> None:
    with pytest.raises(ModelError, match="extractor evidence"):
        registry.build("extractor", "views").prepare(ordinary())
