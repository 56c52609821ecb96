"""The single-pass extractors against captum and other libraries, and against their own promises."""

from __future__ import annotations

import gc
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from benchmarks import peer_maps
from micraframe import registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.errors import DataError, ModelError
from micraframe.extractors import single_pass
from micraframe.runtime import memory
from micraframe.types import Layer

NETWORKS = {
    "unet-encoder": ("unet-encoder", {"widths": (4, 8, 16)}),
    "resnet": ("timm", {"model": "resnet10t"}),
    "convnext": ("timm", {"model": "convnext_atto"}),
}
CHOSEN = [(2, 0), (), (1,)]
NAMES = ("grad-cam", "layer-cam", "hires-cam", "grad-cam++")


def make(name: str = "unet-encoder", channels: int = 2, classes: int = 4) -> Classifier:
    """Return a classifier whose batch normalisations do something."""
    kind, params = NETWORKS[name]
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = create_classifier(registry.build("backbone", kind, **params), channels, classes)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    return classifier.eval()


def images(count: int = 3, size: tuple[int, int] = (61, 83), channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).random((count, channels, *size), np.float32)


def choosing(chosen):
    """Return a rule that chooses these classes for one image after the other."""
    remaining = iter(chosen)
    return lambda presence: next(remaining)


def explain(name: str, classifier: Classifier, batch: np.ndarray, chosen, **params):
    return registry.build("extractor", name, **params).prepare(classifier)(batch, choosing(chosen))


def assert_same(ours, theirs, tolerance: float) -> None:
    """Compare maps relative to the largest absolute value of each."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max(initial=0) <= tolerance * max(np.abs(other).max(initial=0), 1e-12)


@pytest.mark.parametrize(
    ("size", "network"), [((61, 83), "unet-encoder"), ((75, 97), "resnet"), ((66, 70), "convnext")]
)
def test_grad_cam_is_captums(network, size):
    classifier, batch = make(network), images(size=size)
    ours, theirs = (explain(name, classifier, batch, CHOSEN) for name in ("grad-cam", "captum"))
    for one, other in zip(ours, theirs, strict=True):
        assert (one.size, one.classes, one.layers) == (size, other.classes, classifier.layers)
        assert_same(one.maps, other.maps, 1e-5)
        np.testing.assert_allclose(one.presence, other.presence, atol=1e-6)


def test_hires_cam_is_captums_gradient_times_activation():
    classifier, batch = make(), images()
    ours = explain("hires-cam", classifier, batch, CHOSEN)
    theirs = explain("captum", classifier, batch, CHOSEN, method="LayerGradientXActivation")
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one.maps, other.maps, 1e-5)


COMPUTED = [(peer, name) for peer, (_, names) in peer_maps.PEERS.items() for name in names]


@pytest.mark.parametrize(("peer", "name"), COMPUTED)
def test_maps_are_the_committed_ones_of_other_libraries(peer, name):
    with safe_open(peer_maps.FILE, "np") as file:
        saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # a file is no dict
        targets = json.loads(file.metadata()["about"])["targets"]
    classifier = peer_maps.tiny()
    weights = {key.removeprefix("weights/"): torch.from_numpy(saved[key]) for key in saved if key.startswith("weights")}
    classifier.load_state_dict(weights)
    ours = explain(name, classifier, saved["images"], [(target,) for target in targets])
    for index, maps in enumerate(ours):
        theirs = [saved[f"maps/{peer}/{name}/{layer.name}"][[index]] for layer in classifier.layers]
        assert all(found.any() for found in theirs)
        assert_same(maps.maps, theirs, 1e-4)


def test_the_committed_maps_say_whose_they_are():
    with safe_open(peer_maps.FILE, "np") as file:
        assert json.loads(file.metadata()["about"])["versions"].keys() == {*peer_maps.PEERS, "torch"}
    assert peer_maps.FILE.stat().st_size < 64 << 10


@pytest.mark.parametrize(("peer", "name"), COMPUTED)
def test_maps_are_those_of_the_libraries_installed(peer, name):
    pytest.importorskip(peer.replace("grad-cam", "pytorch_grad_cam"), reason=f"not installed: pip install {peer}")
    classifier, batch = peer_maps.lively(make()), images(1)
    theirs = peer_maps.PEERS[peer][0](classifier, batch, 2, name)
    assert_same(explain(name, classifier, batch, [(2,)])[0].maps, theirs, 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_images_one_by_one(name):
    classifier, batch = make(), images(4)
    chosen = [(3, 1, 2), (0,), (), (1, 2)]
    together = explain(name, classifier, batch, chosen)
    by_eight = explain(name, classifier, batch, chosen, micro_batch=8)
    for index, maps in enumerate(together):
        alone = explain(name, classifier, batch[index : index + 1], [chosen[index]])[0]
        assert [a.tobytes() for a in alone.maps] == [a.tobytes() for a in maps.maps]
        assert alone.presence.tobytes() == maps.presence.tobytes()
        assert_same(by_eight[index].maps, maps.maps, 1e-5)
    assert [maps.maps[0].shape[0] for maps in together] == [3, 1, 0, 2]


@pytest.mark.parametrize("micro_batch", [None, 8])
def test_the_rule_sees_the_probabilities_of_the_only_forward_pass(micro_batch):
    classifier, batch = make(), images()
    passes = []

    class Counted(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
            passes.append(len(tensor))
            return self.network(tensor)

    counted = Classifier(Counted(classifier.backbone), classifier.layers, 2, 4)
    extractor = registry.build("extractor", "grad-cam", micro_batch=micro_batch).prepare(counted)
    passes.clear()
    seen = []

    def rule(presence):
        seen.append(presence)
        return np.flatnonzero(presence > np.median(presence))

    explained = extractor(batch, rule)
    assert sum(passes) == len(batch)
    np.testing.assert_array_equal(seen, [maps.presence for maps in explained])
    assert [len(maps.classes) for maps in explained] == [2, 2, 2]


@pytest.mark.parametrize("name", ["grad-cam", "captum"])
@pytest.mark.parametrize("chosen", [(0, 4), (-1,), (1, 1)])
def test_classes_that_do_not_exist_or_repeat_are_an_error(name, chosen):
    with pytest.raises(DataError, match="expected distinct class indices below 4"):
        explain(name, make(), images(), [chosen] * 3)


@pytest.mark.parametrize("name", ["grad-cam", "captum"])
def test_read_only_images_are_explained_without_a_warning(name):
    batch = images()
    batch.flags.writeable = False
    assert len(explain(name, make(), batch, CHOSEN)) == 3


@pytest.mark.parametrize("name", [*NAMES, "captum"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_classifier_stays_as_it_was(name, frozen):
    classifier = make().train().requires_grad_(not frozen)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    explained = explain(name, classifier, images(), CHOSEN)
    assert all(np.abs(maps).max() > 0 for maps in explained[0].maps)
    assert classifier.training
    assert isinstance(classifier.backbone.blocks["1a"].norm, nn.BatchNorm2d)
    assert all(
        parameter.grad is None and parameter.requires_grad is not frozen for parameter in classifier.parameters()
    )
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())
    for module in classifier.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        assert not any(hooks)


def test_memory_does_not_grow():
    extractor = registry.build("extractor", "grad-cam").prepare(make())
    batch = images(2, (24, 24))

    def tensors_after(calls: int) -> int:
        for _ in range(calls):
            extractor(batch, lambda presence: (0, 1))
        gc.collect()
        return sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())

    assert tensors_after(2) == tensors_after(30)


@pytest.mark.parametrize("name", [*NAMES, "captum"])
def test_no_image_gives_no_maps(name):
    assert explain(name, make(), images(0), []) == []


def test_bfloat16_is_close():
    classifier, batch = make(), images(1)
    exact, near = (explain("grad-cam", classifier, batch, [(1,)], precision=p)[0] for p in ("float32", "bfloat16"))
    np.testing.assert_allclose(near.presence, exact.presence, atol=0.02)
    for one, other in zip(near.maps, exact.maps, strict=True):
        assert one.dtype == np.float32
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99


def test_a_layer_without_part_in_the_decision_is_an_error():
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
            return [self.one(tensor), self.two(tensor)]

    classifier = Classifier(Aside(), (Layer("aside", 2, 1), Layer("deepest", 2, 1)), 1, 2)
    with pytest.raises(ModelError, match="depend on layer 'aside'"):
        explain("grad-cam", classifier, images(1, channels=1), [(0,)])


def test_all_zero_activations_give_zero_maps():
    classifier = make()
    for block in classifier.backbone.blocks.values():
        nn.init.zeros_(block.norm.weight)
        nn.init.constant_(block.norm.bias, -1)
    for name in NAMES:
        assert all(not maps.any() for maps in explain(name, classifier, images(1), [(0, 1)])[0].maps)


def slow_grad_cam_plus_plus(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Grad-CAM++ as it is written, one cell at a time, S_k of what is positive, (h, w) for (k, h, w)."""
    found = np.zeros(activations.shape[1:])
    for plane, gradient in zip(activations.astype(float), gradients.astype(float), strict=True):
        total = sum(max(0.0, value) for value in plane.ravel())
        weight = sum(g**2 / (2 * g**2 + total * g**3) * g for g in gradient.ravel() if g > 0)
        found += weight * plane
    return found


def test_grad_cam_plus_plus_without_relu_counts_positive_activations():
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
            first = self.one(tensor)
            return [first, self.two(nn.functional.gelu(first))]

    torch.manual_seed(0)
    classifier = Classifier(Linear(), (Layer("one", 3, 1), Layer("two", 4, 1)), 1, 2, "mean").eval()
    batch = images(1, (9, 7), 1)
    activations = classifier.features(torch.from_numpy(batch))
    gradients = torch.autograd.grad(classifier.logits(activations[-1])[0, 1], activations)
    expected = [
        slow_grad_cam_plus_plus(one.detach().numpy()[0], other.numpy()[0])[None]
        for one, other in zip(activations, gradients, strict=True)
    ]
    assert all((layer < 0).any() for layer in activations)
    assert_same(explain("grad-cam++", classifier, batch, [(1,)])[0].maps, expected, 1e-5)


@pytest.mark.parametrize("name", [*NAMES, "captum"])
def test_images_with_other_channels_are_an_error(name):
    with pytest.raises(DataError, match="with C = 2, got"):
        explain(name, make(), images(channels=5), CHOSEN)


def test_errors_of_the_rule_are_raised():
    def rule(presence):
        raise RuntimeError("the rule's own")

    with pytest.raises(RuntimeError, match="the rule's own"):
        registry.build("extractor", "grad-cam").prepare(make())(images(), rule)


@pytest.mark.parametrize("name", ["grad-cam", "captum"])
def test_float32_is_exact_while_explaining_and_restored_afterwards(name):
    before = torch.backends.cudnn.conv.fp32_precision
    seen = []

    def rule(presence):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return (0,)

    registry.build("extractor", name).prepare(make())(images(), rule)
    assert seen == ["ieee"] * 3
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_no_setting_of_the_process_is_changed(monkeypatch):
    def fail():
        raise AssertionError("only the command line may change how the process allocates memory")

    monkeypatch.setattr(memory, "_glibc", fail)
    assert len(explain("grad-cam", make(), images(1, (512, 512)), [(0,)], micro_batch=1)) == 1


def test_reusing_memory_changes_no_map():
    classifier, batch = make(), images()
    plain = explain("grad-cam", classifier, batch, CHOSEN)
    with memory.reuse_freed_memory():
        reused = explain("grad-cam", classifier, batch, CHOSEN)
    for one, other in zip(plain, reused, strict=True):
        assert [maps.tobytes() for maps in one.maps] == [maps.tobytes() for maps in other.maps]


def test_bytes_of_a_pass():
    layers = (Layer("one", 32, 1), Layer("two", 64, 4))
    assert single_pass.pass_bytes(layers, (10, 7), 2) == single_pass.MEMORY_FACTOR * 2 * (32 * 10 * 7 + 64 * 3 * 2)


def test_how_many_images_are_computed_together(monkeypatch):
    for name, answer in (("mem_get_info", (600, 1000)), ("memory_reserved", 300), ("memory_allocated", 100)):
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    counts = [single_pass.images_per_pass(torch.device(name), 100) for name in ("cpu", "cuda", "mps")]
    assert counts == [1, 4, (4 << 30) // 100]
    assert single_pass.images_per_pass(torch.device("cuda"), 1000) == 1


def test_when_memory_runs_out_fewer_images_are_tried(monkeypatch):
    sizes, whole = [], single_pass.explain_chunk

    def scarce(classifier, chunk, rule, layer_map):
        sizes.append(len(chunk))
        if len(chunk) > 2:
            raise torch.OutOfMemoryError("no more")
        return whole(classifier, chunk, rule, layer_map)

    classifier, batch = make(), images(5)
    chosen = [*CHOSEN, (0, 3), (2,)]
    expected = explain("grad-cam", classifier, batch, chosen)
    monkeypatch.setattr(single_pass, "explain_chunk", scarce)
    found = explain("grad-cam", classifier, batch, chosen, micro_batch=8)
    assert sizes == [5, 2, 2, 1]
    for one, other in zip(found, expected, strict=True):
        assert_same(one.maps, other.maps, 1e-5)


def test_too_little_memory_for_one_image_is_an_error(monkeypatch):
    def never(classifier, chunk, rule, layer_map):
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(single_pass, "explain_chunk", never)
    with pytest.raises(torch.OutOfMemoryError, match="no more"):
        explain("grad-cam", make(), images(), CHOSEN)
