"""What annotation costs at a study's prices: as it was reckoned when it was made, or made once more and reckoned anew.

Annotators know the truth, so that making an annotation again takes no more than reading the images; training and
measuring are not done again.
"""

from __future__ import annotations

from micraframe import registry
from micraframe.config import Study
from micraframe.study.cell import given_to, number_annotated, tuning_samples
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import Cell
from micraframe.types import Cost


def annotation_cost(cell: Cell, folder: StudyFolder) -> Cost:
    """Return what the annotation of a cell's training and validation samples costs, and keep it."""
    cost = folder.cost(cell)
    if cost is None:
        dataset = registry.build("dataset", cell.dataset.name, **cell.dataset.params)
        _, cost = given_to(cell, dataset, frozenset())
        folder.write_cost(cell, cost)
    return cost


def tuning_cost(cell: Cell, study: Study, folder: StudyFolder) -> Cost:
    """Return what the labels cost that a cell's thresholds are tuned on, and keep it."""
    cost = folder.tuning_cost(cell)
    if cost is None:
        dataset = registry.build("dataset", cell.dataset.name, **cell.dataset.params)
        _, cost = tuning_samples(cell, study, dataset.samples("valid"), number_annotated(cell, dataset, "valid"))
        folder.write_tuning_cost(cell, cost)
    return cost
