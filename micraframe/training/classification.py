"""Training a classifier on image-level labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from micraframe.classifier import Classifier
from micraframe.training.examples import Examples
from micraframe.training.history import History
from micraframe.training.loop import fit
from micraframe.training.objectives import MixConsistency, Objective, WithObjectives
from micraframe.training.recipe import Recipe
from micraframe.types import BoolArray, FitContext, Sample


class ClassifierRecipe(Recipe):
    """How a classifier is trained: by its labels, and by objectives that need nothing else."""

    objectives: tuple[Objective, ...] = Field(
        (), description="Losses added to the label loss; they need pooling log-sum-exp."
    )
    average: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay per step of a moving average of the weights, such as 0.99, which is what is kept; null: the "
        "weights themselves are kept. mix-consistency needs it.",
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> ClassifierRecipe:
        kinds = [one.kind for one in self.objectives]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"objectives: expected each at most once, got {', '.join(kinds)}")
        if self.average is None and any(isinstance(one, MixConsistency) for one in self.objectives):
            raise ValueError("objectives: mix-consistency needs a moving average of the weights; set average: 0.99")
        return self


def fit_classifier(
    classifier: Classifier,
    train: Sequence[Sample],
    valid: Sequence[Sample],
    recipe: ClassifierRecipe,
    context: FitContext,
    classes: Sequence[str] = (),
) -> History:
    """Train a classifier by binary cross-entropy with logits, and leave its best parameters in it.

    With p_c = sigmoid(y_c), the loss is the mean over examples and classes of
    -(w_c t_c log p_c + (1 - t_c) log(1 - p_c)), where t_c is 1 if class c is present, and 0 otherwise. In training, the
    losses of the recipe's objectives are added; the best parameters are chosen by the labels alone.

    Args:
        classifier: Trained in place; `fit` describes its state afterwards.
        train: Samples with labels of the classifier's K classes.
        valid: Samples to select the best parameters by, with the same labels.
        recipe: How it is trained; its `pos_weight` is w.
        context: Seed, device, precision, folder for checkpoints, progress callback.
        classes: Names of the K classes, for the log.

    Returns:
        The measurements after each epoch, including the accuracy of each class.

    Raises:
        DataError: If there is no sample to train with or to select by.
        ConfigError: If the classifier does not pool evidence, and there are objectives.
        ModelError: As `fit` does.
    """

    def labels(sample: Sample) -> BoolArray:
        assert sample.labels is not None
        return sample.labels

    examples = Examples(train, labels)
    labelled = np.stack(list(examples.targets()))
    weights = torch.from_numpy(pos_weights(recipe.pos_weight, len(labelled) - labelled.sum(0), labelled.sum(0)))
    names = [f"accuracy {name}" for name in (classes or range(classifier.classes))]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of outputs (B, K), or of (B, K + objectives), which end with the objectives' losses."""
        logits, others = outputs[:, : targets.shape[1]], outputs[:, targets.shape[1] :]
        by_labels = functional.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), pos_weight=weights.to(logits)
        )
        return by_labels + others.mean(0).sum() if others.shape[1] else by_labels

    def measure(logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        correct = (logits > 0) == targets
        return dict(zip(names, correct.unbind(1), strict=True))

    data = examples, Examples(valid, labels)
    if not (recipe.objectives or recipe.average):
        return fit(classifier, *data, loss, recipe, context, measure)
    network = WithObjectives(classifier, recipe.objectives, recipe.average)
    history = fit(network, *data, loss, recipe, context, measure, with_targets=True)
    if network.average is not None:
        classifier.load_state_dict(network.average.state_dict())
    return history


def pos_weights(
    rule: str | float | None, absent: npt.NDArray[np.int64], present: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return the weight of each class's presence in the loss.

    Args:
        rule: `auto` for the ratio of examples, or pixels, without the class to those with it; a number for all classes;
            None for 1.
        absent: (K,), the number without each class.
        present: (K,), the number with it.

    Returns:
        float32 (K,); 1 for a class that is in all or none of them, for which there is no ratio.
    """
    if rule != "auto":
        return np.full(len(present), 1 if rule is None else rule, np.float32)
    both = (present > 0) & (absent > 0)
    return np.where(both, absent / np.maximum(present, 1), 1).astype(np.float32)
