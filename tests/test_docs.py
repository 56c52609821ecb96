"""The site: every code block runs, in a reader's order, or says why not; generated pages say what is so."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pytest
from table_files import rows_of

from micraframe import config
from micraframe.builtin import COMPONENTS
from micraframe.cli import app
from micraframe.config import Train

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

# Each page goes on in the folder in which those before it have worked.
IN_ORDER = ("walk.md", "fine-tuning.md", "large-fields.md", "thresholds.md", "audit.md", "methods.md")

# Pages whose blocks another test runs.
ELSEWHERE = {
    "python.md": "tests/test_readme.py",
    "opens-in.md": "tests/batch/test_opens_in.py",
    "first-plugin.md": "tests/test_afternoon.py",
    "afternoon.md": "tests/test_afternoon.py",
}

CODE = {"python", "console", "yaml", "toml", "bash", "sh"}
SMALL = "{name: best-from-labels, params: {epochs: 1, batch_size: 8, teacher_widths: [4, 8], student_widths: [4, 8]}}"


class Block(NamedTuple):
    language: str
    text: str
    reason: str


def pages() -> list[Path]:
    written = (path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in ("_build", "generated"))
    return sorted(written)


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, with the reason why one does not run."""
    fence = r"(?:^% not run: ([^\n]+)\n\n?)?^```([^\n]*)\n(.*?)^```$"
    for reason, language, text in re.findall(fence, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield Block(language.strip(), text, reason)


def run_page(page: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Run the blocks of a page in the current folder, with few epochs, and return the commands that ran."""
    ran, names = [], {"__name__": page.stem}
    for block in blocks(page):
        if block.language not in CODE or block.reason:
            continue
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), names)
        elif block.language == "yaml":
            text = re.sub(
                r"epochs: \d+", "epochs: 1", block.text.replace("method: best-from-labels", f"method: {SMALL}")
            )
            named = re.match(r"# (\S+\.yaml)\n", text)
            if page.name == "walk.md" or named:
                Path(named[1] if named else "nuclei.yaml").write_text(text)
            else:
                config.resolve(config.parse(f"dataset: nuclei-sample\n{text}", Train))
        else:
            assert block.language == "console", f"{page.name}: a {block.language} block says why it does not run"
            for line, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block.text, re.MULTILINE):
                program, *words = shlex.split(line, comments=True)
                assert program == "micraframe", f"{page.name}: {line} says why it does not run"
                capfd.readouterr()
                app(words, standalone_mode=False)
                printed = "".join(capfd.readouterr())
                # Numbers are those of all images, and of one processor.
                missing = {word for word in re.findall(r"[a-z_]{3,}", shown) if word not in printed}
                assert missing == set(), f"{page.name}: {line} prints other words"
                ran.append(words[0])
        if page.name == "walk.md" and block.language == "python":
            for folder, kept in (("fields", 6), ("new", 2)):  # keeps the test small
                for path in sorted(Path(folder).iterdir())[kept:]:
                    path.unlink()
    return ran


def test_the_pages_that_build_on_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = {name: run_page(DOCS / name, capfd) for name in IN_ORDER}
    walked = ["crops", "data", "check", "train", "predict", "evaluate", "remodel", "tune", "predict"]
    assert ran["walk.md"] == walked
    for folder in ("found", "found-tuned"):
        assert len([row["objects"] for row in rows_of(Path(folder, "predictions.csv"))]) == 2
    assert ran["fine-tuning.md"][:2] == ["train", "finetune"]


@pytest.mark.parametrize(
    "page",
    [page for page in pages() if str(page.relative_to(DOCS)) not in (*IN_ORDER, *ELSEWHERE)],
    ids=lambda page: str(page.relative_to(DOCS)),
)
def test_other_pages_run_by_themselves(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [block for block in blocks(page) if block.language in CODE and not block.reason]
    assert len(run_page(page, capfd)) <= sum(block.text.count("$ ") for block in runs)


def test_the_last_block_of_the_walk_runs_alone() -> None:
    tree = ast.parse([block.text for block in blocks(DOCS / "walk.md") if block.language == "python"][-1])
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in named if isinstance(node.ctx, ast.Store)} | {
        each.asname or each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }
    assert {node.id for node in named} - bound - set(dir(builtins)) == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_all_code_is_in_blocks_that_name_their_language(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert all(block.language for block in blocks(page))
    assert text.count("\n```") % 2 == 0
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\n\n    \S.*", outside) == []


def test_pages_that_another_test_runs_are_named_there() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).stem in (ROOT / test).read_text(encoding="utf-8")


def notebook() -> list[dict[str, Any]]:
    path = DOCS / "notebooks" / "first-steps.ipynb"
    assert path.stat().st_size < 300_000
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with plt.rc_context():
        plt.switch_backend("agg")
        for cell in notebook():
            exec(compile("".join(cell["source"]), "first-steps.ipynb", "exec"), names)
        plt.close("all")
    found, true = names["found"], names["true"]
    assert len(found) == len(true) == 13


def test_the_notebook_was_executed_from_top_to_bottom() -> None:
    cells = notebook()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_contents(generate: ModuleType, tmp_path: Path) -> None:
    generate.write(tmp_path)
    made = {f"generated/{path.relative_to(tmp_path).with_suffix('')}" for path in tmp_path.rglob("*.md")}
    written = {str(page.relative_to(DOCS).with_suffix("")) for page in pages()}
    listed, included = {"index"}, set()
    for page in pages():
        for block in blocks(page):
            if block.language == "{toctree}":
                for entry in re.findall(r"^(?!:)(?:.*<)?([\w/*-]+)>?$", block.text, re.MULTILINE):
                    place = (page.parent / entry).relative_to(DOCS)
                    matching = {name for name in made | written if Path(name).match(str(place))}
                    assert matching or entry.endswith("*"), f"{page.name}: {entry} is a page"
                    listed |= matching
            elif block.language.startswith("{include}"):
                included.add(block.language.split()[1].removesuffix(".md"))
    assert (made | written) - listed - included == set()


def test_generated_pages_describe_all_commands_and_components(generate: ModuleType) -> None:
    commands = generate.command_line()
    for command in app.registered_commands:
        assert f"## micraframe {command.name}\n" in commands
    assert "| `--resume` |" not in commands  # no row without its flag
    for kind, records in COMPONENTS.items():
        page = generate.components(kind)
        assert {name for name, _, _ in records} <= set(re.findall(r"^## (\S+)$", page, re.MULTILINE))
    assert "| `tuning_images` | integer (>= 0) | `50` |" in generate.configuration().replace("int (", "integer (")
    assert "| `rank` | 1 is the best of all classes. |" in generate.file_formats()


def test_the_diagram_has_every_room(generate: ModuleType) -> None:
    layers = generate.layers()
    drawn = set(re.findall(r'class="name"[^>]*>(\w+)<', generate.diagram(layers)))
    rooms = {path.stem for path in (ROOT / "micraframe").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert drawn == {name for name in rooms if not name.startswith("__")}
    assert "| `interfaces` | The eight kinds of component" in generate.rooms(layers)


def test_a_study_page_has_table_text_and_configuration(generate: ModuleType) -> None:
    page = generate.study(ROOT / "benchmarks" / "studies" / "demo")
    assert "| labels, best | image-level labels |" in page
    assert "`make demo` runs it" in page
    assert "{literalinclude} ../../../micraframe/study/demo.yaml" in page
    assert 'href="demo/report.html"' in page


def test_links_out_of_the_docs_lead_to_what_the_site_has(generate: ModuleType) -> None:
    text = (
        "[a](../benchmarks/studies/demo/report.html) [b](../benchmarks/coverage) [`c`](../micraframe/types.py) "
        "[d](walk.md#5-train) [e](../benchmarks/studies/README.md#digits) [f](https://x.org) ![g](images/gallery.jpg)"
    )
    assert generate.page_links(text, DOCS / "studies.md") == (
        '<a href="generated/studies/demo/report.html">a</a> [b](generated/coverage.md) `c` (`micraframe/types.py`) '
        "[d](walk.md#5-train) [e](generated/studies/digits.md) [f](https://x.org) ![g](images/gallery.jpg)"
    )


def test_indented_blocks_of_docstrings_become_literal(generate: ModuleType) -> None:
    lines = ["A", "", "    b", "      c", "", "D", "```", "e", "```"]
    assert generate.literal_blocks(lines) == ["A", "", "::", "", "    b", "      c", "", "D", "::", "", "    e", ""]


def test_the_notebook_becomes_a_page_with_its_pictures(generate: ModuleType) -> None:
    page = generate.notebook(DOCS / "notebooks" / "first-steps.ipynb")
    pictures = sum("image/png" in output.get("data", {}) for cell in notebook() for output in cell["outputs"])
    assert page.count("<img ") == pictures > 3
    assert page.count("```python") == len(notebook())


def test_troubleshooting_explains_errors_that_are_raised() -> None:
    raised = set()
    for path in (ROOT / "micraframe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                raised.add("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                raised.add(node.value)
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    explained = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert len(explained) >= 10
    assert [message for message in explained if not any(message in each for each in raised)] == []


def test_the_citation_has_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
