"""The pages of the documentation as data: fenced blocks with how they are tested, inline code.

The word after the language of a shell block says how its commands are tested:

- ``sh run``: here, in a sandbox with a store, a study and a PACS (``tests/test_docs_commands.py``);
  ``sh run serve``: the same, with the node running;
- ``sh test: FILE``: by that test, which holds the same commands or reads the page;
- ``sh parse: WHY``: not run, for that reason; options, paths and targets are checked.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHELL = {"sh", "bash", "console"}
LANGUAGES = {*SHELL, "toml", "json", "yaml", "ini", "lua", "python", "text", "mermaid"}
_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^ *```$", re.M | re.S)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    how: str
    """what stands behind the language: how it is tested"""
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def shell(self) -> bool:
        return self.language in SHELL

    @property
    def commands(self) -> list[str]:
        """Its commands, one by one: continued lines joined, comments and prompts left out."""
        joined = self.text.replace("\\\n", " ")
        if self.language == "console":
            joined = "\n".join(line[2:] for line in joined.splitlines() if line[:2] == "$ ")
        lines = (re.sub(r"(^|\s+)#\s.*$", "", line).strip() for line in joined.splitlines())
        return [re.sub(r"\s+", " ", line) for line in lines if line]

    @property
    def script(self) -> str:
        """What a shell is given: the text as it stands, without prompts."""
        return "\n".join(self.commands) if self.language == "console" else self.text


def pages() -> list[Path]:
    """Every page that people read, in order."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return found + sorted((ROOT / "deploy").rglob("*.md"))


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
    found = []
    for match in _FENCE.finditer(text):
        language, _, how = match[2].strip().partition(" ")
        line = text[: match.start()].count("\n") + 1
        found.append(Block(name, line, language, how.strip(), textwrap.dedent(match[3])))
    return found


def blocks() -> list[Block]:
    """The fenced blocks of every page."""
    return [block for page in pages() for block in blocks_of(page)]


def inline_code(page: Path) -> list[str]:
    """What stands in backticks in the text of a page, outside the fenced blocks."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return _INLINE.findall(re.sub(r"(?<!\n)\n(?![\n|])", " ", prose))
