"""The site of the documentation: Sphinx reads the Markdown pages as they are (`make site`).

The pages stay plain Markdown that a code host shows too. What a site needs beside them stands
here: the order of the pages, and the drawing of the diagrams of states.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.graphviz import graphviz
from sphinx.util.docutils import SphinxDirective

HERE = Path(__file__).parent

project = "Prostate DICOM Node"
copyright = "the authors, Apache-2.0. Research software, not a medical device"
extensions = ["myst_parser", "sphinx.ext.graphviz", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["images"]

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["myst.header"]  # a page may begin a part at the third level

html_theme = "furo"
html_title = project
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
graphviz_output_format = "svg"
copybutton_exclude = ".linenos, .gp, .c1"  # a comment after a command is for the reader

# The three doors. A page that is not there is left out; one that stands in no list is an error.
NAVIGATION = {
    "Administrator": [
        "getting-started", "administration", "console", "monitoring", "retention", "deployment",
        "conformance", "troubleshooting",
    ],
    "Radiologist": ["radiologist", "results", "annotations"],
    "Physicist and developer": [
        "core", "models", "adaptation", "multi-site", "performance", "reliability", "states",
        "developing", "decisions/README",
    ],
}  # fmt: skip
SHORT = {
    "conformance": "Conformance statement",
    "models": "Models",
    "adaptation": "Adaptation",
    "multi-site": "Several sites",
    "annotations": "Annotations",
}
"""Titles in the navigation, where that of the page is long."""
BELOW = {
    "adaptation": ["figures/adapt/README"],
    "multi-site": ["figures/multi-site/multi-site"],
    "decisions/README": sorted(
        f"decisions/{path.stem}" for path in (HERE / "decisions").glob("[0-9]*.md")
    ),
}


class StateDiagram(SphinxDirective):
    """A mermaid ``stateDiagram-v2``, drawn by Graphviz: the site then needs no script for it."""

    has_content = True
    edge = re.compile(r"(?P<start>\[\*\]|\w+) --> (?P<end>\[\*\]|\w+)(?:: (?P<event>\w+))?")

    def run(self) -> list[nodes.Node]:
        """Return the graph; events between the same two states share an arrow."""
        lines = [
            "digraph { rankdir=TB; bgcolor=transparent; nodesep=0.35; ranksep=0.45;",
            'node [shape=box style="rounded,filled" fillcolor="#eef3f8" color="#5b7186"'
            ' fontname="Helvetica" fontsize=12];',
            'edge [color="#5b7186" fontname="Helvetica" fontsize=10 fontcolor="#33475b"];',
        ]
        arrows: dict[tuple[str, str], list[str]] = {}
        for found in filter(None, map(self.edge.search, self.content)):
            start, end = found["start"], found["end"]
            if end == "[*]":
                lines.append(f'"{start}" [peripheries=2];')
            elif start == "[*]":
                lines.append(f'"" [shape=point]; "" -> "{end}";')
            else:
                events = arrows.setdefault((start, end), [])
                events.append((found["event"] or "").replace("_", " "))
        for (start, end), events in arrows.items():
            label = "".join(rf"{event}\l" for event in events)
            lines.append(f'"{start}" -> "{end}" [label="{label}"];')
        drawn = graphviz("", code="\n".join([*lines, "}"]), options={"docname": self.env.docname})
        return [nodes.container("", drawn, classes=["diagram"])]


def _entry(page: str) -> str:
    return f"{SHORT[page]} </{page}>" if page in SHORT else f"/{page}"


def _toctree(pages: list[str], caption: str = "") -> str:
    there = [page for page in pages if (HERE / f"{page}.md").exists()]
    head = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "", "```{toctree}", *head, "", *map(_entry, there), "```", ""])


def _add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += "".join(_toctree(pages, door) for door, pages in NAVIGATION.items())
    elif page in BELOW:
        source[0] += _toctree(BELOW[page])


def _links_out_of_the_site(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the README of the checkout the start page."""
    source[0] = source[0].replace("](../README.md)", "](index.md)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Bind what stands above to Sphinx."""
    app.add_directive("mermaid", StateDiagram)
    app.connect("source-read", _add_navigation)
    app.connect("source-read", _links_out_of_the_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
