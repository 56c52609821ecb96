from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

import micraframe
from micraframe import build, catalog
from micraframe.errors import (
    AmbiguousComponent,
    ConfigError,
    InterfaceError,
    MissingDependency,
    PluginError,
    PluginWarning,
    UnknownComponent,
)
from micraframe.plugin import KINDS, Component
from micraframe.registry import load

HEADER = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 2
@hookimpl
def micraframe_components():
"""

METRIC = """
from typing import final
from pydantic import Field
from micraframe.interfaces import Metric
from micraframe.parameters import Parameters

@final
class Nothing(Metric["Nothing.Params"]):
    class Params(Parameters):
        weight: float = Field(1.0, description="A number.")

    def columns(self):
        return ()

    def measure(self, prediction, truth):
        return {}

class Abstract(Metric):
    pass

class Foreign:
    pass
"""


def offer(*components: str) -> str:
    return HEADER + f"    return [{', '.join(components)}]\n"


NOTHING = "Component('metric', 'nothing', 'fake_metrics:Nothing', 'Measures nothing')"


def rejected() -> str:
    with pytest.warns(PluginWarning) as caught:
        found = catalog()
    assert len(caught) == 1
    assert len(found.failures) == 1
    assert found.failures[0].name not in {plugin.name for plugin in found.plugins}
    assert build("combiner", "last-layer")
    return str(caught[0].message)


def test_an_installed_plugin_is_found_and_its_component_built(install):
    install("fake", offer(NOTHING), version="2.5", fake_metrics=METRIC)
    entry = catalog().find("metric", "nothing")
    assert (entry.qualified, entry.plugin.distribution, entry.plugin.version) == ("fake/nothing", "fake", "2.5")
    assert build("metric", "nothing", weight=2).params.weight == 2
    assert build("metric", "fake/nothing").params.weight == 1


def test_listing_imports_no_component(install):
    install("fake", offer(NOTHING), fake_metrics="raise RuntimeError('imported too early')")
    assert catalog().find("metric", "nothing")
    with pytest.raises(RuntimeError, match="imported too early"):
        build("metric", "nothing")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('broken at import')", "ValueError: broken at import"),
        ("MICRAFRAME_API = 2", "has no @hookimpl micraframe_components"),
        (offer(NOTHING).replace("API = 2", "API = 1"), "expected MICRAFRAME_API = 2, got 1"),
        (offer(NOTHING).replace("MICRAFRAME_API = 2", ""), "expected MICRAFRAME_API = 2, got None"),
        (offer(NOTHING, NOTHING), "offers metric 'nothing' twice"),
        (offer(NOTHING.replace("'nothing'", "'No Thing'")), "expected a name of lower-case letters"),
        (offer(NOTHING.replace("'metric'", "'metrik'")), "got 'metrik'"),
        (offer(NOTHING.replace(":", ".")), "expected a target 'package.module:Class'"),
        (offer("'nothing'"), "expected micraframe.plugin.Component records, got 'nothing'"),
        (HEADER + "    return 3\n", "TypeError"),
        (HEADER.replace("components()", "components(surprise)") + "    return []\n", "PluginValidationError"),
        (HEADER + "    raise KeyError('inside the hook')\n", "KeyError"),
        ("import sys\nsys.exit(3)", "SystemExit"),
    ],
)
def test_an_invalid_plugin_is_rejected_whole_and_everything_else_works(install, source, reason):
    install("bad", source)
    assert reason in rejected()
    failure = catalog().failures[0]
    assert (failure.name, failure.distribution) == ("bad", "bad")
    assert "Traceback" in failure.traceback


def test_a_plugin_that_offers_one_good_and_one_bad_component_offers_none(install):
    install("half", offer(NOTHING, NOTHING.replace("'nothing'", "'No Thing'")), fake_metrics=METRIC)
    rejected()
    with pytest.raises(UnknownComponent, match=r"Plugins that could not be used: half \(ValueError"):
        build("metric", "nothing")


def test_strict_raises_and_chains_the_cause(install, monkeypatch):
    install("bad", "raise ValueError('broken at import')")
    monkeypatch.setenv("MICRAFRAME_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="plugin 'bad' of bad 1.0 was rejected: ValueError") as caught:
        catalog()
    assert isinstance(caught.value.__cause__, ValueError)


def test_disabled_plugins_are_not_asked(install, monkeypatch):
    install("bad", "raise ValueError('broken at import')")
    install("fake", offer(NOTHING), fake_metrics=METRIC)
    monkeypatch.setenv("MICRAFRAME_DISABLE_PLUGINS", "bad, other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [plugin.name for plugin in catalog().plugins]
    assert names[0] == "micraframe"
    assert "fake" in names
    assert "bad" not in names


def test_a_clash_is_an_error_only_on_use_and_the_qualified_name_settles_it(install):
    install("one", offer(NOTHING), fake_metrics=METRIC)
    install("two", offer(NOTHING))
    assert not catalog().failures
    with pytest.raises(AmbiguousComponent, match="write 'one/nothing' or 'two/nothing'"):
        build("metric", "nothing")
    assert build("metric", "two/nothing").params.weight == 1


def test_nothing_overrides_a_built_in_component(install):
    install("taker", offer("Component('combiner', 'pca', 'fake_metrics:Nothing', 'Takes a name')"))
    with pytest.raises(AmbiguousComponent, match="micraframe/pca"):
        build("combiner", "pca")
    assert type(build("combiner", "micraframe/pca")).__module__ == "micraframe.combiners.pca"


def test_a_plugin_that_offers_built_in_names_breaks_no_default(install):
    """Every default and everything that the framework itself looks up is qualified."""
    from micraframe.config import Choice, Study, Train, resolve, resolve_choice
    from micraframe.pipeline import default_head

    ours = [entry for entry in catalog().entries() if entry.plugin.name == "micraframe"]
    names = [f"Component('{e.component.kind}', '{e.component.name}', 'nowhere:Nothing', 'Takes a name')" for e in ours]
    install("taker", offer(*names))
    digits = Choice(name="micraframe/modified-digits")
    resolve(Train(dataset=digits))
    resolve(Study(datasets=[digits], methods=[{"method": "micraframe/micra-net"}]))
    for entry in catalog().entries():
        if entry.plugin.name == "taker":
            continue
        params = load(entry).Params
        if all(not field.is_required() for field in params.model_fields.values()):
            resolve_choice(entry.component.kind, Choice(name=entry.qualified))
            if entry.component.kind == "method":
                resolve_choice("head", default_head(build("method", entry.qualified)))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("missing_module:Nothing", "there is no module 'missing_module'"),
        ("fake_metrics:Missing", "module 'fake_metrics' has no 'Missing'"),
        ("fake_metrics:Foreign", "expected a subclass of micraframe.interfaces.Metric"),
        ("fake_metrics:Abstract", "does not implement columns, measure of Metric"),
    ],
)
def test_an_invalid_target_is_an_error_on_use_that_names_component_and_target(install, target, reason):
    install("fake", offer(NOTHING.replace("fake_metrics:Nothing", target)), fake_metrics=METRIC)
    assert catalog().find("metric", "nothing")
    with pytest.raises(InterfaceError, match=reason) as caught:
        build("metric", "nothing")
    assert "fake/nothing" in str(caught.value)
    assert target in str(caught.value)


@pytest.mark.parametrize("code", [0, 3])
def test_a_module_that_ends_the_program_is_an_error_on_use(install, code):
    install("fake", offer(NOTHING), fake_metrics=f"import sys\nsys.exit({code})")
    with pytest.raises(InterfaceError, match=f"'fake_metrics' ended the program .exit code {code}."):
        build("metric", "nothing")


def test_a_missing_dependency_shows_the_real_error_and_its_remedy(install):
    component = NOTHING.replace("nothing')", "nothing', install='surely-missing>=2')")
    install("fake", offer(component), fake_metrics="import surely_missing")
    with pytest.raises(
        MissingDependency, match=r"No module named 'surely_missing'; install it: pip install 'surely-missing>=2'"
    ) as caught:
        build("metric", "nothing")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_unknown_name_lists_the_near_ones():
    with pytest.raises(UnknownComponent, match="there is no combiner 'pcaa'; did you mean 'pca'?"):
        build("combiner", "pcaa")
    with pytest.raises(UnknownComponent, match="there are: .*last-layer"):
        build("combiner", "zzzzzz")
    with pytest.raises(UnknownComponent, match="did you mean 'combiner'?"):
        catalog().entries("combinr")


def test_a_name_of_another_kind_is_recognised():
    with pytest.raises(UnknownComponent, match=r"no method 'semantic'; there is a head 'semantic'$"):
        catalog().find("method", "semantic")
    with pytest.raises(UnknownComponent, match="there is a head 'detection' and a metric 'detection'"):
        catalog().find("backbone", "detection")
    hint = (
        r"no combiner 'grad-cm'; did you mean the extractor 'grad-cam'; "
        "there are: evidence, guided, last-layer, pca, select"
    )
    with pytest.raises(UnknownComponent, match=hint):
        catalog().find("combiner", "grad-cm")
    # Similar to the dataset `folder`, but not nearly the same.
    with pytest.raises(
        UnknownComponent,
        match="no combiner 'holder'; there are: evidence, guided, last-layer, pca, select",
    ):
        catalog().find("combiner", "holder")
    with pytest.raises(UnknownComponent, match="there is an extractor 'grad-cam'"):
        catalog().find("combiner", "grad-cam")


def test_parameters_are_checked(install):
    install("fake", offer(NOTHING), fake_metrics=METRIC)
    with pytest.raises(ConfigError, match="there is no parameter 'wieght'; did you mean 'weight'?"):
        build("metric", "nothing", wieght=2)
    with pytest.raises(ConfigError, match="metric 'nothing': weight: .*'heavy'"):
        build("metric", "nothing", weight="heavy")


@pytest.mark.parametrize(
    ("kind", "name", "params", "message"),
    [
        ("combiner", "pca", {"weight": "corse"}, "weight: expected 'none' or 'coarse', got 'corse'"),
        ("backbone", "unet-encoder", {"widths": []}, "widths: expected 1 or more entries, got []"),
        ("metric", "overlap", {"radius": 0}, "radius: expected a number of at least 1, got 0"),
        ("metric", "overlap", {"radius": 1.5}, "radius: expected a whole number, got 1.5"),
        ("head", "semantic", {"presence_threshold": "a"}, "presence_threshold: expected a number or a list, got 'a'"),
        ("dataset", "modified-digits", {"counts": ["a"]}, "counts.0: expected a whole number or 'max', got 'a'"),
    ],
)
def test_values_that_are_not_allowed_are_explained_in_house_form(kind, name, params, message):
    with pytest.raises(ConfigError) as caught:
        build(kind, name, **params)
    assert str(caught.value) == f"{kind} {name!r}: {message}"


@pytest.mark.parametrize("entry", catalog().entries(), ids=lambda entry: f"{entry.component.kind}-{entry.qualified}")
def test_every_component_keeps_the_contract_of_its_kind(entry):
    component = load(entry)
    assert component.__doc__
    assert component.Params.model_config["extra"] == "forbid"
    assert all(field.description for field in component.Params.model_fields.values())
    assert getattr(component, "__final__", False), "a component is final: mark it with typing.final"


def test_kinds_are_all_offered_and_records_are_plain():
    assert {entry.component.kind for entry in catalog().entries()} == set(KINDS)
    with pytest.raises(AttributeError):
        Component("metric", "a", "a:A", "A").name = "b"


HEAVY = ["torch", "numpy", "pydantic", "sklearn", "skimage", "timm", "captum", "scipy", "matplotlib"]


@pytest.mark.parametrize(
    "code",
    [
        "import micraframe; micraframe.catalog(); micraframe.load",
        "import micraframe.cli, sys; sys.argv = ['micraframe', '--version']; micraframe.cli.main()",
        "import micraframe.builtin",
        "import micraframe.cli, sys; sys.argv = ['micraframe', '--help']; micraframe.cli.main()",
        "import micraframe.cli, sys; sys.argv = ['micraframe', 'list']; micraframe.cli.main()",
        "import micraframe.cli, sys; sys.argv = ['micraframe', 'list', '--json']; micraframe.cli.main()",
    ],
)
def test_what_comes_first_is_light(code):
    program = f"""
import sys
try:
    {code}
except SystemExit:
    pass
print("loaded:", [name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_the_version_is_the_distributions():
    assert catalog().plugins[0].version == micraframe.__version__
