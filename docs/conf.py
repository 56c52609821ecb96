"""The documentation site: `make docs` builds it, offline; any warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import generate  # noqa: E402

import micraframe  # noqa: E402

project = "micraframe"
author = "the micraframe developers"
copyright = f"2026, {author}"
release = micraframe.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "notebooks", "generated/prices.md", "generated/citations.md", "generated/rooms.md"]
root_doc = "index"

html_theme = "furo"
html_title = f"micraframe {release}"
html_static_path: list[str] = []
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# Docstrings are plain text with `code` in single backquotes, which reStructuredText calls the default role.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_include_init_with_doc = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "Params, __init__, __new__"}
python_maximum_signature_line_length = 88

# The build is offline, so there are no inventories of other projects: their names cannot be links.
_ELSEWHERE = (
    "numpy np npt torch nn pydantic pydantic_core annotated_types pluggy pathlib collections typing types enum abc"
)
# Names as annotations write them, of Python and other projects, that are imported for type checks only.
_SHORT = "int float str bool bytes dict list tuple set object type NoneType Path Tensor Exception UserWarning FieldInfo"
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(_ELSEWHERE.split())})\..*"),
    ("py:.*", rf"({'|'.join(_SHORT.split())}|Le|Ge|\w+Error)"),
    # Type variables stand for types and have no entry; parameters are in the reference of components.
    ("py:.*", r"micraframe\.(interfaces\.[PH]|config\.Config|pricing\.Key)|\w+\.Params"),
]

_COLON = "\ufff0"


def setup(app: Any) -> dict[str, bool]:
    """Write the generated pages before a build, and copy the studies' reports after it."""
    app.connect("builder-inited", lambda app: generate.write())
    app.connect("source-read", _link)
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _colons, priority=600)  # after it
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _link(app: Any, name: str, source: list[str]) -> None:
    if not name.startswith("generated/"):
        source[0] = generate.page_links(source[0], Path(app.srcdir) / f"{name}.md")


def _plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what == "module":
        lines[:] = generate.literal_blocks(lines)
    elif what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", _COLON) for line in lines]  # or napoleon takes what is before one for a type


def _colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _copy(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.name == "html":
        generate.copy_reports(Path(app.outdir))
