"""The arrows between packages: who may import whom. A wrong arrow fails here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAVY = {"torch", "monai", "SimpleITK", "highdicom", "sklearn", "skimage"}
NO_DICOM_NO_NETWORK_NO_SQL = {
    "dicom_node", "pydicom", "pynetdicom", "highdicom", "sqlalchemy", "alembic", "socket",
    "http", "urllib", "requests", "fastapi", "sqlite3",
}  # fmt: skip

# package or module -> the parts of dicom_node it may import (itself always)
ARROWS: dict[str, set[str]] = {
    "dicom_node.domain": set(),
    "dicom_node.clock": set(),
    "dicom_node.passwords": set(),
    "dicom_node.samples": set(),
    "dicom_node.pulse": {"clock", "domain", "errors", "store"},
    "dicom_node.logs": set(),
    "dicom_node.crash_points": set(),
    "dicom_node.durable": {"errors", "domain", "crash_points"},
    "dicom_node.durable_trees": {"durable", "crash_points"},
    "dicom_node.errors": {"domain"},
    "dicom_node.config_values": set(),
    "dicom_node.config_secrets": set(),
    "dicom_node.config_sections": {"config_values"},
    "dicom_node.config_monitoring": {"config_values", "domain"},
    "dicom_node.config": {
        "errors", "domain", "config_values", "config_sections", "config_monitoring",
    },
    "dicom_node.dicom": {"errors", "domain"},
    "dicom_node.results": {"errors", "domain", "dicom"},
    "dicom_node.annotations": {"errors", "domain", "dicom", "results"},
    "dicom_node.store": {"errors", "domain", "config", "clock", "instance"},
    "dicom_node.instance": {"errors"},
    "dicom_node.net": {
        "errors", "domain", "config", "clock", "durable", "store", "flow", "logs", "crash_points",
    },
    "dicom_node.flow": {
        "errors", "domain", "config", "clock", "durable", "store", "dicom", "results", "net",
        "logs", "annotations", "passwords", "crash_points", "samples", "durable_trees",
        "config_secrets",
    },
    "dicom_node.registry": {"errors", "domain", "config", "clock", "durable", "store", "flow",
                            "dicom"},
    "dicom_node.conformance": {"errors", "domain", "config", "dicom", "results", "net", "flow"},
}  # fmt: skip
DOOR = {"ai_core.types", "ai_core.geometry", "ai_core.errors", "ai_core"}
SIMULATE = {"dicom_node.phantom", "dicom_node.connection_study"}
DOOR_NAMES = {
    "analyse", "load_release", "write_maps", "write_labelled", "write_images", "Labels",
    "read_manifest",
    "verify_files", "packaged_release", "types", "geometry", "errors",
}  # fmt: skip


def imports_of(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every import of a file as (module, names), wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module, tuple(alias.name for alias in node.names)


def module_name(path: Path) -> str:
    """Dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sorted([*(ROOT / "ai_core").rglob("*.py"), *(ROOT / "dicom_node").rglob("*.py")])


def test_the_core_knows_no_dicom_no_network_no_database() -> None:
    wrong = [
        f"{module_name(path)} imports {module}"
        for path in SOURCES
        if module_name(path).startswith("ai_core")
        for module, _ in imports_of(path)
        if module.split(".")[0] in NO_DICOM_NO_NETWORK_NO_SQL
    ]
    assert wrong == []


def test_the_product_uses_the_core_through_one_door() -> None:
    wrong = []
    for path in SOURCES:
        name = module_name(path)
        # the synthetic studies are made by the simulator: the one other use of the core
        allowed = DOOR | ({"ai_core.sim.study"} if name in SIMULATE else set())
        for module, names in imports_of(path):
            if not name.startswith("dicom_node") or module.split(".")[0] != "ai_core":
                continue
            if module not in allowed or (module == "ai_core" and not set(names) <= DOOR_NAMES):
                wrong.append(f"{name} imports {module} {names}")
    assert wrong == []


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_arrows_inside_the_product(package: str) -> None:
    allowed = ARROWS[package] | {package.split(".")[1]}
    wrong = []
    for path in SOURCES:
        name = module_name(path)
        if name != package and not name.startswith(package + "."):
            continue
        for module, names in imports_of(path):
            if module == "dicom_node":
                parts = set(names) - {"__version__"}
            elif module.startswith("dicom_node."):
                parts = {module.split(".")[1]}
            else:
                continue
            wrong += [f"{name} imports {part}" for part in parts - allowed]
    assert wrong == []


def test_sql_stands_in_the_store_alone() -> None:
    wrong = [
        module_name(path)
        for path in SOURCES
        if not module_name(path).startswith("dicom_node.store")
        for module, _ in imports_of(path)
        if module.split(".")[0] in {"sqlalchemy", "sqlite3", "alembic", "psycopg"}
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "module",
    [
        "dicom_node.net.receiver",
        "dicom_node.flow.ingest",
        "dicom_node.flow.deliver",
        "dicom_node.flow.promote",
        "dicom_node.worker",
        "dicom_node.web.server",
        "dicom_node.cli",
        "ai_core.types",
    ],
)
def test_network_processes_stay_small(module: str) -> None:
    """Only the child that holds the model loads torch and its like."""
    assert loaded_by(module) & HEAVY == set()


def test_the_receiver_stays_smallest() -> None:
    """SciPy alone is a tenth of its memory."""
    assert "scipy" not in loaded_by("dicom_node.net.receiver, dicom_node.flow.ingest")


def loaded_by(modules: str) -> set[str]:
    """Packages that a new process holds after an import."""
    code = f"import sys, {modules}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())
