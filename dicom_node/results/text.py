"""Wording shared by the objects. ASCII only: encodable in whatever character set is copied."""

from __future__ import annotations

import unicodedata

from ai_core.types import Finding, Gland, ReleaseInfo
from dicom_node.results.codes import finding_site
from dicom_node.results.equipment import RUO_SUFFIX
from dicom_node.results.request import Psa, ResultRequest


def ascii_text(text: str) -> str:
    """Return the text in printable ASCII: accents dropped, other characters replaced by ``?``.

    Backslash and tilde are replaced as well: they mean something else in some character sets.
    """
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c < "~" and c != "\\" else "?" for c in plain)


def series_description(words: str, request: ResultRequest) -> str:
    """Return the description of one of our series: AI, revision, content, caveat (LO, 64).

    The revision stands early: OHIF shows the first 24 characters or so.
    """
    revised = f"AI rev {request.revision} " if request.revision > 1 else "AI "
    return f"{words.replace('AI ', revised, 1)}{RUO_SUFFIX}"


def percent(fraction: float) -> float:
    """Return a fraction as a percentage with one decimal."""
    return round(100.0 * fraction, 1)


def index_words(finding: Finding, release: ReleaseInfo) -> str:
    """Return the suspicion of a finding in words that do not claim more than the release allows."""
    value = f"{percent(finding.likelihood):g} %"
    if release.calibrated_on_real_cases:
        return f"likelihood of csPCa {value}"
    return f"AI suspicion index {value} (not a probability)"


def psa_density(psa: Psa | None, gland: Gland) -> float | None:
    """PSA over gland volume in ng/mL/cm3, two decimals; None without a PSA or a volume."""
    if psa is None or gland.volume_ml <= 0:
        return None
    return round(psa.value_ng_ml / gland.volume_ml, 2)


def site_words(finding: Finding) -> str:
    """Return where a finding lies, as its code says it."""
    site, side = finding_site(finding.sector)
    words = site.meaning.removesuffix(" of prostate")
    return f"{words}, {side.meaning.lower()}" if side else words


def finding_words(finding: Finding) -> str:
    """Return the measurements of a finding in words."""
    parts = [
        f"volume {finding.volume_ml:.2f} ml",
        f"longest diameter {finding.longest_diameter_mm:.1f} mm",
        f"AI suspicion score {finding.suspicion_score:.1f} of 5",
    ]
    if finding.mean_adc_um2_s is not None:
        parts.append(f"mean ADC {finding.mean_adc_um2_s:.0f} x 10-6 mm2/s")
    marked = "" if finding.significant else "not "
    parts.append(f"{marked}marked as clinically significant by the AI")
    return ", ".join(parts)
