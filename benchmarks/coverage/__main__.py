"""Simulates how often the intervals of `micraframe.statistics` cover, and how often its tests raise a false alarm.

nice -n 10 .venv/bin/python -m benchmarks.coverage            # about four minutes on one core
.venv/bin/python -m benchmarks.coverage --trials 20 --output /tmp/coverage     # does everything run?

It writes `coverage.csv` and `README.md`. For contrast, every trial is also judged by what these intervals and tests
replaced: values averaged over seeds within each image, and then the percentile bootstrap and the randomisation test
over groups of images, given the trained models.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from micraframe.statistics import among, contrast, equivalence, estimate, f_test, jackknifed_ratio

Double = npt.NDArray[np.float64]

MODELS: Final = (1, 3, 5, 10)
GROUPS: Final = (5, 11, 30, 100)
MODEL_SDS: Final = (0.0, 0.03, 0.12)
KINDS: Final = {
    "normal": "Values of images are normal.",
    "skewed": "Values of images are beta-distributed with a mean of about 0.8; most are near 1.",
    "binary": "Values of images are 0 or 1, with a mean of about 0.8, as accuracies are.",
    "sizes": "Normal values; the numbers of images in groups are log-normal, from 1 to dozens.",
    "gaps": "Normal values; each method is undefined in whole groups, a third of them, and in a third of other images.",
}
METHODS: Final = 3
IMAGES: Final = 6
GROUP_SD: Final = 0.1
MODEL_GROUP_SD: Final = 0.04
MARGIN: Final = 0.1
RESAMPLES: Final = 400
QUADRATURE: Final = np.polynomial.hermite_e.hermegauss(40)
MEASURES: Final = {
    "coverage": "share of 95 % intervals that contain the true mean",
    "old_coverage": "the same, of the percentile bootstrap",
    "width": "mean width of the intervals",
    "false_alarms": "share of trials in which two methods that do not differ have p <= 0.05",
    "old_false_alarms": "the same, of the randomisation test",
    "f_false_alarms": f"the same, of F for {METHODS} methods",
    "false_equivalence": "share of trials in which methods that differ by the margin are called equivalent, p <= 0.05",
}


INTRODUCTION: Final = """\
# Do the intervals cover, and do the tests stay quiet?

Every number in a study has a 95 % interval over trained models *and* groups of images, by the crossed random effects of
`micraframe.statistics`: leave-one-group-out pseudo-values, variances from mean squares, and Student's t with the
degrees of freedom of Satterthwaite. These are simulated studies in which the truth is known and no method is better
than another. In brackets, or "before": what it replaced, values averaged over seeds within each image, then a
percentile bootstrap and a randomisation test over groups, *given* the trained models.

Median and range over all simulated conditions with several trained models:

| groups | coverage of 95 % intervals | before | false alarms, p <= 0.05 | before | of F | false equivalence |
|---:|---|---|---|---|---|---|"""

LIMITS: Final = """\
Coverage is lowest, about 0.9, with few groups of very unequal sizes (`sizes`), and with three models that differ much
where values are near their bound (`skewed`, `binary`). Where groups do not vary at all, as with an accuracy of 1 in
each, an interval has no width. Tests of several models err on the quiet side.
"""


class Condition(NamedTuple):
    """What is simulated: `model_sd` is the standard deviation between trained models of one recipe."""

    kind: str
    models: int
    groups: int
    model_sd: float


class Trial(NamedTuple):
    """Methods that do not differ, measured on the same images: values and which are defined, each (methods, M, N)."""

    values: Double
    defined: Double
    members: Double  # (N, G): the group of each image
    truth: float

    def sums(self) -> tuple[Double, Double]:
        """Return the sums over each group's images, and the numbers that are defined, each (methods, M, G)."""
        return (self.values * self.defined) @ self.members, self.defined @ self.members


def draw(random: np.random.Generator, condition: Condition) -> Trial:
    """Draw groups, and methods trained anew. One model is compared with its own mean: nothing is claimed of others."""
    kind, models, groups, model_sd = condition
    sizes = np.full(groups, IMAGES)
    if kind == "sizes":
        sizes = np.maximum(1, np.exp(random.normal(1.3, 1.0, groups))).astype(int)
    group = np.repeat(np.arange(groups), sizes)
    of_model = random.normal(0, model_sd, (METHODS, models, 1))
    of_both = random.normal(0, MODEL_GROUP_SD, (METHODS, models, groups))
    effects = (of_model + random.normal(0, GROUP_SD, groups) + of_both)[..., group]
    defined = np.ones(effects.shape)
    if kind == "gaps":
        gaps = random.random((METHODS, 1, groups)) < 1 / 3
        defined = 1.0 - (gaps[..., group] | (random.random(effects.shape) < 1 / 3))
    within = math.hypot(GROUP_SD, MODEL_GROUP_SD)
    given, sd = (float(of_model[0, 0, 0]), within) if models == 1 else (0.0, math.hypot(within, model_sd))
    return Trial(_values(random, kind, effects), defined, np.eye(groups)[group], _mean(kind, given, sd))


def _values(random: np.random.Generator, kind: str, effects: Double) -> Double:
    expected = _expected(kind, effects)
    if kind == "binary":
        return (random.random(expected.shape) < expected).astype(np.float64)
    return random.beta(4 * expected, 4 * (1 - expected)) if kind == "skewed" else random.normal(expected, 0.15)


def _expected(kind: str, effects: Double) -> Double:
    """Return the expected value of an image; a logistic curve with a slope of 1 at 0.8 keeps it below 1."""
    return 1 / (1 + np.exp(-effects / 0.16) / 4) if kind in ("skewed", "binary") else 0.6 + effects


def _mean(kind: str, given: float, sd: float) -> float:
    """Return the mean of the expected values over normal effects, by Gauss-Hermite quadrature."""
    places, weights = QUADRATURE
    return float(weights @ _expected(kind, given + sd * places) / weights.sum())


def judge(trial: Trial, weights: Double, exchanged: npt.NDArray[np.bool_]) -> list[float]:
    """Return the `MEASURES` of one trial."""
    n, d = trial.sums()
    pseudo = [jackknifed_ratio(*each) for each in zip(n, d, strict=True)]

    def first(count: int) -> list[Double]:
        """Return the first methods' pseudo-values of the groups in which any of them is defined, as studies do."""
        return [among(each, d[:count].any(axis=(0, 1))) for each in pseudo[:count]]

    found, difference = estimate(*first(1)), contrast(first(2)[0], first(2)[1])
    shifted = difference._replace(difference=difference.difference + MARGIN)
    counts = trial.defined.sum(axis=1)
    means = np.divide((trial.values * trial.defined).sum(axis=1), counts, out=np.zeros(counts.shape), where=counts > 0)
    old = np.stack([means @ trial.members, (counts > 0) @ trial.members])  # sums and counts, (2, methods, G)
    low, high = np.nanquantile(_ratio(*(weights @ old[:, 0].T).T), [0.025, 0.975])
    one, other = old[:, 0], old[:, 1]
    flip = exchanged[:, None]  # none in the first row
    sums = np.where(flip, other, one).sum(axis=-1), np.where(flip, one, other).sum(axis=-1)
    differences = np.abs(_ratio(*sums[0].T) - _ratio(*sums[1].T))
    larger = ~(differences < differences[0] * (1 - 1e-12))
    return [
        math.nan if math.isnan(found.low) else found.low <= trial.truth <= found.high,
        low <= trial.truth <= high,
        found.high - found.low,
        difference.p <= 0.05,
        larger.mean() <= 0.05,
        f_test(first(METHODS)).p <= 0.05,
        equivalence(shifted, MARGIN) <= 0.05,
    ]


def _ratio(n: Double, d: Double) -> Double:
    return np.asarray(np.divide(n, d, out=np.full(np.shape(d), np.nan), where=np.asarray(d) > 0))


def simulate(trials: int) -> Iterator[dict[str, str | float]]:
    """Yield a row for each condition."""
    conditions = itertools.starmap(Condition, itertools.product(KINDS, MODELS, GROUPS, MODEL_SDS))
    for number, condition in enumerate(conditions):
        random = np.random.default_rng([11, number])
        groups = condition.groups
        weights = random.multinomial(groups, [1 / groups] * groups, RESAMPLES).astype(np.float64)
        exchanged = (random.random((RESAMPLES, groups)) < 0.5) & (np.arange(RESAMPLES) > 0)[:, None]
        judged = np.array([judge(draw(random, condition), weights, exchanged) for _ in range(trials)], np.float64)
        means = dict(zip(MEASURES, np.nanmean(judged, axis=0).tolist(), strict=True))
        if condition.models == 1 and condition.model_sd:
            # Single models of one recipe do differ: that a test finds it is no false alarm.
            means |= {name: math.nan for name in MEASURES if name.startswith(("false", "f_", "old_false"))}
        print(*condition, *(f"{mean:.3f}" for mean in means.values()), file=sys.stderr, flush=True)
        yield condition._asdict() | {name: round(mean, 4) for name, mean in means.items()}


def table(rows: Sequence[dict[str, str | float]], kind: str, new: str, old: str) -> list[str]:
    """Return a Markdown table of a measure, in brackets that of the old method: models and their SD against groups."""
    found = {(row["models"], row["model_sd"], row["groups"]): row for row in rows if row["kind"] == kind}
    lines = [
        "| models | SD between models | " + " | ".join(f"{groups} groups" for groups in GROUPS) + " |",
        "|---:|---:|" + "---:|" * len(GROUPS),
    ]
    for models, sd in itertools.product(MODELS, MODEL_SDS):
        cells = [(float(found[models, sd, groups][new]), float(found[models, sd, groups][old])) for groups in GROUPS]
        texts = ["" if math.isnan(one) else f"{one:.2f} ({other:.2f})" for one, other in cells]
        if any(texts):
            lines.append(f"| {models} | {sd:g} | " + " | ".join(texts) + " |")
    return [*lines, ""]


def _details(conditions: int, trials: int) -> str:
    return f"""\
Each of the {conditions} conditions was simulated {trials:,} times: a share of 0.95 has a standard error of
{math.sqrt(0.95 * 0.05 / trials):.3f}. The standard deviation is {GROUP_SD} between groups, {MODEL_GROUP_SD} of groups x
models, and 0.15 between the {IMAGES} images of a group where values are normal. A single trained model is compared with
*its own* mean, and single models are not tested where models differ: what is said of them holds for that model alone,
and studies mark it so. `coverage.csv` has all numbers:"""


def readme(rows: Sequence[dict[str, str | float]], trials: int, command: str) -> str:
    """Return the page."""
    several = [row for row in rows if row["models"] != 1]

    def span(measure: str, **chosen: object) -> str:
        values = [float(row[measure]) for row in several if all(row[key] == value for key, value in chosen.items())]
        return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("micraframe", "numpy", "scipy"))
    lines = [INTRODUCTION]
    order = "coverage", "old_coverage", "false_alarms", "old_false_alarms", "f_false_alarms", "false_equivalence"
    lines += [
        f"| {groups} | " + " | ".join(span(measure, groups=groups) for measure in order) + " |" for groups in GROUPS
    ]
    lines += ["", _details(len(rows), trials), "", *(f"- `{name}`: {text}" for name, text in MEASURES.items()), ""]
    lines += [LIMITS]
    for kind, text in KINDS.items():
        lines += [f"## {kind}", "", text, "", "Coverage:", "", *table(rows, kind, "coverage", "old_coverage")]
        lines += ["False alarms:", "", *table(rows, kind, "false_alarms", "old_false_alarms")]
    date = datetime.now(UTC).date().isoformat()
    return "\n".join([*lines, f"*`{command}`, {date}; {versions}, Python {platform.python_version()}.*", ""])


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(prog="benchmarks.coverage", description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=500, help="simulated studies per condition")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    options = parser.parse_args()
    rows = list(simulate(options.trials))
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "coverage.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    command = f"python -m benchmarks.coverage --trials {options.trials}"
    (options.output / "README.md").write_text(readme(rows, options.trials, command), encoding="utf-8")


if __name__ == "__main__":
    main()
