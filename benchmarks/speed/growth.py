"""How does the cost of image to mask grow with classes, with the image, and with the batch?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.speed.subject import CLASSES, NARROW, NUMBER, WIDTHS, classifier, digits, pipeline
from benchmarks.speed.timing import Record, Route, Settings, record, take_turns
from micraframe.classifier import Classifier
from micraframe.types import FloatArray


def records(settings: Settings) -> list[Record]:
    """Return how many times as long as the first each takes, and the first one's seconds."""
    network = classifier(NARROW if settings.quick else WIDTHS, settings.device)
    edge = 64 if settings.quick else 256
    images = digits(8, edge)
    return [
        *along("classes", classes(network, images), settings),
        *along("image", sizes(network, images[0], (1, 2) if settings.quick else (1, 2, 4, 8)), settings),
        *along("batch", batches(network, images, (1, 2) if settings.quick else (1, 2, 4, 8, 16, 32)), settings),
    ]


def along(axis: str, routes: Mapping[str, Route], settings: Settings) -> list[Record]:
    """Time the routes of an axis relative to the first one."""
    next(iter(routes.values()))()  # a warm-up of the large ones would take long
    seconds = take_turns(routes, settings, warm_up=False)
    first, *others = seconds
    return [
        record(f"growth, {axis}: {first}", "seconds", seconds[first], "seconds"),
        *(record(f"growth, {axis}: {name}", f"{name} / {first}", seconds[name] / seconds[first]) for name in others),
    ]


def classes(network: Classifier, images: FloatArray) -> dict[str, Route]:
    """Return 1, 3 and all 10 classes."""
    return {
        f"{len(chosen)} {'class' if len(chosen) == 1 else 'classes'}": _route(network, images, chosen)
        for chosen in (CLASSES[:1], CLASSES, tuple(range(NUMBER)))
    }


def sizes(network: Classifier, image: FloatArray, factors: Sequence[int]) -> dict[str, Route]:
    """Return one image, and images of two, four and eight times its edge."""
    routes = {}
    for factor in factors:
        large = np.tile(image, (1, factor, factor))
        routes[f"{large.shape[1]} x {large.shape[2]} px"] = _route(network, large[None], CLASSES)
    return routes


def batches(network: Classifier, images: FloatArray, counts: Sequence[int]) -> dict[str, Route]:
    """Return batches of these numbers of images."""
    return {
        f"{count} {'image' if count == 1 else 'images'}": _route(
            network, np.resize(images, (count, *images.shape[1:])), CLASSES
        )
        for count in counts
    }


def _route(network: Classifier, images: FloatArray, chosen: Sequence[int]) -> Route:
    predictor = pipeline(network, chosen)
    return lambda: list(predictor.predict(images))
