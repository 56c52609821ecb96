"""Training: examples, augmentation, the training loop, fine-tuning."""

from micraframe.training.classification import ClassifierRecipe, fit_classifier, pos_weights
from micraframe.training.examples import Examples
from micraframe.training.finetune import frozen_except, renamed
from micraframe.training.history import History
from micraframe.training.loggers import create_loggers
from micraframe.training.loop import fit
from micraframe.training.processes import is_main_process
from micraframe.training.recipe import Recipe

__all__ = [
    "ClassifierRecipe",
    "Examples",
    "History",
    "Recipe",
    "create_loggers",
    "fit",
    "fit_classifier",
    "frozen_except",
    "is_main_process",
    "pos_weights",
    "renamed",
]
