"""Training: examples, augmentation, the training loop, fine-tuning."""

from micraframe.training.classification import fit_classifier
from micraframe.training.examples import Examples
from micraframe.training.finetune import finetune_classifier
from micraframe.training.history import History
from micraframe.training.loop import fit
from micraframe.training.processes import is_main_process
from micraframe.training.recipe import Recipe

__all__ = ["Examples", "History", "Recipe", "finetune_classifier", "fit", "fit_classifier", "is_main_process"]
