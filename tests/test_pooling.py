"""The pooling of evidence: its formula and limits, and the classifiers that use it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from micraframe.classifier import NO_EVIDENCE, Classifier, create_classifier
from micraframe.pooling import LogSumExp, Pooling, log_sum_exp
from micraframe.registry import build

POOLING: TypeAdapter[Any] = TypeAdapter(Pooling)
EVIDENCE = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)) * 3


def make(pooling: Any, dropout: float = 0.0) -> Classifier:
    torch.manual_seed(0)
    return create_classifier(build("backbone", "unet", widths=(3, 4)), 1, 2, POOLING.validate_python(pooling), dropout)


def test_log_sum_exp_is_its_formula_between_mean_and_maximum() -> None:
    flat = EVIDENCE.double().flatten(2)
    torch.testing.assert_close(log_sum_exp(EVIDENCE.double(), 2), (2 * flat).exp().mean(2).log() / 2)
    torch.testing.assert_close(log_sum_exp(EVIDENCE.double(), 1e-6), flat.mean(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(log_sum_exp(EVIDENCE.double(), 1e4), flat.amax(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("value", [-200.0, 0.0, 200.0])
def test_equal_positions_give_their_logit_and_extreme_ones_stay_finite(value: float) -> None:
    evidence = torch.full((1, 1, 4, 4), value, requires_grad=True)
    pooled = LogSumExp().pool(evidence)
    pooled.sum().backward()
    assert evidence.grad is not None
    assert evidence.grad.isfinite().all()
    torch.testing.assert_close(pooled, torch.full((1, 1), value))


def test_a_pooling_is_chosen_by_name_or_with_parameters() -> None:
    assert POOLING.validate_python("log-sum-exp") == LogSumExp() == POOLING.validate_python({"kind": "log-sum-exp"})
    assert POOLING.validate_python({"kind": "log-sum-exp", "r": 2}) == POOLING.validate_python(LogSumExp(r=2))
    assert POOLING.validate_python("max") == "max"
    for name in ("max", "log-sum-exp"):
        chosen = POOLING.validate_python(name)
        assert POOLING.validate_python(POOLING.dump_python(chosen, mode="json")) == chosen


@pytest.mark.parametrize("wrong", ["maximum", {"kind": "max"}, 3, None])
def test_the_error_names_all_poolings(wrong: object) -> None:
    with pytest.raises(ValidationError, match="expected max, mean or log-sum-exp, or a mapping with kind: log-sum-exp"):
        POOLING.validate_python(wrong)


@pytest.mark.parametrize("wrong", [{"kind": "log-sum-exp", "r": 0}, {"kind": "log-sum-exp", "p": 2}])
def test_an_error_is_about_the_chosen_pooling_alone(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        POOLING.validate_python(wrong)
    assert [error["loc"][0] for error in caught.value.errors()] == [wrong["kind"]]


def test_a_classifier_pools_its_evidence() -> None:
    classifier, images = make({"kind": "log-sum-exp", "r": 3}).eval(), torch.rand(2, 1, 11, 14)
    last = classifier.features(images)[-1]
    evidence = classifier.evidence(last)
    assert evidence.shape == (2, 2, 11, 14)
    torch.testing.assert_close(evidence[1, :, 4, 7], classifier.linear(last[1, :, 4, 7]))
    torch.testing.assert_close(classifier(images), log_sum_exp(evidence, 3))


def test_the_weights_are_those_of_every_other_classifier() -> None:
    paper, ours = make("max"), make("log-sum-exp")
    ours.load_state_dict(paper.state_dict())
    images = torch.rand(1, 1, 8, 8)
    # The mean of evidence is the evidence of the mean.
    mean, evidence = make("mean").eval(), make("log-sum-exp").eval()
    evidence.load_state_dict(mean.state_dict())
    positions = evidence.evidence(evidence.features(images)[-1])
    torch.testing.assert_close(positions.mean((2, 3)), mean(images))


def test_positions_without_evidence_start_as_background() -> None:
    classifier = make("log-sum-exp")
    assert (classifier.evidence(torch.zeros(1, 3, 2, 2)) == NO_EVIDENCE).all()
    assert make("max").linear.bias.unique().numel() == 2  # torch's own


def test_a_feature_is_dropped_at_all_positions() -> None:
    classifier = make("log-sum-exp", dropout=0.5)
    torch.manual_seed(1)
    last = torch.ones(64, 3, 4, 4)
    evidence = classifier.evidence(last)
    assert (evidence == evidence[:, :, :1, :1]).all()
    assert len(evidence[:, 0, 0, 0].unique()) > 1
    assert len(classifier.eval().evidence(last)[:, 0, 0, 0].unique()) == 1
