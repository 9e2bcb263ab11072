"""Agreement of two releases over the studies that both analysed. Pure: no truth is involved."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SAME_PLACE_MM = 10.0
"""First findings that lie closer than this count as the same place."""
_Z95 = 1.959964


@dataclass(frozen=True)
class FindingSummary:
    """One finding of a shadowed study; likelihood 0-1."""

    center_lps_mm: tuple[float, float, float]
    likelihood: float
    volume_ml: float
    significant: bool
    suspicion_score: float
    sector: str


@dataclass(frozen=True)
class Summary:
    """What one release said of a study. ``seconds``: of its analysis."""

    likelihood: float
    significant: bool
    gland_ml: float
    seconds: float
    findings: tuple[FindingSummary, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two releases on one study. ``second`` is None where it failed (``error`` says why).

    Dice coefficients 0-1; None where neither release outlined anything.
    """

    first: Summary
    second: Summary | None
    dice_gland: float | None = None
    dice_lesions: float | None = None
    error: str = ""

    def turned(self) -> Pair | None:
        """Return the pair the other way round; None where one side failed."""
        if self.second is None:
            return None
        return Pair(self.second, self.first, self.dice_gland, self.dice_lesions)


@dataclass(frozen=True)
class Agreement:
    """Figures over pairs. Differences are second minus first, in percentage points.

    ``labels``: studies by the case label of (first, second). ``interval``: 95 %, Wilson, of
    ``agreement``. ``limits``: mean difference -+ 1.96 standard deviations (Bland and Altman 1986).
    ``kappa``: Cohen 1960; None where both releases gave one and the same label throughout.
    """

    studies: int
    failed: int
    labels: Mapping[str, int] = field(default_factory=dict)
    agreement: float | None = None
    interval: tuple[float, float] | None = None
    kappa: float | None = None
    mean_difference: float | None = None
    limits: tuple[float, float] | None = None
    median_dice_gland: float | None = None
    median_dice_lesions: float | None = None
    same_first_finding: tuple[int, int] = (0, 0)
    """of so many studies in which both have a finding: (same place, studies)"""
    median_seconds: tuple[float, float] | None = None


def agreement_of(pairs: Sequence[Pair]) -> Agreement:
    """Compute the figures; a pair in which the second release failed only counts as failed."""
    whole = [(pair, pair.second) for pair in pairs if pair.second is not None]
    failed = len(pairs) - len(whole)
    if not whole:
        return Agreement(0, failed)
    both = [(pair.first, second) for pair, second in whole]
    labels = {
        "both": sum(a.significant and b.significant for a, b in both),
        "first_only": sum(a.significant and not b.significant for a, b in both),
        "second_only": sum(b.significant and not a.significant for a, b in both),
        "neither": sum(not a.significant and not b.significant for a, b in both),
    }
    same = labels["both"] + labels["neither"]
    differences = [100 * (b.likelihood - a.likelihood) for a, b in both]
    mean = statistics.fmean(differences)
    spread = 1.96 * statistics.stdev(differences) if len(differences) > 1 else None
    placed = [_same_place(a, b) for a, b in both if a.findings and b.findings]
    return Agreement(
        studies=len(both),
        failed=failed,
        labels=labels,
        agreement=same / len(both),
        interval=wilson(same, len(both)),
        kappa=_kappa(labels),
        mean_difference=mean,
        limits=None if spread is None else (mean - spread, mean + spread),
        median_dice_gland=_median(pair.dice_gland for pair, _ in whole),
        median_dice_lesions=_median(pair.dice_lesions for pair, _ in whole),
        same_first_finding=(sum(placed), len(placed)),
        median_seconds=(
            statistics.median(a.seconds for a, _ in both),
            statistics.median(b.seconds for _, b in both),
        ),
    )


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927)."""
    share, z2 = hits / count, _Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _kappa(labels: Mapping[str, int]) -> float | None:
    count = sum(labels.values())
    first = (labels["both"] + labels["first_only"]) / count
    second = (labels["both"] + labels["second_only"]) / count
    by_chance = first * second + (1 - first) * (1 - second)
    if by_chance == 1:
        return None
    return ((labels["both"] + labels["neither"]) / count - by_chance) / (1 - by_chance)


def _same_place(a: Summary, b: Summary) -> bool:
    return math.dist(a.findings[0].center_lps_mm, b.findings[0].center_lps_mm) <= SAME_PLACE_MM


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
