"""What the kit checks of a backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from micraframe.classifier import Classifier, create_classifier
from micraframe.interfaces import Backbone
from micraframe.parameters import Parameters
from micraframe.testing.observed import Call, ObservedTrial, content, observe
from micraframe.testing.report import Check, basis, raised, require, require_type
from micraframe.types import Layer

_SIZES = ((1, 64, 64), (3, 97, 131))
"""(C, H, W) of the images that backbones are tried on."""


class BackboneTrial(ObservedTrial):
    """Runs the network of a backbone in evaluation mode, as part of a classifier."""

    component: Backbone[Parameters]
    kind: ClassVar[str] = "backbone"

    @cached_property
    def classifiers(self) -> list[Classifier]:
        """A classifier of two classes for each number of channels, which passed the framework's dry run."""
        return [_seeded(create_classifier, self.component, channels, 2).eval() for channels, _, _ in _SIZES]

    @cached_property
    def calls(self) -> list[Call]:
        """Calls of the network, for each size: of two images, and of each alone."""
        generator = torch.Generator().manual_seed(0)
        batches = [torch.rand((2, *size), generator=generator) for size in _SIZES]
        try:
            networks = {classifier.channels: classifier for classifier in self.classifiers}
        except Exception:  # which `creates_network` reports
            return []
        return [
            observe(networks[batch.shape[1]].features, images)
            for batch in batches
            for images in (batch, batch[:1], batch[1:])
        ]

    @property
    def repeated(self) -> list[Call]:
        """One call for each size."""
        return self.calls[::3]

    @basis
    def creates_network(self) -> None:
        """`create` returns a module and its `Layer`s: from images of any size, it computes what these announce."""
        for channels, _, _ in _SIZES:
            created = _seeded(self.component.create, channels)
            remedy = "return the network and a tuple of Layer(name, channels, stride)"
            require_type(created, tuple, "what create returns", remedy)
            require(len(created) == 2, f"expected create to return 2 values, got {len(created)}; {remedy}")
            network, layers = created
            require_type(network, nn.Module, "the network that create returns", remedy)
            require(
                isinstance(layers, tuple) and all(isinstance(layer, Layer) for layer in layers),
                f"expected create to return a tuple of Layers, got {layers!r}; {remedy}",
            )
            try:
                with torch.no_grad():
                    activations = network.eval()(torch.zeros((1, channels, 97, 75)))
            except Exception as error:
                raise AssertionError(raised("the network", error)) from error
            require(
                isinstance(activations, list | tuple) and all(isinstance(one, Tensor) for one in activations),
                f"expected the network to return a list of activations, got a {type(activations).__name__}; return "
                "[shallow, ..., deep]",
            )
        require(self.classifiers, "expected a network that passes the framework's dry run")
        for call in self.calls:
            call.returned()

    @basis
    def inputs_unchanged(self) -> None:
        """In evaluation mode, the network changes neither images nor its own weights and statistics."""
        ObservedTrial.inputs_unchanged.function(self)
        for classifier in self.classifiers if self.calls else []:
            images = torch.rand((1, classifier.channels, 64, 64), generator=torch.Generator().manual_seed(1))
            call = observe(lambda network, batch: network.features(batch), classifier, images)
            require(
                not call.wrote,
                "expected evaluation to leave the network, got other weights or statistics; change them in training",
            )

    @Check
    def same_network_untrained(self) -> None:
        """`untrained` returns the backbone of the same network, for the weights of a saved model."""
        for classifier in self.classifiers:
            twin, _ = _seeded(self.component.untrained().create, classifier.channels)
            one, other = (
                {name: each.shape for name, each in network.state_dict().items()}
                for network in (classifier.backbone, twin)
            )
            differ = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
            require(not differ, f"expected the same network untrained, got other weights {differ[:1]}; change none")

    @Check
    def seeded_weights(self) -> None:
        """The same seed of torch gives the same weights."""
        for classifier in self.classifiers:
            again, _ = _seeded(self.component.create, classifier.channels)
            require(
                content(again.state_dict()) == content(classifier.backbone.state_dict()),
                "expected the same weights from the same seed, got others; draw them from torch's global generator",
            )

    @Check
    def batch_of_two(self) -> None:
        """A batch of two is two batches of one."""
        for place in range(0, len(self.calls), 3):
            both, *singles = (call.result for call in self.calls[place : place + 3])
            for layer, activations in enumerate(zip(both, *singles, strict=True)):
                require(
                    torch.allclose(activations[0], torch.cat(activations[1:]), atol=1e-4),
                    f"expected the same activations of an image alone and in a batch, got others of layer {layer}; "
                    "normalise each image by itself",
                )

    @Check
    def finite_gradients(self) -> None:
        """The gradient of the last layer is finite at every layer."""
        for call in self.calls[::3]:
            gradients = torch.autograd.grad(call.result[-1].sum(), call.result, retain_graph=True)
            for number, gradient in enumerate(gradients):
                require(
                    torch.isfinite(gradient).all(),
                    f"expected a finite gradient at layer {number}, got NaN or infinity; keep away from 0 / 0 and the "
                    "root of 0",
                )

    @Check
    def layers_kept(self) -> None:
        """No layer is overwritten by a later one, by an in-place activation or sum."""
        for classifier in self.classifiers:
            images = torch.rand((1, classifier.channels, 64, 64), generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                memory = [each.untyped_storage().data_ptr() for each in classifier.features(images)]
            for number, layer in enumerate(classifier.layers):
                require(
                    memory[number] not in memory[number + 1 :],
                    f"expected layer {layer.name!r} to keep its activations, got a later layer in the same memory; "
                    "compute it out of place: relu(x), x + y",
                )


def _seeded(function: Callable[..., Any], *args: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return function(*args)
