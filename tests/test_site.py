"""The documentation is built as a site: links, anchors and the place of every page are right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.interop.peers import require

pytestmark = [pytest.mark.slow, pytest.mark.interop]


def _require_tools() -> None:
    """Skip where the extra [docs] or Graphviz is missing; fail under ``INTEROP_REQUIRED=1``."""
    if os.environ.get("INTEROP_REQUIRED") != "1":
        pytest.importorskip("furo", reason="the site needs the extra [docs]")
    require("dot")


def _build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet",
         "-b", "html", str(source), str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    _require_tools()
    done = _build(ROOT / "docs", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r'<(?:script|img|link|iframe|object)[^>]*(?:src|href|data)="([^"]+)"', text
        )
        assert [one for one in loaded if re.match(r"(https?:)?//", one)] == [], page.name
    states = (tmp_path / "site" / "states.html").read_text(encoding="utf-8")
    assert states.count(".svg") >= 3, "the diagrams are drawn"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](core.md#no-such-heading)", "no-such-heading"),
    ],
    ids=["page", "anchor"],
)
def test_a_broken_link_is_an_error(tmp_path: Path, line: str, said: str) -> None:
    _require_tools()
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text(encoding="utf-8"))
    (docs / "site").mkdir()
    (docs / "site" / "site.css").write_text("")
    (docs / "index.md").write_text(f"# Start\n\n{line}\n")
    (docs / "core.md").write_text("# The core\n")
    done = _build(docs, tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stderr
