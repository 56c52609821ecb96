"""How long do the class activation maps of every layer take?

Eight layers of 32 to 256 filters, three classes of ten, eight images of 256 x 256: ours against captum layer by layer,
pytorch-grad-cam and torchcam with all layers as targets, and against what no route can do without: one forward and
three backward passes. Contenders take turns, so that a busy machine is busy for all; medians, and ratios to ours.

    python benchmarks/speed/maps.py [--repeats 5] [--images 8] [--size 256] [--threads 1] [--device cpu]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from captum.attr import LayerGradCam

from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.extractors.frozen import frozen_copy

CLASSES = (1, 4, 8)


def main() -> None:
    """Time all contenders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    torch.manual_seed(0)
    classifier = Classifier(*registry.build("backbone", "unet-encoder").create(1), classes=10).eval()
    classifier.to(arguments.device)
    images = np.random.default_rng(0).random((arguments.images, 1, arguments.size, arguments.size), np.float32)
    routes = contenders(classifier, images)
    for run in routes.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(arguments.repeats):
        for name, run in routes.items():
            start = time.perf_counter()
            run()
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians["micraframe"]
    print(f"{'':34}{'seconds':>9}{'/ ours':>8}")
    for name, median in medians.items():
        print(f"{name:34}{median:9.3f}{median / ours:8.2f}")


def contenders(classifier: Classifier, images: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return a function without arguments for each route; each makes the maps of all layers, classes and images."""
    device = next(classifier.parameters()).device
    tensor = torch.from_numpy(images).to(device)
    chosen = [CLASSES] * len(images)
    blocks = list(classifier.backbone.blocks.values())

    def explain(**params: object) -> Callable[[], object]:
        function = registry.build("extractor", "grad-cam", **params).prepare(classifier)
        return lambda: function(images, lambda scores: chosen)

    def bare(network: Classifier) -> Callable[[], object]:
        def run() -> None:
            activations = network.features(tensor.clone().requires_grad_())
            logits = network.logits(activations[-1])
            for index in CLASSES:
                torch.autograd.grad(logits[:, index].sum(), activations, retain_graph=index != CLASSES[-1])

        return run

    def captum() -> None:
        for block in blocks:
            algorithm = LayerGradCam(classifier, block)
            for index in CLASSES:
                algorithm.attribute(tensor.clone().requires_grad_(), target=index)

    routes: dict[str, Callable[[], object]] = {
        "micraframe": explain(),
        "micraframe, bfloat16": explain(precision="bfloat16"),
        "bare passes": bare(classifier),
        "bare passes, folded, channels last": bare(frozen_copy(classifier, fold=True)),
        "captum, layer by layer": captum,
    }
    # Peers leave hooks, so that each has a copy of its own.
    if find_spec("pytorch_grad_cam"):
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        twin = copy.deepcopy(classifier)
        grad_cam = GradCAM(twin, list(twin.backbone.blocks.values()))
        routes["pytorch-grad-cam, all layers"] = lambda: [
            grad_cam(tensor, [ClassifierOutputTarget(index)] * len(images)) for index in CLASSES
        ]
    if find_spec("torchcam"):
        from torchcam.methods import GradCAM as TorchCam

        other = copy.deepcopy(classifier)
        torch_cam = TorchCam(other, list(other.backbone.blocks.values()), input_shape=images.shape[1:])

        def torchcam() -> None:
            scores = other(tensor)
            for index in CLASSES:
                torch_cam(index, scores, retain_graph=index != CLASSES[-1])

        routes["torchcam, all layers"] = torchcam
    return routes


if __name__ == "__main__":
    main()
