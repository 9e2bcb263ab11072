"""Writes the parts of the documentation that follow from the code. `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def states_page() -> str:
    """Return the page with the diagrams, from the tables of states."""
    from dicom_node.domain.states import TIMED_EXITS, mermaid

    exits = "\n".join(f"| {state} | {limit} |" for state, limit in TIMED_EXITS.items())
    return (
        "# States\n\nGenerated from `dicom_node/domain/states.py` by `make docs`.\n\n"
        f"## Study revision\n\n```mermaid\n{mermaid('revision')}```\n\n"
        f"## Delivery of one object to one destination\n\n```mermaid\n{mermaid('delivery')}```\n\n"
        f"## Release of the model\n\n```mermaid\n{mermaid('release')}```\n\n"
        "## What ends each state that is not final (G2)\n\n| State | At the latest |\n|---|---|\n"
        f"{exits}\n"
    )


def conformance_page() -> str:
    """Return the conformance statement of the defaults."""
    from dicom_node.config import NodeConfig
    from dicom_node.conformance.statement import statement

    return statement(NodeConfig()).markdown()


def reasons_table() -> str:
    """Return the rows of the table of reasons."""
    from dicom_node.domain.reasons import REASONS

    return "\n".join(
        f"| `{reason}` | {text.message} {text.advice} |" for reason, text in REASONS.items()
    )


def administration_page(current: str) -> str:
    """Return the administrator's page with the rows of its table of reasons made anew."""
    head, rest = current.split("| Reason | Words |\n|---|---|\n", 1)
    tail = rest[rest.index("\n\n## 5.") :]
    return f"{head}| Reason | Words |\n|---|---|\n{reasons_table()}{tail}"


def annotations_page(current: str) -> str:
    """Return the page about annotations with the rows of its table of reasons made anew."""
    from dicom_node.domain.annotation import ANNOTATION_REASONS

    rows = "\n".join(
        f"| `{reason}` ({text.state}) | {text.words} |"
        for reason, text in ANNOTATION_REASONS.items()
    )
    head, rest = current.split("| Reason | Words |\n|---|---|\n", 1)
    return f"{head}| Reason | Words |\n|---|---|\n{rows}{rest[rest.index(chr(10) * 2 + '### ') :]}"


def main() -> int:
    """Write the pages, or compare them under `--check`."""
    administration = ROOT / "docs" / "administration.md"
    annotations = ROOT / "docs" / "annotations.md"
    pages = {
        ROOT / "docs" / "states.md": states_page(),
        ROOT / "docs" / "conformance.md": conformance_page(),
        annotations: annotations_page(annotations.read_text(encoding="utf-8")),
        administration: administration_page(administration.read_text(encoding="utf-8")),
    }
    stale = [
        path for path, text in pages.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]  # fmt: skip
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not up to date: run make docs", file=sys.stderr)  # noqa: T201
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
