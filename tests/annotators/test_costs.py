from __future__ import annotations

import itertools
from typing import get_args

import pytest
from pydantic import ValidationError

from micraframe.annotators.costs import PRESETS, Preset, Pricing, Task


def test_every_preset_prices_every_task_within_its_range() -> None:
    assert set(PRESETS) == set(get_args(Preset))
    for preset, task in itertools.product(get_args(Preset), get_args(Task)):
        price = Pricing(preset=preset).price(task)
        for seconds in (price.image, price.object):
            assert 0 <= seconds.low <= seconds.value <= seconds.high
        assert price.image.value + price.object.value > 0


def test_the_papers_numbers() -> None:
    micranet = Pricing()
    assert micranet.cost("image_level", 1, 0).seconds == 2
    point, box, outline = (micranet.price(task).object.value for task in ("point", "box", "outline"))
    assert (box / point, outline / point, outline) == (2, 4, 14)
    coco = Pricing(preset="coco2014").price("outline").object
    assert (coco.low, coco.high) == (54, 79)
    bearman = Pricing(preset="bearman2016")
    assert [bearman.cost(task, 1, 5).seconds for task in ("image_level", "point", "outline")] == [20, 22.1, 239.7]
    papadopoulos = Pricing(preset="papadopoulos2017").price("box").object
    assert (papadopoulos.value, papadopoulos.high) == (7, 35)
    microsam = Pricing(preset="microsam2024").price("outline").object
    assert (microsam.low, microsam.value) == (0.72, 3.27)


def test_seconds_are_per_image_and_per_object() -> None:
    pricing = Pricing(image=3, image_low=1, image_high=4, object=10, object_high=20)
    cost = pricing.cost("outline", decisions=77, objects=5)
    assert (cost.decisions, cost.seconds, cost.seconds_low, cost.seconds_high) == (77, 53, 51, 104)


def test_a_number_replaced_alone_has_no_range() -> None:
    price = Pricing(object=5).price("outline")
    assert (price.object.low, price.object.value, price.object.high) == (5, 5, 5)
    assert price.image == PRESETS["micranet2022"].outline.image


def test_numbers_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="object: .* not in the order"):
        Pricing(object=5, object_low=6)
    with pytest.raises(ValidationError, match="image: .* not in the order"):
        Pricing(image_low=6, image_high=5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"object_high": 1}, "object: 1.75, 3.5 and 1 s for point are not in the order low, value, high"),
        ({"image_low": 5}, "the value is that of micranet2022: give image as well"),
        ({"object_low": 1000}, "give object as well"),
        ({"preset": "coco2014", "object_low": 60}, "the value is that of coco2014: give object as well"),
        ({"preset": "bearman2016", "object_low": 1}, "object: 1, 0 and 0 s for point"),
    ],
)
def test_a_range_that_the_presets_value_is_not_in_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Pricing.model_validate(given)


def test_a_range_about_the_presets_value() -> None:
    price = Pricing(image_low=1.5, object_high=100).price("outline")
    assert (price.image.low, price.image.value, price.image.high) == (1.5, 2, 4)
    assert (price.object.low, price.object.value, price.object.high) == (7, 14, 100)
