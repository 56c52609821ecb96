"""Which of a study's planned comparisons were named before it had results: only those were planned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from micraframe.config import Study
from micraframe.runtime.files import write_json
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import Pair, StudyRun, planned_pairs

_FILE: Final = "planned.json"


class Planning(NamedTuple):
    """The planned comparisons of a study.

    Attributes:
        pairs: All of them.
        recorded: Whether it was recorded, before there were results, what was planned; if not, nothing else is known.
        late: Those of the pairs that were named after results existed.
        dropped: Number of pairs that were named before and are no longer.
        late_margin: Whether the margin was set after results existed.
    """

    pairs: tuple[Pair, ...]
    recorded: bool = False
    late: frozenset[Pair] = frozenset()
    dropped: int = 0
    late_margin: bool = False


def record_plan(study: Study, runs: Iterable[StudyRun], folder: StudyFolder) -> None:
    """Keep what is planned; to be called before the study has results."""
    plan = {"primary_metric": study.primary_metric, "pairs": planned_pairs(study, runs), "margin": study.margin}
    write_json(folder.path / _FILE, plan)


def planning(study: Study, runs: Iterable[StudyRun], folder: StudyFolder) -> Planning:
    """Return what is planned now, compared with what was planned before there were results."""
    pairs = planned_pairs(study, runs)
    try:
        before = json.loads((folder.path / _FILE).read_text(encoding="utf-8"))
    except OSError:
        return Planning(pairs)
    # Planned comparisons are by the primary metric: with another one, they are others.
    same = before["primary_metric"] == study.primary_metric
    named = {frozenset(pair) for pair in before["pairs"]}
    kept = {pair for pair in pairs if same and frozenset(pair) in named}
    late_margin = study.margin is not None and not (same and study.margin == before["margin"])
    return Planning(pairs, True, frozenset(pairs) - kept, len(named) - len(kept), late_margin)
