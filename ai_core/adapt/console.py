"""Where progress is shown: never on stdout, which may hold JSON alone."""

from __future__ import annotations

from rich.console import Console

STDERR = Console(stderr=True)
