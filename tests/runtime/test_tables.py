from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from micraframe.runtime.tables import CsvStream, write_csv


@dataclass(frozen=True)
class Reading:
    name: str
    class_: str
    value: float


def test_a_table_has_a_column_for_each_field_and_an_empty_cell_for_nan(tmp_path):
    path = tmp_path / "deep" / "a.csv"
    write_csv(path, [Reading("a, b", "x", 0.1), Reading("c", "y", math.nan)], Reading)
    assert path.read_text() == 'name,class,value\n"a, b",x,0.1\nc,y,\n'
    value = float(np.float32(0.1))
    write_csv(path, [Reading("", "", value)], Reading)
    assert np.float32(path.read_text().split(",")[-1]) == np.float32(0.1)


def test_rows_stay_if_the_program_is_interrupted(tmp_path):
    path = tmp_path / "a.csv"
    with pytest.raises(KeyboardInterrupt), CsvStream(path) as stream:  # noqa: PT012 - the block is what is tested
        stream.write((), Reading)
        stream.write([Reading("a", "x", 1.0)], Reading)
        assert path.read_text() == "name,class,value\na,x,1\n"
        raise KeyboardInterrupt
    assert path.read_text() == "name,class,value\na,x,1\n"


def test_a_stream_without_a_write_makes_no_file(tmp_path):
    with CsvStream(tmp_path / "a.csv"):
        pass
    assert not list(tmp_path.iterdir())
