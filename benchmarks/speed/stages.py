"""Where does the time from an image to its masks go, and how much of it could be saved?

python -m benchmarks.speed.stages

One image of 256 x 256, three classes, MICRA-Net's own network (32 to 256 filters), on the CPU with one thread. The
table shows milliseconds of the processor, which other processes hardly affect: where time goes, not how long one waits.
Below each pass is its minimum: its convolutions alone, of the same shapes, in a loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.speed import reference
from benchmarks.speed.subject import CLASSES, WIDTHS, classifier, digits, pipeline
from benchmarks.speed.timing import Route
from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.extractors.cams import GradCam
from micraframe.extractors.frozen import frozen_copy
from micraframe.micranet import MicraNetModel

REPEATS = 7


def routes(widths: Sequence[int] = WIDTHS, size: int = 256) -> dict[str, tuple[Route, int]]:
    """Return the stages in order, by name: a function that runs each, and how often an image needs it."""
    network = classifier(widths)
    image = digits(1, size)
    twin = frozen_copy(network, fold=True)
    batch = torch.from_numpy(image)
    activations, logits = forward(twin, batch)
    predictor = pipeline(network)
    assert isinstance(predictor.model, MicraNetModel)
    [maps] = predictor.model.explain(image, CLASSES)
    scores = predictor.model.combine(maps, image[0])
    combiner = registry.build("combiner", "pca")

    def backward(index: int = CLASSES[0]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(logits[0, index], activations, retain_graph=True)

    gradients = backward()
    pairs = list(zip([activation.detach() for activation in activations], gradients, strict=True))
    convolutions = [module for module in twin.modules() if isinstance(module, torch.nn.Conv2d)]
    inputs = [batch.contiguous(memory_format=torch.channels_last)]
    for index, activation in enumerate(activations[:-1]):
        deeper = activations[index + 1].shape[2] < activation.shape[2]
        inputs.append((functional.max_pool2d(activation, 2) if deeper else activation).detach())
    both = list(zip(inputs, convolutions, gradients, strict=True))

    @torch.no_grad()
    def only_forward() -> None:
        for source, module, _ in both:
            functional.conv2d(source, module.weight, module.bias, padding=1)

    @torch.no_grad()
    def only_backward() -> None:
        for source, module, gradient in both[1:]:  # the image needs no gradient
            torch.ops.aten.convolution_backward(
                gradient, source, module.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
            )

    times = len(CLASSES)
    return {
        "forward pass": (lambda: forward(twin, batch), 1),
        "its convolutions alone": (only_forward, 1),
        "backward passes, three classes": (backward, times),
        "their convolutions alone": (only_backward, times),
        "from gradients to maps, three classes": (lambda: [GradCam.layer_map(*pair) for pair in pairs], times),
        "combining, three classes": (lambda: combiner.combine(maps, image[0]), 1),
        "Otsu and the rest, three classes": (lambda: predictor.decide(scores, image[0]), 1),
        "all": (lambda: list(predictor.predict(image)), 1),
        "the plain reference": (lambda: reference.masks(network, image, CLASSES), 1),
    }


def forward(network: Classifier, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the activations of all layers and the logits, with the graph that their gradients need."""
    activations = network.features(images.contiguous(memory_format=torch.channels_last).requires_grad_())
    return activations, network.logits(activations[-1].float())


def measured(found: Mapping[str, tuple[Route, int]], repeats: int = REPEATS) -> dict[str, float]:
    """Return for each stage the median of the processor's milliseconds per image; stages take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for repeat in range(repeats + 1):
        for name, (route, times) in found.items():
            took = processor_seconds(route)
            if repeat:  # the first one is a warm-up
                seconds[name].append(took * times * 1000)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def processor_seconds(route: Callable[[], object]) -> float:
    """Return the processor's seconds, including those of the system on its behalf."""
    start = time.process_time()
    route()
    return time.process_time() - start


def main() -> None:
    """Print the table, as Markdown."""
    torch.set_num_threads(1)
    found = measured(routes())
    whole = found["all"]
    print("| | ms of an image | share |\n|---|---:|---:|")
    for name, value in found.items():
        print(f"| {name} | {value:.0f} | {value / whole:.0%} |")


if __name__ == "__main__":
    main()
