from __future__ import annotations

import pytest

from micraframe import config
from micraframe.config import Choice, ComparedMethod, FineTune, Study, Train
from micraframe.errors import AmbiguousComponent, ConfigError, UnknownComponent


def fails(text: str, model=Train) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, model, "a.yaml")
    return str(caught.value)


def test_a_choice_is_a_name_or_a_name_with_parameters():
    read = config.parse("dataset: folder\nmethod: {name: micra-net, params: {dropout: 1e-1}}", Train)
    assert read.dataset == Choice(name="folder")
    assert read.method == Choice(name="micra-net", params={"dropout": 0.1})
    assert read.annotator.name == "micraframe/image-level"


def test_parameters_become_plain_python_values():
    read = config.parse("dataset: {name: folder, params: {a: [1, no, 1.5], b: {c: x, 3: null}}}", Train)
    assert read.dataset.params == {"a": [1, "no", 1.5], "b": {"c": "x", "3": None}}
    assert type(read.dataset.params) is dict
    assert [type(value) for value in read.dataset.params["a"]] == [int, str, float]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: folder\nsede: 3", "a.yaml:2: sede: there is no key 'sede' here; did you mean 'seed'?"),
        ("dataset: folder\n\nseed: -1", "a.yaml:3: seed: expected a number of at least 0, got -1"),
        ("dataset: folder\nseed: no", "a.yaml:2: seed: expected a whole number, got 'no'"),
        ("dataset: folder\nloggers: 3", "a.yaml:2: loggers: expected a list, got 3"),
        ("seed: 1", "a.yaml:1: dataset: expected a value, got none"),
        ("dataset:\n  name: folder\n  parms: {}", "a.yaml:3: dataset.parms: there is no key 'parms' here"),
        ("dataset: [1, 2", "a.yaml:1: this is not valid YAML"),
        ("dataset: a\ndataset: b", "this is not valid YAML"),
        ("- a\n- b", "a.yaml: expected keys and values, got a list; keys are: dataset, annotator"),
        ("", "a.yaml: expected keys and values, got nothing"),
    ],
)
def test_errors_name_file_line_and_key(text, message):
    assert message in fails(text)


def test_errors_in_lists_name_the_items_line():
    text = "datasets: [folder]\nmethods:\n  - method: micra-net\n  - method: unet\n    labl: x\n"
    assert "a.yaml:5: methods.1.labl: there is no key 'labl' here" in fails(text, Study)


def test_a_misspelt_key_is_one_error():
    text = "dataset: folder\nmethods: micra-net\n"
    assert fails(text) == "a.yaml:2: methods: there is no key 'methods' here; did you mean 'method'?"
    text = "datasets: folder\nmethod: micra-net\n"
    assert fails(text) == "a.yaml:1: datasets: there is no key 'datasets' here; did you mean 'dataset'?"


def test_a_file_for_another_command_is_named_as_such():
    study = "datasets: [folder]\nmethods: [{method: micra-net}]\n"
    for kind in (Train, FineTune):
        assert fails(study, kind) == "a.yaml: this looks like a study; use micraframe study run"
    expected = "a.yaml: expected a study, with datasets and methods, got one dataset; use micraframe "
    assert fails("dataset: folder\nmethod: micra-net\n", Study) == expected + "train"
    assert fails("dataset: folder\ntraining: {epochs: 3}\n", Study) == expected + "finetune"


def test_all_errors_of_a_file_are_listed():
    assert len(fails("dataset: a\nx: 1\ny: 2").splitlines()) == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file"):
        config.read(tmp_path / "absent.yaml", Train)


def test_resolving_writes_out_every_default_down_to_nested_components():
    resolved = config.resolve(Train(dataset=Choice(name="modified-digits", params={"size": 64})))
    assert resolved.dataset.name == "micraframe/modified-digits"
    assert resolved.dataset.params["size"] == 64
    assert resolved.dataset.params["radius"] == 25
    method = resolved.method.params
    assert method["combiner"]["name"] == "micraframe/pca"
    assert method["combiner"]["params"]["sign"] == "deepest-weighted"
    assert config.resolve(resolved) == resolved


def test_resolving_reaches_into_lists_of_models():
    study = Study(
        datasets=[Choice(name="modified-digits")], methods=[ComparedMethod(method=Choice(name="centre-blob"))]
    )
    resolved = config.resolve(study)
    assert resolved.datasets[0].name == "micraframe/modified-digits"
    assert resolved.methods[0].method.name == "micraframe/centre-blob"
    assert resolved.metrics[0].name == "micraframe/classification"


def test_resolving_names_what_is_wrong():
    with pytest.raises(UnknownComponent, match="there is no dataset 'foldr'; did you mean 'folder'?"):
        config.resolve(Train(dataset=Choice(name="foldr")))
    wrong = Choice(name="micra-net", params={"combiner": {"name": "pca", "params": {"sing": 1}}})
    with pytest.raises(ConfigError, match="combiner 'pca': there is no parameter 'sing'; did you mean 'sign'?"):
        config.resolve(Train(dataset=Choice(name="modified-digits"), method=wrong))


def test_what_is_written_reads_back_the_same():
    resolved = config.resolve(Train(dataset=Choice(name="modified-digits")))
    assert config.parse(config.to_yaml(resolved), Train) == resolved


def test_errors_in_components_name_their_line(tmp_path):
    path = tmp_path / "a.yaml"

    def fails_to_load(text: str, error=ConfigError, model=Train) -> str:
        path.write_text(text)
        with pytest.raises(error) as caught:
            config.load(path, model)
        return str(caught.value).removeprefix(str(path))

    dataset = "dataset: modified-digits\n"
    combiner = dataset + "method:\n  name: micra-net\n  params:\n    combiner:\n      name: pca\n"
    assert fails_to_load(combiner + "      params: {sing: 1}") == (
        ":7: combiner 'pca': there is no parameter 'sing'; did you mean 'sign'?"
    )
    assert fails_to_load(combiner + "    training:\n      epochz: 1") == (
        ":8: method 'micra-net': there is no parameter 'training.epochz'; did you mean 'epochs'?"
    )
    assert ":2: there is no method 'micra'" in fails_to_load(dataset + "method: micra", UnknownComponent)
    study = "datasets: [modified-digits]\nmethods:\n- method: centre-blob\n- method: centre-blub\n"
    assert ":4: there is no method 'centre-blub'" in fails_to_load(study, UnknownComponent, Study)


def test_an_error_in_several_parameters_together_is_short():
    wrong = Choice(name="folder", params={"images": "somewhere"})
    with pytest.raises(ConfigError, match="^dataset 'folder': expected at least one of [a-z, _]*, got none$"):
        config.resolve_choice("dataset", wrong)


def test_loading_is_reading_and_resolving(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("dataset: modified-digits")
    assert config.load(path, Train) == config.resolve(config.read(path, Train))


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("pca", {}),
        ("micraframe/pca", {}),
        ("pca:weight=coarse", {"weight": "coarse"}),
        ("guided:radius=4,base=null,fast=true", {"radius": 4, "base": None, "fast": True}),
        (
            "semantic:mask_threshold.name=fixed,mask_threshold.value=0.5",
            {"mask_threshold": {"name": "fixed", "value": 0.5}},
        ),
        ("select:layers=[a, b],x={c: 1, d: 'e,f'}", {"layers": ["a", "b"], "x": {"c": 1, "d": "e,f"}}),
    ],
)
def test_components_can_be_written_in_a_word(text, params):
    assert config.parse_choice(text) == Choice(name=text.partition(":")[0], params=params)


@pytest.mark.parametrize(
    "text",
    ["", ":a=1", "pca:weight", "pca:=1", "pca:a=1,a=2", "pca:a.=1", "pca:a=1,a.b=2", "pca:a.b=2,a=1", "pca:a=[1"],
)
def test_words_of_another_form_are_errors(text):
    with pytest.raises(ConfigError, match="expected|has both"):
        config.parse_choice(text)


SAME_NAMES = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 2
@hookimpl
def micraframe_components():
    from micraframe.builtin import micraframe_components
    return micraframe_components()
"""


def test_a_plugin_with_the_names_of_the_builtins_breaks_no_default(install):
    install("imitation", SAME_NAMES)
    read = config.resolve(Train(dataset=Choice(name="micraframe/modified-digits")))
    assert read.method.params["combiner"]["name"] == "micraframe/pca"
    study = Study(datasets=[read.dataset], methods=[ComparedMethod(method=Choice(name="micraframe/random-map"))])
    assert config.resolve(study).metrics[0].name == "micraframe/classification"
    with pytest.raises(AmbiguousComponent):
        config.resolve(Train(dataset=Choice(name="modified-digits")))


PLANNED = "datasets: [modified-digits]\nmethods: [{method: micra-net}, {method: centre-blob}]\n"


def test_a_study_plans_its_comparisons_in_one_way():
    read = config.parse(f"{PLANNED}comparisons: [[micra-net, centre-blob]]\nmargin: 0.05", Study)
    assert read.comparisons == [("micra-net", "centre-blob")]
    both = f"{PLANNED}comparisons: [[micra-net, centre-blob]]\nreference: centre-blob"
    for text, reason in (
        (both, "got both"),
        (f"{PLANNED}margin: 0.05", "got neither"),
        (f"{PLANNED}margin: 0", "margin"),
    ):
        with pytest.raises(ConfigError, match=reason):
            config.parse(text, Study)
