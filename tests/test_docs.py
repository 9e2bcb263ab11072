"""The documentation keeps up with the code, and every setting is described."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from dicom_node.config import NodeConfig
from dicom_node.config_text import commented_default
from dicom_node.net.access import Refusal
from tests.conftest import ROOT


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_setting_is_described_where_it_is_written() -> None:
    text = commented_default()
    for section, info in NodeConfig.model_fields.items():
        if section == "peers":
            continue
        assert f"[{section}]" in text
        model = info.annotation
        assert isinstance(model, type)
        for name, setting in model.model_fields.items():  # type: ignore[attr-defined]
            assert setting.description, f"{section}.{name} has no description"
            assert re.search(rf"^{name} = .*# {re.escape(setting.description)}$", text, re.M)


def test_every_reason_of_a_refusal_is_explained() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert [reason for reason in Refusal if f"`{reason}`" not in text] == []


def test_guarantees_have_tests_of_their_number_where_the_readme_says() -> None:
    rows = re.findall(r"^\| (G\d) \|.*\| (.*) \|$", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert [number for number, _ in rows] == [f"G{n}" for n in range(1, 8)]
    for number, folders in rows:
        for folder in re.findall(r"`(tests/\w+)`", folders):
            texts = (path.read_text("utf-8") for path in (ROOT / folder).glob("*.py"))
            named = re.compile(rf"^\s*def test(_G\d)*_{number}_", re.M | re.I)
            assert any(named.search(text) for text in texts), f"{number}: none in {folder}"


def _shown(page: Path) -> str:
    return re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.S)


def test_links_between_pages_exist() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", _shown(page))
        if not (page.parent / target).exists()
    ]
    assert broken == []
