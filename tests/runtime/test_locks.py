"""Only one process at a time holds a lock."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from micraframe.errors import ConfigError
from micraframe.runtime.locks import exclusive, is_held


def refuse() -> None:
    raise ConfigError("taken")


def try_to_hold(path: Path, results: multiprocessing.SimpleQueue) -> None:
    try:
        with exclusive(path, refuse):
            results.put("held")
    except ConfigError as error:
        results.put(str(error))


def in_another_process(path: Path) -> str:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=try_to_hold, args=(path, results))
    process.start()
    found = results.get()
    process.join()
    return found


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.lock"
    with exclusive(path, refuse):
        assert in_another_process(path) == "taken"
    assert in_another_process(path) == "held"


def test_whether_a_lock_is_held_can_be_seen_without_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not is_held(path)
    assert not path.exists()
    with exclusive(path, refuse):
        assert is_held(path)
    assert not is_held(path)


def test_an_error_while_another_process_holds_the_lock_is_not_taken_for_a_lack_of_locks(tmp_path: Path) -> None:
    def fails() -> None:
        raise BrokenPipeError

    path = tmp_path / "a.lock"
    with exclusive(path, refuse), pytest.raises(BrokenPipeError), exclusive(path, fails):
        pytest.fail("entered, though the lock is held")


def test_without_locks_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filelock.FileLock.acquire", lambda lock, timeout=-1: (_ for _ in ()).throw(OSError("none")))
    with exclusive(tmp_path / "a.lock", refuse):
        assert not is_held(tmp_path / "a.lock")


def test_an_exception_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path / "a.lock", refuse):
        raise KeyError
    with exclusive(tmp_path / "a.lock", refuse):
        pass
