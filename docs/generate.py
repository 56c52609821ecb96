"""Writes the pages of the site that say what the code says: commands, configuration, components, formats, studies.

`conf.py` calls `write` before every build. Each page is a pure function that returns Markdown.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import typer.main

from benchmarks.readme import table
from micraframe import builtin, config, pricing, registry
from micraframe.batch.annotators import AnnotatorStatistic
from micraframe.batch.evaluate import CurvePoint, ImageStatistic, MeasuredNumber
from micraframe.batch.findings import ClassFinding, ObjectFinding, PointFinding
from micraframe.batch.predict import OutputFiles, output_files
from micraframe.cli import app
from micraframe.cli.catalog import example_of, parameter_records
from micraframe.datasets.folder import FolderFiles
from micraframe.modelfile import FORMAT, ModelFile
from micraframe.plugin import KINDS
from micraframe.selection import LabelCriteria
from micraframe.study.tables import CostRow, Difference, Summary
from micraframe.sweep.proposals import Proposal

DOCS: Final = Path(__file__).parent
ROOT: Final = DOCS.parent
PAGES: Final = DOCS / "generated"
STUDIES: Final = ROOT / "benchmarks" / "studies"

FORMATS: Final[Mapping[str, Mapping[str, type[Any]]]] = {
    "What `predict` writes": {
        "predictions.csv": ClassFinding,
        "objects.csv": ObjectFinding,
        "points.csv": PointFinding,
    },
    "What `evaluate`, `compare-annotators` and `train` write": {
        "evaluate's `--output`": ImageStatistic,
        "evaluate's precision-recall curves": CurvePoint,
        "compare-annotators' `--output`": AnnotatorStatistic,
        "test.csv of `train`": MeasuredNumber,
    },
    "What `sweep` writes": {"proposals.csv": Proposal},
    "What a study writes": {
        "summary.csv": Summary,
        "statistics.csv": Difference,
        "costs.csv": CostRow,
        "criteria.csv, per run": LabelCriteria,
    },
    "A saved model: model.json": {f"model.json, format {FORMAT}": ModelFile},
}
"""Tables by what writes them, and the dataclass whose fields are their columns."""


def write(folder: Path = PAGES) -> None:
    """Write all generated pages; a file that would not change is left alone, so that builds are incremental."""
    pages = {
        "command-line.md": command_line(),
        "configuration.md": configuration(),
        "file-formats.md": file_formats(),
        "prices.md": prices(),
        "citations.md": citations(),
        "rooms.svg": diagram(layers()),
        "rooms.md": rooms(layers()),
        "first-steps.md": notebook(DOCS / "notebooks" / "first-steps.ipynb"),
        **{f"components/{kind}.md": components(kind) for kind in KINDS},
        "studies/overview.md": site_links((STUDIES / "README.md").read_text(encoding="utf-8"), "studies"),
        **{f"studies/{each.name}.md": study(each) for each in studies()},
        "coverage.md": site_links((ROOT / "benchmarks/coverage/README.md").read_text(encoding="utf-8"), "coverage"),
        "speed.md": site_links((ROOT / "benchmarks/speed/README.md").read_text(encoding="utf-8"), "speed"),
    }
    stale = {path for path in folder.rglob("*") if path.is_file()} - {folder / name for name in pages}
    for path in stale:
        path.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def copy_reports(site: Path) -> None:
    """Copy the reports of committed studies, with the tables that they link to, beside their pages."""
    for folder in studies():
        target = site / "generated" / "studies" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for path in (*folder.glob("*.html"), *folder.glob("*.csv"), *folder.glob("*.json")):
            shutil.copyfile(path, target / path.name)


# --- the command line


def command_line() -> str:
    """Return the page of all commands, as their `--help` describes them."""
    parts = [
        "# Command line",
        "Every command explains itself: `micraframe COMMAND --help`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 "
        "interrupted. Long work shows its progress on a terminal, and plain lines elsewhere.",
    ]
    for name, command in _commands(typer.main.get_command(app), "micraframe"):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
        words = [_metavar(each) if each.required else f"[{_metavar(each)}]" for each in arguments]
        required = [f"{each.opts[0]} {_metavar(each)}" for each in options if each.required]
        parts += [f"## {name}", "```text\n" + " ".join([name, *words, *required, "[OPTIONS]"]) + "\n```"]
        parts += [_flags_as_code(inspect.cleandoc(command.help or ""))]
        rows = [(f"`{_metavar(each)}`", "", each.help or "") for each in arguments]
        rows += [(", ".join([*each.opts, *each.secondary_opts]), _default(each), each.help or "") for each in options]
        rows = [(_flags_as_code(name), default, _flags_as_code(text)) for name, default, text in rows]
        if rows:
            parts.append(_table(("argument or option", "default", ""), rows))
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield all commands below this one that do something, with their full names."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for key, each in inner.items():
        yield from _commands(each, f"{name} {key}")


def _metavar(parameter: Any) -> str:
    several = "..." if parameter.nargs == -1 else ""
    return (parameter.metavar or parameter.name.upper().rstrip("_")) + several


def _flags_as_code(text: str) -> str:
    """Return a text with `--option` as code; two hyphens would become a dash."""
    return re.sub(r"(?<![\w`-])--[a-z][\w-]*", r"`\g<0>`", text)


def _default(option: Any) -> str:
    if option.required:
        return "required"
    shown = option.show_default and option.default is not None and not option.is_flag
    return f"`{option.default}`" if shown else ""


# --- configuration and components


def configuration() -> str:
    """Return the page of what configuration files may contain."""
    parts = [
        "# Configuration",
        "A configuration is a YAML file. A component is chosen by its name, or by name and parameters: "
        "`head: semantic` is short for `head: {name: semantic}`; parameters that are left out keep their defaults. "
        "`micraframe check FILE` prints a file with every default written out, and errors name file, line and key. "
        "The parameters of [components](/components.md) are listed by kind; `micraframe show KIND NAME` prints them.",
    ]
    for command, model in (("train", config.Train), ("finetune", config.FineTune), ("study run", config.Study)):
        description = _paragraphs(model.__doc__)[0]
        parts += [f"## {command}", description, parameter_table(model)]
    methods = "Each entry of `methods` in a study has these keys."
    parts += ["## Methods of a study", methods, parameter_table(config.ComparedMethod)]
    return "\n\n".join(parts) + "\n"


def components(kind: str) -> str:
    """Return the page of the components of a kind, with their parameters."""
    shown = f"`micraframe show {kind} NAME` prints the same."
    parts = [
        f"# Components: {kind}",
        f"What micraframe and its own plugins offer of this kind; {shown} How to write one: [](/kinds/{kind}.md).",
    ]
    for entry in _entries(kind):
        component = registry.load(entry)
        plugin = "" if entry.plugin.name == registry.BUILTIN else f"From plugin `{entry.plugin.distribution}`. "
        parts += [f"## {entry.component.name}", f"{plugin}{entry.component.summary}."]
        parts += [_markdown(component.__doc__ or "")]
        if component.Params.model_fields:
            parts.append(parameter_table(component.Params))
            example = example_of(kind, entry.component.name, component.Params)
            parts.append("In a configuration; leave out what you do not change:\n\n```yaml\n" + example + "```")
        else:
            parts.append("It has no parameters.")
        if entry.component.citation:
            parts.append(f"Cite: {entry.component.citation}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _entries(kind: str | None = None) -> list[registry.CatalogEntry]:
    """Return the components of micraframe and its own plugins, whatever else is installed."""
    own = {registry.BUILTIN, *(path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml"))}
    return [entry for entry in registry.catalog().entries(kind) if entry.plugin.name in own]


def parameter_table(model: Any) -> str:
    """Return a table of the fields of a parameter model, those of nested models included."""
    rows = []
    for each in parameter_records(model, {}):
        default = "required" if each["required"] else "" if each["nested"] else f"`{json.dumps(each['default'])}`"
        rows.append((f"`{each['parameter']}`", each["type"], default, each["description"]))
    return _table(("key", "type", "default", ""), rows)


# --- file formats


def file_formats() -> str:
    """Return the page of the files that are read and written."""
    files, written = FolderFiles.model_fields, output_files("NAME")
    parts = [
        "# File formats",
        "Positions are in pixels of the image file, (0, 0) is the centre of the first pixel; CSV files are UTF-8 with "
        "a header line, and an empty cell is an undefined number. Images may be TIFF, PNG or JPEG, 8 or 16 bits, with "
        "any number of channels. Nothing that is read can run code.",
        "## What dataset `folder` reads",
        _table(("key", ""), [(f"`{name}`", field.description or "") for name, field in files.items()]),
        "## Images that `predict` writes",
        "For an image `NAME.png`; [](/opens-in.md) says which programs open them.",
        _table(("file", ""), [(f"`{file}`", _attributes(OutputFiles)[key]) for key, file in written._asdict().items()]),
    ]
    for heading, tables in FORMATS.items():
        parts.append(f"## {heading}")
        for name, kind in tables.items():
            described = _attributes(kind)
            fields = [each.name.rstrip("_") for each in dataclasses.fields(kind)]
            title = name if "`" in name or " " in name else f"`{name}`"
            rows = [(f"`{field}`", described.get(field, "")) for field in fields]
            parts += [
                f"### {title}",
                _paragraphs(kind.__doc__)[0].replace("\n", " "),
                _table(("column or key", ""), rows),
            ]
    return "\n\n".join(parts) + "\n"


def _attributes(kind: type[Any]) -> dict[str, str]:
    """Return the descriptions of a class's attributes, its parents' first, without the underscore of `class_`."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        _, _, section = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^ {4}(\w+): ((?:.|\n {8})+)", section, re.MULTILINE):
            found[name.rstrip("_")] = " ".join(text.split())
    return found


# --- prices, citations


def prices() -> str:
    """Return the table of all prices: seconds, by preset and task."""
    rows, units = [], [each.name for each in dataclasses.fields(pricing.UnitPrice)]
    for preset, tasks in pricing.PRESETS.items():
        for task, unit in tasks.items():
            rows.append((f"`{preset}`", task, *(_seconds(getattr(unit, name)) for name in units)))
    sources = [f"- `{preset}`: {source}" for preset, source in pricing.SOURCES.items()]
    header = ("preset", "task", *(f"per {name.replace('_', ' ')}" for name in units))
    reasons = _paragraphs(pricing.__doc__)
    return "\n\n".join([*reasons[1:], _table(header, rows), "\n".join(sources)]) + "\n"


def _seconds(cost: pricing.Cost) -> str:
    return f"{cost.seconds:g} s ({cost.low:g} to {cost.high:g})" if cost.seconds else ""


def citations() -> str:
    """Return a list of what to cite for which component."""
    cited: dict[str, list[str]] = {builtin.MICRA_NET: ["method `micra-net`"]}
    for entry in _entries():
        if entry.component.citation:
            cited.setdefault(entry.component.citation, []).append(f"{entry.component.kind} `{entry.component.name}`")
    return "\n".join(f"- {', '.join(dict.fromkeys(names))}: {text}" for text, names in cited.items()) + "\n"


# --- rooms


def layers() -> list[list[str]]:
    """Return the modules of micraframe by layer, from the command line down, as import-linter enforces them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    return [re.split(r"\s*[|:]\s*", layer) for layer in contract["layers"]]


def first_line(module: str) -> str:
    """Return the first line of a module's docstring; the module is not imported."""
    path = ROOT / "micraframe" / module
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def rooms(found: Sequence[Sequence[str]]) -> str:
    """Return a table of all modules, in the order of the diagram, with what each is for."""
    rows = [(f"`{module}`", first_line(module)) for layer in found for module in layer]
    return _table(("room", "what is in it"), rows) + "\n"


def diagram(found: Sequence[Sequence[str]], width: int = 520) -> str:
    """Return an SVG: a band for each layer, a box for each module, imports going down only."""
    titles = {
        "cli": "what people call",
        "batch": "work over many files and runs",
        "selection": "choosing and tuning",
        "pipeline": "the only place that predicts",
        "best_from_labels": "methods",
        "training": "learning",
        "annotators": "components, one room for each kind",
        "batching": "arithmetic that they share",
        "config": "what a file may say",
        "pricing": "finding components, prices, tiles",
        "interfaces": "the eight kinds: start here",
        "thresholds": "rules",
        "objects": "label images",
        "parameters": "what crosses boundaries",
        "runtime": "devices, files",
        "builtin": "plugins, errors: no heavy import",
    }
    parts, y = [], 8
    for layer in found:
        x, top = 16.0, y + 20
        boxes = []
        for name in layer:
            wide = 7.4 * len(name) + 14
            if x + wide > width - 16:
                x, top = 16.0, top + 28
            boxes.append((name, x, top, wide))
            x += wide + 6
        height = top + 30 - y
        parts.append(f'<rect class="band" x="4" y="{y}" width="{width - 8}" height="{height}" rx="5"/>')
        parts.append(f'<text class="title" x="16" y="{y + 14}">{escape(titles.get(layer[0], ""))}</text>')
        for name, left, upper, wide in boxes:
            parts.append(f'<rect class="box" x="{left:.0f}" y="{upper}" width="{wide:.0f}" height="22" rx="3"/>')
            parts.append(f'<text class="name" x="{left + 7:.0f}" y="{upper + 15}">{name}</text>')
        y += height + 5
    style = (
        "text { font-family: Verdana, 'DejaVu Sans', sans-serif; fill: #222 } .title { font-size: 11px; fill: #555 } "
        ".name { font: 12px 'DejaVu Sans Mono', Menlo, monospace } .band { fill: #eef2f6; stroke: #c4ced8 } "
        ".box { fill: #fff; stroke: #7f93a8 } .ground { fill: #fff }"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 3}" role="img">'
        f"<title>The modules of micraframe, by layer</title><style>{style}</style>"
        f'<rect class="ground" width="{width}" height="{y + 3}"/>' + "".join(parts) + "</svg>\n"
    )


# --- studies


def studies() -> list[Path]:
    """Return the folders of committed studies that have results."""
    return sorted(path.parent for path in STUDIES.glob("*/summary.csv"))


def study(folder: Path) -> str:
    """Return the page of a committed study: what it asked, its table, figures, configuration and report."""
    name = folder.name
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    said = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    parts = [
        f"# {name}",
        f'<a href="{name}/report.html">The report</a> has all comparisons, pictures and a methods section; '
        f'<a href="{name}/summary.csv">summary.csv</a> has all numbers. Run on {provenance["date"]}.',
        table(folder),
    ]
    parts += [_image(path, "Quality against annotation time") for path in sorted(folder.glob("*-quality.svg"))]
    if said:
        shown = site_links(said[1].strip(), "studies")
        shown = re.sub(r"\]\(#([^)]*)\)", lambda match: f"]({_page_of_study(match[1])})", shown)
        parts += ["## What it shows", shown]
    steps = sorted(folder.glob("*-steps.jpg"))
    if steps:
        parts += ["## From maps to masks"]
        parts += [_image(path, f"Steps: {path.stem}") for path in steps[:2]]
    curves = sorted(folder.glob("*-curves.svg"))
    if curves:
        parts += ["## Training, until the validation loss settled"]
        parts += [_image(path, f"Curves: {path.stem}") for path in curves]
    written = next((ROOT / each for each in _configurations(name) if (ROOT / each).exists()), None)
    if written is not None:
        parts += ["## Configuration", f"`{written.relative_to(ROOT)}`:", _literal(written, "studies")]
    return "\n\n".join(parts) + "\n"


def _page_of_study(anchor: str) -> str:
    """Return the page, among those of studies, that a section of their README is on."""
    if anchor and (STUDIES / anchor / "summary.csv").exists():
        return f"{anchor}.md"
    return f"overview.md#{anchor}" if anchor else "overview.md"


def _configurations(name: str) -> tuple[str, ...]:
    return f"benchmarks/studies/{name}/study.yaml", f"micraframe/study/{name}.yaml"


def _image(path: Path, alternative: str) -> str:
    return f"![{alternative}]({os.path.relpath(path, PAGES / 'studies')})"


def _literal(path: Path, inside: str) -> str:
    return f"```{{literalinclude}} {os.path.relpath(path, PAGES / inside)}\n:language: yaml\n```"


def site_links(text: str, room: str) -> str:
    """Return text of `benchmarks/ROOM/README.md` with its links pointing to pages of the site.

    A link to a file that is no page of the site becomes its path.
    """
    return _linked(text, ROOT / "benchmarks" / room, PAGES / (room if room == "studies" else ""))


def page_links(text: str, page: Path) -> str:
    """Return a page of `docs/` with its links out of `docs/` pointing to what the site has of them."""
    return _linked(text, page.parent, page.parent)


def _linked(text: str, base: Path, page: Path) -> str:
    def link(match: re.Match[str]) -> str:
        words, target, anchor = match[1], Path(os.path.normpath(base / match[2])), match[3] or ""
        if target.is_relative_to(DOCS) and target.suffix in (".md", ".ipynb"):
            place = PAGES / "first-steps.md" if target.suffix == ".ipynb" else target
            return f"[{words}]({os.path.relpath(place, page)}{anchor})"
        if target.is_relative_to(DOCS):
            return match[0]
        inside = target.relative_to(ROOT) if target.is_relative_to(ROOT) else target
        if target.name == "report.html":
            place = PAGES / "studies" / target.parent.name / target.name
            return f'<a href="{os.path.relpath(place, page)}">{words}</a>'
        if inside.parts[:2] in (("benchmarks", "coverage"), ("benchmarks", "speed")):
            return f"[{words}]({os.path.relpath(PAGES / f'{inside.parts[1]}.md', page)})"
        if inside == Path("benchmarks/studies/README.md"):
            return f"[{words}]({os.path.relpath(PAGES / 'studies', page)}/{_page_of_study(anchor[1:])})"
        plain = words.strip("`")
        return f"`{plain}`" if plain == str(inside) else f"{words} (`{inside}`)"

    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|project:|/|\#)([^)#\s]+)(#[^)\s]*)?\)", link, text)


# --- the notebook


def notebook(path: Path) -> str:
    """Return an executed notebook as Markdown: its cells, with what they printed and drew."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_linked(source, path.parent, PAGES))
            continue
        parts.append(f"```python\n{source}\n```")
        parts += filter(None, map(_output, cell["outputs"]))
    return "\n\n".join(parts) + "\n"


def _output(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return "```text\n" + "".join(output["text"]).rstrip() + "\n```"
    picture = output.get("data", {}).get("image/png")
    if picture is None:
        return "```text\n" + "".join(output.get("data", {}).get("text/plain", "")) + "\n```"
    data = "".join("".join(picture).split())
    return f'<img alt="What the cell drew" src="data:image/png;base64,{data}">'


# --- Markdown


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _paragraphs(text: str | None) -> list[str]:
    return inspect.cleandoc(text or "").split("\n\n")


def _markdown(docstring: str) -> str:
    """Return a docstring in Markdown: what is indented, such as a formula, as it stands."""
    parts = []
    for paragraph in _paragraphs(docstring):
        lines = paragraph.splitlines()
        indented = any(line.startswith("    ") for line in lines) and not paragraph.startswith("- ")
        parts.append("```text\n" + paragraph + "\n```" if indented else paragraph)
    return "\n\n".join(parts)


def literal_blocks(lines: Sequence[str]) -> list[str]:
    """Return the lines of a docstring with indented and fenced blocks as reStructuredText's literal blocks."""
    found: list[str] = []
    fenced = inside = False
    for line in lines:
        if line.strip() == "```":
            fenced = not fenced
            found += ["::", ""] if fenced else [""]
            continue
        indented = line.startswith("    ")
        if indented and not inside and not fenced and (not found or not found[-1].strip()):
            found += ["::", ""]
            inside = True
        elif line.strip() and not indented:
            inside = False
        found.append(f"    {line}" if fenced else line)
    return found
