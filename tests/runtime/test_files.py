from __future__ import annotations

import os
from pathlib import Path

import pytest

from micraframe.runtime.files import atomic, atomic_folder, digest, digest_json, write_json


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(RuntimeError), atomic(path) as temporary:  # noqa: PT012 - the block is what is tested
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_content_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.txt", []

    def spy(handle):
        seen.append((os.fstat(handle).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", spy)
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert seen == [(3, False)]


def test_a_folder_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "model"
    for content in ("old", "new"):
        with atomic_folder(path) as temporary:
            (temporary / "a").write_text(content)
    with pytest.raises(RuntimeError), atomic_folder(path) as temporary:  # noqa: PT012 - the block is what is tested
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert (path / "a").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path, replace = tmp_path / "model", Path.replace
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("old")

    def refuse(source, target):
        if (source / "a").read_text() == "new":
            raise PermissionError(f"{target} is in use")
        return replace(source, target)

    with pytest.raises(PermissionError), atomic_folder(path) as temporary:  # noqa: PT012 - the block is what is tested
        (temporary / "a").write_text("new")
        monkeypatch.setattr(Path, "replace", refuse)
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_without_numbers_that_json_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_digests_tell_parts_and_their_borders_apart():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(b"ab") == digest("ab") == digest([b"a", b"b"])
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
