"""Wording shared by the objects. ASCII only: encodable in whatever character set is copied."""

from __future__ import annotations

import unicodedata

from ai_core.types import Finding, ReleaseInfo
from dicom_node.results.equipment import RUO_SUFFIX
from dicom_node.results.request import ResultRequest


def ascii_text(text: str) -> str:
    """Return the text in printable ASCII: accents dropped, other characters replaced by ``?``.

    Backslash and tilde are replaced as well: they mean something else in some character sets.
    """
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c < "~" and c != "\\" else "?" for c in plain)


def series_description(words: str, request: ResultRequest) -> str:
    """Return the description of one of our series: content, revision, caveat (LO, 64)."""
    revision = f" rev {request.revision}" if request.revision > 1 else ""
    return f"{words}{revision}{RUO_SUFFIX}"


def percent(fraction: float) -> float:
    """Return a fraction as a percentage with one decimal."""
    return round(100.0 * fraction, 1)


def index_words(finding: Finding, release: ReleaseInfo) -> str:
    """Return the suspicion of a finding in words that do not claim more than the release allows."""
    value = f"{percent(finding.likelihood):g} %"
    if release.calibrated_on_real_cases:
        return f"likelihood of csPCa {value}"
    return f"AI suspicion index {value} (not a probability)"
