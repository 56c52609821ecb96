"""`micraframe new-plugin`: whatever kinds it writes, the plugin installs, is listed and keeps every promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Collection
from itertools import chain, combinations
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plugin_folders import install_folder
from typer.testing import CliRunner

from micraframe import catalog, registry, scaffold
from micraframe.cli import app
from micraframe.errors import ConfigError
from micraframe.plugin import KINDS
from micraframe.scaffold import COMPONENTS, plugin_files, write_plugin
from micraframe.testing import check

EXAMPLE = Path(__file__).parents[2] / "plugins" / "micraframe-example"
SUBSETS = [*chain.from_iterable(combinations(KINDS, count) for count in range(1, len(KINDS) + 1))]


def run(*words: object) -> str:
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False).stdout


def listed(plugin: str) -> set[tuple[str, str]]:
    records = json.loads(run("list", "--json"))
    return {(record["kind"], record["name"]) for record in records if record["plugin"] == plugin}


def offered(kinds: Collection[str]) -> set[tuple[str, str]]:
    return {(kind, COMPONENTS[kind].name) for kind in kinds}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_of_one_kind_is_listed_and_keeps_every_promise(kind, tmp_path, monkeypatch, add_site):
    monkeypatch.chdir(tmp_path)
    name = f"only-{kind}"
    out = run("new-plugin", name, "--kinds", kind)
    assert f"  {kind} {name}/{COMPONENTS[kind].name}\n" in out
    install_folder(Path(name).absolute(), add_site)
    assert listed(name) == offered([kind])
    check(kind, f"{name}/{COMPONENTS[kind].name}")


def test_a_plugin_of_all_kinds_installs_with_pip_and_passes_its_tests(tmp_path, add_site):
    pytest.importorskip("hatchling", reason="pip would download hatchling")
    run("new-plugin", "all-kinds", "--kinds", ",".join(KINDS), "--output", tmp_path / "all-kinds")
    flags = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *flags, "--target", str(tmp_path / "site")]
    subprocess.run([*command, str(tmp_path / "all-kinds")], check=True)
    command = [sys.executable, "-m", "pytest", "-n0", "-W", "error", "-p", "no:cacheprovider", "--tb=short"]
    tests = subprocess.run(
        [*command, str(tmp_path / "all-kinds" / "tests")],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout
    add_site(tmp_path / "site")
    assert listed("all-kinds") == offered(KINDS)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.sampled_from(SUBSETS))
def test_any_kinds_are_listed_and_loaded(kinds, tmp_path_factory, add_site):
    folder = tmp_path_factory.mktemp("plugin")
    name = f"some-{SUBSETS.index(kinds)}"
    write_plugin(name, kinds, folder / name)
    install_folder(folder / name, add_site)
    assert listed(name) == offered(kinds)
    for kind in kinds:
        registry.build(kind, f"{name}/{COMPONENTS[kind].name}")


def execute(path: str, text: str) -> ModuleType:
    module = ModuleType(Path(path).stem)
    exec(compile(text, path, "exec"), vars(module))
    return module


@pytest.mark.parametrize("kinds", SUBSETS, ids=lambda kinds: "+".join(kind[:3] for kind in kinds))
def test_every_combination_lists_and_tests_what_it_writes(kinds):
    files = plugin_files("my-plugin", kinds)
    records = execute("my_plugin/__init__.py", files.pop("my_plugin/__init__.py")).micraframe_components()
    assert {(record.kind, record.name) for record in records} == offered(kinds)
    tests = vars(execute("test_my_plugin.py", files.pop("tests/test_my_plugin.py"))).values()
    tested = {(each.kind, each.name) for each in tests if isinstance(each, type) and each.__name__.startswith("Test")}
    assert tested == {(kind, f"my-plugin/{name}") for kind, name in offered(kinds)}
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    assert project["entry-points"]["micraframe"] == {"my-plugin": "my_plugin"}
    # A kind's module is the same in every combination: what one kind's plugin promises, all others promise too.
    files.pop("README.md")
    alone = [plugin_files("my-plugin", [kind])[f"my_plugin/{kind}.py"] for kind in kinds]
    assert files == {f"my_plugin/{kind}.py": text for kind, text in zip(kinds, alone, strict=True)}


def test_the_example_is_what_the_command_writes():
    files = plugin_files("micraframe-example", ["dataset", "backbone", "combiner", "metric"])
    for own in ("README.md", "pyproject.toml"):
        files.pop(own)
    assert {path: (EXAMPLE / path).read_text(encoding="utf-8") for path in files} == files


@pytest.mark.parametrize(
    ("name", "kinds", "said"),
    [
        ("My-Plugin", "head", "expected a name of lower-case letters, .* got 'My-Plugin'; choose another"),
        ("my_plugin", "head", "got 'my_plugin'"),
        ("../up", "head", r"got '\.\./up'"),
        ("a--b", "head", "got 'a--b'"),
        ("1st", "head", "got '1st'"),
        ("lambda", "head", "no keyword of Python, got 'lambda'"),
        ("micraframe", "head", "expected a name that is free, got 'micraframe': there is a package micraframe"),
        ("json", "head", "there is a package json; choose another"),
        ("my-plugin", "head,heads", "expected kinds among dataset, .*, got 'heads'; correct --kinds"),
        ("my-plugin", " , ", "expected one or more kinds, got none; name some of dataset"),
    ],
)
def test_what_cannot_be_written_is_refused(name, kinds, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        run("new-plugin", name, "--kinds", kinds)
    assert list(tmp_path.parent.glob("up")) == list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for taken in ("link", "file", "folder"):
        with pytest.raises(ConfigError, match=f"{taken}: expected no file or folder, got one; choose another --output"):
            run("new-plugin", "my-plugin", "--output", tmp_path / taken)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "precious"


def test_a_plugin_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    files = {**plugin_files("my-plugin", ["head"]), "README.md/file": ""}
    monkeypatch.setattr(scaffold, "plugin_files", lambda name, kinds: files)
    with pytest.raises(FileExistsError, match="README.md"):
        write_plugin("my-plugin", ["head"], tmp_path / "my-plugin")
    assert list(tmp_path.iterdir()) == []


def test_the_names_are_not_those_of_core():
    core = {(component.kind, component.name) for component in catalog().plugins[0].components}
    assert not core & offered(KINDS)
