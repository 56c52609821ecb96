"""Prices of annotation work."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from micraframe.pricing import PRESETS, SOURCES, Cost, Preset, Prices, crossed, is_weak, price, unit_price
from micraframe.types import Task, Work

TASKS = get_args(Task)


def test_every_preset_prices_every_task_within_its_range_and_has_a_source() -> None:
    assert set(PRESETS) == set(SOURCES) == set(get_args(Preset))
    for preset, task in itertools.product(get_args(Preset), TASKS):
        unit = unit_price(task, Prices(preset=preset))
        for cost in (unit.image, unit.object, unit.judgement):
            assert 0 <= cost.low <= cost.seconds <= cost.high
        assert price(Work(task, objects=1, judgements=1), Prices(preset=preset)).seconds > 0


def test_the_papers_numbers() -> None:
    assert price(Work("image-level"), Prices()).seconds == 2
    point, box, outline = (unit_price(task, Prices()).object.seconds for task in ("point", "box", "outline"))
    assert (box / point, outline / point, outline) == (2, 4, 14)
    coco = unit_price("outline", Prices(preset="coco2014")).object
    assert (coco.low, coco.high) == (54, 79)
    bearman = Prices(preset="bearman2016")
    assert [price(Work(task, objects=5), bearman).seconds for task in ("image-level", "point", "outline")] == [
        20,
        22.1,
        239.7,
    ]
    papadopoulos = unit_price("box", Prices(preset="papadopoulos2017")).object
    assert (papadopoulos.seconds, papadopoulos.high) == (7, 35)
    microsam = unit_price("outline", Prices(preset="microsam2024")).object
    assert (microsam.low, microsam.seconds) == (0.72, 3.27)


def test_the_papers_timings_of_whole_images() -> None:
    work = Work("outline", images=30, objects=50, further_crops=28)
    seconds = {name: price(work, Prices(preset=f"micranet2022-{name}")).seconds for name in ("ctc", "p-vivax", "em")}
    assert seconds == {"ctc": 2 * 900, "p-vivax": 2 * 120, "em": 2 * 1800 + 50 * 14}
    boxes = Work("box", images=30, objects=50, further_crops=28)
    assert price(boxes, Prices(preset="micranet2022-f-actin")).seconds == 2 * 48
    labels = Work("image-level", images=30, further_crops=28)
    assert price(labels, Prices(preset="micranet2022-ctc")).seconds == 30 * 2
    assert price(labels, Prices(preset="micranet2022-em")).seconds == 2 * 1800
    prices = Prices.model_validate({"tasks": {"outline": {"whole_image": 10, "whole_image_high": 12}}})
    assert price(work, prices) == Cost(60 + 700 + 20, 30 + 350 + 20, 120 + 1400 + 24)


def test_seconds_are_per_image_and_per_object() -> None:
    given = {"image": 3, "image_low": 1, "image_high": 4, "object": 10, "object_high": 20}
    prices = Prices.model_validate({"tasks": {"outline": given}})
    assert price(Work("outline", images=1, objects=5, decisions=77), prices) == Cost(53, 51, 104)
    assert price(Work("outline", images=2, objects=5), prices) == Cost(56, 52, 108)
    assert price(Work("box", objects=1), prices) == price(Work("box", objects=1), Prices())


def test_work_costs_as_much_together_as_image_by_image() -> None:
    works = [Work("point", objects=number) for number in range(4)]
    apart = sum((price(work, Prices()) for work in works), Cost())
    assert price(sum(works[1:], works[0]), Prices()) == apart == Cost(4 * 2 + 6 * 3.5, 4 * 1 + 6 * 1.75, 4 * 4 + 6 * 7)


def test_an_order_of_costs_can_change_where_weak_and_full_annotation_are_priced_apart() -> None:
    labels, outlines = Work("image-level", 1000), Work("outline", 50, 130)
    assert (is_weak([labels]), is_weak([labels, outlines])) == (True, False)
    costs = {"labels": price(labels, Prices()), "outlines": price(outlines, Prices())}
    assert costs == {"labels": Cost(2000, 1000, 4000), "outlines": Cost(1920, 960, 3840)}
    # All at their lowest, expected or highest: outlines are cheaper by 4 %.
    assert all(getattr(costs["outlines"], end) < getattr(costs["labels"], end) for end in ("low", "seconds", "high"))
    dear, cheap = crossed(costs, {"labels"})
    assert dear == {"labels": 4000, "outlines": 960}
    assert cheap == {"labels": 1000, "outlines": 3840}


def test_each_class_judged_can_have_a_price() -> None:
    prices = Prices.model_validate({"tasks": {"image-level": {"image": 1, "judgement": 3, "judgement_high": 9}}})
    assert price(Work("image-level", 2, judgements=20), prices) == Cost(62, 62, 182)
    assert price(Work("image-level", 1, judgements=10), Prices(preset="per-class")) == Cost(20, 10, 40)


def test_a_value_given_without_its_range_has_none() -> None:
    unit = unit_price("outline", Prices.model_validate({"tasks": {"outline": {"object": 5}}}))
    assert unit.object == Cost(5, 5, 5)
    assert unit.image == PRESETS["micranet2022"]["outline"].image


def test_a_range_about_the_presets_value() -> None:
    prices = Prices.model_validate({"tasks": {"outline": {"image_low": 1.5, "object_high": 100}}})
    unit = unit_price("outline", prices)
    assert (unit.image, unit.object) == (Cost(2, 1.5, 4), Cost(14, 7, 100))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": {"point": {"object": 5, "object_low": 6}}}, "point: expected seconds per object in the order"),
        ({"tasks": {"point": {"object_high": 1}}}, "got 1.75, 3.5 and 1; micranet2022 gives the value: give object"),
        ({"tasks": {"box": {"image_low": 5}}}, "got 5, 2 and 4; micranet2022 gives the value: give image too"),
        ({"preset": "bearman2016", "tasks": {"outline": {"object_low": 1}}}, "got 1, 0 and 0"),
        ({"tasks": {"lasso": {}}}, "tasks.lasso"),
        ({"preset": "free"}, "preset"),
    ],
)
def test_wrong_prices_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Prices.model_validate(given)
