"""What a documented command says, held against the programs: commands, options, paths, targets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
from typer.main import get_command

from ai_core.cli import app as core_app
from dicom_node.cli import app as node_app
from tests.pages import ROOT

PROGRAMS: dict[str, Any] = {
    "dicom-node": get_command(node_app),
    "ai-core": get_command(core_app),
}
_MODULES = {"dicom_node": "dicom-node", "ai_core.cli": "ai-core"}
_ENDS = re.compile(r"[|&;<>()]+")
_OUR_PATH = re.compile(
    r"(?<![\w/.$-])(?:ai_core|configs|deploy|dicom_node|docs|sample_data|tests|tools)/[\w./*-]+"
)


def calls(command: str) -> Iterator[tuple[str, list[str]]]:
    """Every call of a program of this project in a shell command, as (program, arguments)."""
    lexer = shlex.shlex(command.replace("$(", " ( "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for place, word in enumerate(words):
        name = _MODULES.get(word, word.rsplit("/", 1)[-1])
        if name in PROGRAMS and (place == 0 or words[place - 1] != "cp"):
            rest = words[place + 1 :]
            end = next((n for n, one in enumerate(rest) if _ENDS.fullmatch(one)), len(rest))
            yield name, [re.sub(r"\$\{?\w+\}?", "1", one) for one in rest[:end]]


def wrong_call(program: str, arguments: list[str]) -> str | None:
    """What the parser of the program has against the arguments; None: nothing. Nothing runs."""
    command, rest, path = PROGRAMS[program], list(arguments), program
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            return f"{path} has no command {rest[:1]}"
        path, command = f"{path} {rest[0]}", command.commands[rest.pop(0)]
    try:
        command.make_context(path, rest)
    except click.exceptions.Exit:
        return None
    except Exception as error:
        return f"{path}: {getattr(error, 'message', error)}"
    return None


def wrong_paths(text: str) -> list[str]:
    """Paths of the checkout that a text names and that are not there; patterns must find one."""
    named = (match[0].rstrip(".") for match in _OUR_PATH.finditer(text))
    return [path for path in named if not any(ROOT.glob(path.rstrip("/")))]


def wrong_targets(command: str) -> list[str]:
    """Words of `make` in a command that the Makefile does not know."""
    known = set(re.findall(r"^([a-z_]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    match = re.match(r"make((?: [a-z_]+)+)(?= |$)", command)
    return [word for word in match[1].split() if word not in known] if match else []


def wrong_mention(code: str) -> str | None:
    """What is wrong with an inline mention such as ``dicom-node peers add, list``, or None."""
    words = code.split()
    if words[0].startswith("--") and words[0] not in ALL_OPTIONS:
        return f"no command has {words[0]}"
    groups = PROGRAMS["dicom-node"].commands
    if len(words) > 1 and hasattr(groups.get(words[0]), "commands"):
        words = ["dicom-node", *words]
    if words[0] not in PROGRAMS:
        return None
    command = PROGRAMS[words[0]]
    for word in words[1:]:
        if hasattr(command, "commands"):
            if word in ("...", "--help"):
                break
            name = word.rstrip(",")
            if name not in command.commands:
                return f"{code!r}: no command {name!r}"
            command = command if word.endswith(",") else command.commands[name]
        elif word.startswith("--") and word.rstrip(",") not in _options(command):
            return f"{code!r}: no option {word}"
    return None


def _options(command: Any) -> set[str]:
    own = {text for one in command.params for text in (*one.opts, *one.secondary_opts)}
    return {*own, "--help"}


def _all_options(command: Any) -> set[str]:
    below = getattr(command, "commands", {}).values()
    return _options(command).union(*(_all_options(one) for one in below))


ALL_OPTIONS = set[str]().union(*map(_all_options, PROGRAMS.values()))
