from __future__ import annotations

import pytest

from micraframe import config
from micraframe.config import Choice, Contender, Study, Train
from micraframe.errors import ConfigError, UnknownComponent


def fails(text: str, model=Train) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, model, "a.yaml")
    return str(caught.value)


def test_a_choice_is_a_name_or_a_name_with_parameters():
    read = config.parse("dataset: folder\nmethod: {name: micra-net, params: {dropout: 1e-1}}", Train)
    assert read.dataset == Choice(name="folder")
    assert read.method == Choice(name="micra-net", params={"dropout": 0.1})
    assert read.annotator.name == "image-level"


def test_parameters_become_plain_python_values():
    read = config.parse("dataset: {name: folder, params: {a: [1, no, 1.5], b: {c: x, 3: null}}}", Train)
    assert read.dataset.params == {"a": [1, "no", 1.5], "b": {"c": "x", "3": None}}
    assert type(read.dataset.params) is dict
    assert [type(value) for value in read.dataset.params["a"]] == [int, str, float]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: folder\nsede: 3", "a.yaml:2: sede: there is no key 'sede' here; there are: dataset, annotator"),
        ("dataset: folder\n\nseed: -1", "a.yaml:3: seed: Input should be greater than or equal to 0"),
        ("seed: 1", "a.yaml:1: dataset: Field required"),
        ("dataset:\n  name: folder\n  parms: {}", "a.yaml:3: dataset.parms: there is no key 'parms' here"),
        ("dataset: [1, 2", "a.yaml:1: this is not YAML"),
        ("dataset: a\ndataset: b", "this is not YAML"),
        ("- a\n- b", "a.yaml: a mapping of keys to values is wanted"),
        ("", "a.yaml: a mapping of keys to values is wanted"),
    ],
)
def test_errors_say_file_line_and_key(text, message):
    assert message in fails(text)


def test_errors_in_lists_say_the_items_line():
    text = "datasets: [folder]\ncontenders:\n  - method: micra-net\n  - method: unet\n    labl: x\n"
    assert "a.yaml:5: contenders.1.labl: there is no key 'labl' here" in fails(text, Study)


def test_every_error_of_a_file_is_said_at_once():
    assert len(fails("dataset: a\nx: 1\ny: 2").splitlines()) == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
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
    study = Study(datasets=[Choice(name="modified-digits")], contenders=[Contender(method=Choice(name="centre-blob"))])
    resolved = config.resolve(study)
    assert resolved.datasets[0].name == "micraframe/modified-digits"
    assert resolved.contenders[0].method.name == "micraframe/centre-blob"
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


def test_what_is_wrong_with_a_component_is_said_with_its_line(tmp_path):
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
    study = "datasets: [modified-digits]\ncontenders:\n- method: centre-blob\n- method: centre-blub\n"
    assert ":4: there is no method 'centre-blub'" in fails_to_load(study, UnknownComponent, Study)


def test_what_is_wrong_with_several_parameters_together_is_said_in_short():
    wrong = Choice(name="folder", params={"images": "somewhere"})
    with pytest.raises(ConfigError, match="^dataset 'folder': nothing is known of the images: give [a-z, _]*$"):
        config.resolve_choice("dataset", wrong)


def test_loading_is_reading_and_resolving(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("dataset: modified-digits")
    assert config.load(path, Train) == config.resolve(config.read(path, Train))
