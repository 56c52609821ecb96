"""A method that learns from labels and looks for masks, of a dataset on disk, wherever it can.

What one process cannot prevent, and is not tried here: a method that reads the study's configuration out of the
interpreter, or guesses paths such as $MICRAFRAME_DATA, can open the files that it finds there.
"""

from __future__ import annotations

import gc
import re
from pathlib import Path

import numpy as np
import pytest
from small_studies import compared, study

from micraframe.config import Choice, Study
from micraframe.images import write_png
from micraframe.interfaces import Dataset
from micraframe.plugin import Component
from micraframe.study import StudyFolder, plan, run_study
from micraframe.study.job import anonymous, with_names
from micraframe.types import Annotation, Sample

METHOD = '''
import gc
import os
import sys
from typing import final
from micraframe.interfaces import Dataset, Method
from micraframe.types import Annotation, Sample

@final
class Looking(Method):
    """Looks everywhere."""
    learns_from = frozenset({Annotation.LABELS})
    found = []
    def fit(self, train, valid, info, context):
        frame, values = sys._getframe(), []
        while frame := frame.f_back:
            values += frame.f_locals.values()
        Looking.found.append({
            "samples": [*train, *valid],
            "info": info,
            "files": [p for folder in (context.folder, *context.folder.parents) if folder.exists()
                      for p in folder.iterdir() if not p.is_dir()],
            "folder": context.folder,
            "beside": list(context.folder.parent.rglob("*")) if context.folder.parent.exists() else [],
            "environment": dict(os.environ),
            "frames": values,
            "alive": [each for each in gc.get_objects() if {Sample, Dataset} & {*type(each).__mro__}],
        })
        raise RuntimeError(f"sample {train[0].id!r}: has looked")
    def restore(self, state, info, device):
        raise RuntimeError
'''
ENTRY = [Component("method", "looking", "fake_looking:Looking", "Looking")]


@pytest.fixture
def made(tmp_path: Path, install) -> Study:
    install("fake", ENTRY, fake_looking=METHOD)
    random = np.random.default_rng(0)
    for number in range(12):
        write_png(tmp_path / "data" / "images" / f"mouse{number:02d}.png", random.integers(0, 255, (32, 32), np.uint8))
        mask = np.zeros((32, 32), np.uint8)
        mask[4:16, 4:16] = 255 * (number % 2)
        write_png(tmp_path / "data" / "masks" / f"mouse{number:02d}.png", mask)
    params = {
        "images": str(tmp_path / "data" / "images"),
        "masks": str(tmp_path / "data" / "masks"),
        "classes": ["cell"],
        "crop": 16,
        "stride": 16,
    }
    return study(compared("looking"), datasets=[Choice(name="folder", params=params)], tuning_images=0)


def look(made: Study, output: Path) -> dict:
    outcome = run_study(made, output)
    (error,) = outcome.failures.values()
    assert "has looked" in error, error
    import fake_looking  # type: ignore[import-not-found]

    return fake_looking.Looking.found.pop()


def test_samples_say_nothing_about_where_they_come_from(tmp_path, made):
    found = look(made, tmp_path / "study")
    assert len(found["samples"]) > 30
    assert [sample.id for sample in found["samples"]] == [f"sample-{n:05d}" for n in range(len(found["samples"]))]
    for sample in found["samples"]:
        assert re.fullmatch(r"group-\d{5}", sample.group)
        assert sample.source == ""
        assert sample.part.image == ""
        assert all(getattr(sample, kind.value) is None for kind in Annotation if kind is not Annotation.LABELS)
    assert "mouse" not in repr(found["samples"])
    assert "mouse" not in repr(found["info"])


def test_the_folder_leads_nowhere(tmp_path, made):
    found = look(made, tmp_path / "study")
    ours = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"study.yaml", "mouse00.png"} <= ours
    assert not [path for path in found["files"] if path.name in ours]
    assert not [path for path in found["beside"] if path.is_file()]
    assert tmp_path not in found["folder"].parents


def test_the_environment_names_neither_study_nor_data(tmp_path, made):
    environment = look(made, tmp_path / "study")["environment"]
    named = [name for name, value in environment.items() if str(tmp_path) in value]
    assert not named


def test_no_annotation_is_in_memory_while_a_method_learns(tmp_path, made):
    others = [each for each in gc.get_objects() if Dataset in type(each).__mro__]
    found = look(made, tmp_path / "study")
    known = {id(each) for each in (*found["samples"], *others)}
    alive = [each for each in found["alive"] if id(each) not in known]
    # Others are other tests' own.
    assert not [each for each in alive if not isinstance(each, Sample)]
    assert not [each for each in alive if each.group is not None or "mouse" in each.id]
    masks = [value for value in found["frames"] if isinstance(value, np.ndarray)]
    assert not masks
    assert not [value for value in found["frames"] if isinstance(value, Sample) and id(value) not in known]


def test_the_names_stay_with_the_study_and_errors_have_them(tmp_path, made):
    look(made, tmp_path / "study")
    folder = StudyFolder(tmp_path / "study")
    (run,) = plan(made)
    names = folder.read_sample_names(run)
    assert names["sample-00000"].startswith("mouse")
    assert f"sample 'sample-00000 ({names['sample-00000']})': has looked" in folder.error(run)


def test_numbers_are_distinct_and_groups_shared_between_splits():
    image = np.zeros((1, 2, 2), np.float32)
    names: dict[str, str] = {}
    first = anonymous([Sample("a", image, group="x"), Sample("b", image), Sample("c", image, group="y")], names)
    second = anonymous([Sample("d", image, group="x")], names)
    assert [sample.id for sample in (*first, *second)] == [f"sample-{number:05d}" for number in range(4)]
    assert [sample.group for sample in (*first, *second)] == ["group-00000", None, "group-00001", "group-00000"]
    assert names["sample-00003"] == "d"
    assert with_names("sample-00003 and sample-00009", names) == "sample-00003 (d) and sample-00009"
