"""A document of sections and tables, as Markdown for people and as rows for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns. ``key`` names the table for programs, for good."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.key}: every row needs {len(self.columns)} cells")

    def as_dicts(self) -> list[dict[str, Cell]]:
        """Return the rows by name of column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


Block = str | Table
"""A paragraph of text, or a table."""


@dataclass(frozen=True)
class Section:
    """A heading with its number as PS3.2 Annex N gives it, and what stands under it."""

    number: str
    title: str
    blocks: tuple[Block, ...] = ()

    @property
    def heading(self) -> str:
        """Number and title in one line."""
        return f"{self.number} {self.title}"

    @property
    def depth(self) -> int:
        """0 for a chapter or an annex, one more for each level below."""
        return 0 if self.number.startswith("Annex") else min(self.number.count("."), 3)


@dataclass(frozen=True)
class Document:
    """A whole statement: title, what it is about, and its sections in order."""

    title: str
    about: Table
    sections: tuple[Section, ...]

    def tables(self) -> Iterator[Table]:
        """Return every table in order."""
        yield self.about
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Table))

    def table(self, key: str) -> Table:
        """Return the table of a key.

        Raises:
            KeyError: there is none.
        """
        for table in self.tables():
            if table.key == key:
                return table
        raise KeyError(key)

    def as_dict(self) -> dict[str, object]:
        """Return the tables for programs: rows by key of the table."""
        return {
            "title": self.title,
            "tables": {table.key: table.as_dicts() for table in self.tables()},
        }

    def markdown(self) -> str:
        """Return the document as Markdown (tables as GitHub writes them)."""
        parts = [f"# {self.title}", _table(self.about)]
        for section in self.sections:
            parts.append(f"{'#' * (2 + section.depth)} {section.heading}")
            parts += [b if isinstance(b, str) else _table(b) for b in section.blocks]
        return "\n\n".join(parts) + "\n"


def contents(sections: Sequence[Section]) -> str:
    """Return the list of the sections of the first level."""
    return "\n".join(f"- {part.heading}" for part in sections if part.depth == 0)


def _table(table: Table) -> str:
    lines = [
        f"*{table.title}*",
        "",
        "| " + " | ".join(table.columns) + " |",
        "|" + "---|" * len(table.columns),
    ]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in table.rows]
    return "\n".join(lines)


def _cell(value: Cell) -> str:
    if isinstance(value, bool):
        return "Y" if value else "N"
    text = "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
