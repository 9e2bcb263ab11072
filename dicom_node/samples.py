"""Where the packaged synthetic studies lie."""

from __future__ import annotations

from pathlib import Path

SAMPLE_FOLDER = "sample_data"


def sample(name: str) -> Path:
    """Return the path of a packaged study.

    It stands beside the packages in a checkout, and inside this package where installed.
    """
    here = Path(__file__).resolve().parent
    inside = here / SAMPLE_FOLDER / name
    return inside if inside.exists() else here.parent / SAMPLE_FOLDER / name
