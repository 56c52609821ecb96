from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.datasets.audit import (
    CROPS,
    NEGATIVES,
    ROOM,
    WIDEST,
    Audit,
    audit,
    extrapolated_negatives,
    measured_negatives,
    object_sizes,
    propose,
)
from micraframe.datasets.crops import LabelRule, grid
from micraframe.datasets.folder import Folder
from micraframe.images import write_png
from micraframe.objects import components
from micraframe.types import Sample

SIDE = 256
DIAMETER = 15


def discs(number: int, count: int = 6) -> np.ndarray:
    """Return a mask, bool (H, W), of discs on a loose grid, which never touch."""
    rng = np.random.default_rng(number)
    mask = np.zeros((SIDE, SIDE), np.bool_)
    y, x = np.mgrid[:SIDE, :SIDE]
    for place in rng.choice(64, count, replace=False):
        cy, cx = 16 + 32 * np.array(divmod(place, 8)) + rng.integers(-6, 7, 2)
        mask |= (y - cy) ** 2 + (x - cx) ** 2 <= (DIAMETER // 2) ** 2
    return mask


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    for number in range(8):
        mask = discs(number)
        write_png(folder / "images" / f"{number}.png", (mask * 200).astype(np.uint8))
        write_png(folder / "masks" / f"{number}.png", mask)
    return folder


def examined(folder: Path, object_size: float | None = None, **params: Any) -> Audit:
    paths = {"images": str(folder / "images"), "masks": str(folder / "masks")}
    return audit(Folder(Folder.Params.model_validate({**paths, "valid": 0.25, "test": 0.25, **params})), object_size)


def test_counts_agree_with_the_samples(files):
    found = examined(files, crop=64)
    assert [(one.split, one.images, one.samples) for one in found.counts] == [
        ("train", 4, 64),
        ("valid", 2, 32),
        ("test", 2, 32),
    ]
    folders = {"images": str(files / "images"), "masks": str(files / "masks")}
    dataset = Folder(Folder.Params.model_validate({**folders, "crop": 64, "valid": 0.25, "test": 0.25}))
    for one in found.counts:
        labels = [bool(sample.labels[0]) for sample in dataset.samples(one.split) if sample.labels is not None]
        assert (one.positive, one.negative) == (sum(labels), len(labels) - sum(labels))
    assert found.image_sizes == ((SIDE, SIDE, 8),)


def test_sizes_are_those_of_whole_objects_in_pixels_of_the_samples(files):
    for scale in (1.0, 0.5):
        (size,) = examined(files, crop=32, scale=scale).sizes
        assert size.objects == 2 * 6
        assert size.width[1] == pytest.approx(DIAMETER * scale, abs=2)
        assert size.diameter[1] == pytest.approx(DIAMETER * scale, abs=2)
        assert size.too_large == 0
    (size,) = examined(files, crop=8).sizes
    assert size.too_large == 1


def test_it_proposes_a_crop_with_negatives_at_full_scale_for_small_objects(files):
    proposal = examined(files, crop=SIDE).proposal
    assert proposal is not None
    assert proposal.scale == 1
    assert NEGATIVES[0] <= proposal.negatives[0] <= NEGATIVES[1]
    assert "masks of 2 images (valid)" in proposal.basis
    negative = examined(files, crop=proposal.crop).counts[1]
    assert negative.negative / negative.samples == proposal.negatives[0]


def test_with_the_size_of_objects_it_looks_at_no_mask(files):
    found = examined(files, DIAMETER, crop=64)
    assert found.sizes == ()
    assert found.proposal is not None
    assert "read no masks" in found.proposal.basis
    measured = examined(files, crop=64).proposal
    assert measured is not None
    assert abs(CROPS.index(found.proposal.crop) - CROPS.index(measured.crop)) <= 1


def test_it_warns_of_classes_without_negatives_and_of_objects_larger_than_the_crop(files):
    whole = [one.text for one in examined(files).findings if not one.ok]
    advice = "cannot be learned from labels; add images without it, or cut images into crops"
    assert any(advice in text for text in whole)
    small = [one.text for one in examined(files, crop=8).findings if not one.ok]
    assert any("100% of the objects are larger than the crop of 8 px" in text for text in small)
    assert all(one.ok for one in examined(files, crop=64).findings)


def test_labels_alone_need_the_size_of_objects(files, tmp_path):
    (tmp_path / "labels.csv").write_text("image,disc\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(8)))
    params = {"masks": "", "labels": str(tmp_path / "labels.csv")}
    found = examined(files, **params)
    assert found.proposal is None
    assert "--object-size" in found.findings[-1].text
    with_size = examined(files, 40, **params).proposal
    assert with_size is not None
    assert with_size.crop >= 1.25 * 40


def test_crops_that_are_too_small_for_the_objects_are_to_be_cut_again(files, tmp_path):
    rows = [f"{n}.png,field,0,{SIDE * n},field{n // 2},{n % 2}\n" for n in range(8)]
    (tmp_path / "labels.csv").write_text("image,source,y,x,group,disc\n" + "".join(rows))
    params = {"masks": "", "labels": str(tmp_path / "labels.csv")}
    fitting = examined(files, 20, **params)
    assert fitting.findings[-1].ok
    assert fitting.cut
    assert any("train crops" in one.text for one in fitting.findings)
    found = examined(files, 2 * SIDE, **params)
    assert "use larger crops" in " ".join(one.text for one in found.findings if not one.ok)
    assert found.proposal is not None
    assert found.proposal.cut_again
    assert found.proposal.scale == WIDEST / (2 * SIDE)
    assert found.proposal.crop / found.proposal.scale > SIDE


@given(st.lists(st.floats(1, 2000), min_size=1, max_size=3), st.integers(32, 3000), st.floats(1e-7, 1e-2))
def test_the_proposal_follows_the_rule(widths, shortest, density):
    def negatives(crop: int) -> np.ndarray:
        return np.exp([-density * (crop + width) ** 2 for width in widths])

    found = propose(widths, negatives, shortest, "")
    assert found.scale == 0.125 or max(widths) * found.scale <= WIDEST
    assert found.scale == 1 or max(widths) * found.scale * 2 > WIDEST
    assert found.crop == CROPS[0] or found.crop / found.scale <= shortest
    good = [
        crop
        for crop in CROPS
        if crop / found.scale <= shortest
        and crop >= ROOM * max(widths) * found.scale
        and all(NEGATIVES[0] <= share <= NEGATIVES[1] for share in negatives(round(crop / found.scale)))
    ]
    assert found.crop >= max(good, default=0)


@given(st.integers(0, 100), st.sampled_from([16, 40, 64, 100]), st.booleans(), st.sampled_from([None, 3]))
def test_measured_negatives_agree_with_counting_crops(seed, crop, ambiguous, most):
    images = [Sample(str(n), np.zeros((1, SIDE, SIDE), np.float32), masks=discs(seed + n)[None]) for n in range(2)]
    least = 0.02
    negatives = counted = 0.0
    for image in images:
        assert image.masks is not None
        several = [float(image.masks[0][window.place].mean()) for window in grid((SIDE, SIDE), crop, crop)]
        weight = min(1, most / len(several)) if most else 1
        negatives += weight * sum(share == 0 or (ambiguous and share < least) for share in several)
        counted += weight * sum(share == 0 or share >= least or ambiguous for share in several)
    share = measured_negatives(images, LabelRule("share", least), ambiguous, most)(crop)
    assert share == pytest.approx([negatives / max(counted, 1)])


def test_extrapolation_is_exact_at_the_crop_of_the_labels_and_for_random_places():
    labels = np.zeros((1000, 2), np.bool_)
    labels[:700, 0] = True
    share = extrapolated_negatives(labels, 64, 20)
    assert share(64) == pytest.approx([300.5 / 1001, 1000.5 / 1001])
    assert share(148)[0] == pytest.approx(share(64)[0] ** 4)  # four times the area in which a centre may lie
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 4000, (600, 2))

    def touched(crop: int) -> np.ndarray:
        corners = rng.uniform(0, 4000 - crop, (4000, 1, 2))
        return np.asarray(((points > corners - 10) & (points < corners + crop + 10)).all(2).any(1))[:, None]

    assert extrapolated_negatives(touched(100), 100, 20)(200)[0] == pytest.approx(1 - touched(200).mean(), abs=0.03)


def test_widths_of_discs_strips_and_single_pixels():
    mask = np.zeros((1, 80, 80), np.bool_)
    mask[0, 2, 2] = True
    mask[0, 10:15, 5:75] = True
    y, x = np.mgrid[:80, :80]
    mask[0] |= (y - 50) ** 2 + (x - 40) ** 2 <= 20**2
    width, diameter = object_sizes(components(mask)[0])
    assert width == pytest.approx([1, 5, 40], abs=1)
    assert diameter == pytest.approx([np.sqrt(4 / np.pi), np.sqrt(4 * 350 / np.pi), 40], abs=0.5)
    assert [len(part) for part in object_sizes(np.zeros((5, 5), np.int32))] == [0, 0]
