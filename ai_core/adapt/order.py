"""Which studies to annotate first, and in which order annotated ones are learned.

Uncertainty of a study: spread of its most likely findings (mirrored and zoomed patches, random
subsets of the head: `ai_core.localize`), and how near its likelihood is to "could be either"
against the other studies of the site. Diversity: distance of the networks' deepest features to
those chosen already (greedy k-centre, Sener and Savarese 2018), so that not ten of a kind are asked
for.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ai_core.adapt.score import stated_likelihoods
from ai_core.calibration import logit
from ai_core.release import Release
from ai_core.resume import write_json
from ai_core.train.fit import HeldOut, scored

Floats = npt.NDArray[np.float64]
#: Findings whose spread counts, and the log-odds over which "could be either" fades.
TOP = 2
FADE = 1.5


@dataclass(frozen=True)
class Uncertain:
    """How little a release knows about a study; all 0-1."""

    uncertainty: float
    spread: float
    likelihood: float


def uncertainties(held_out: HeldOut, release: Release) -> list[Uncertain]:
    """Return the uncertainty of each case, in their order."""
    cases = sorted(held_out.significant)
    by_case = scored(held_out, release, cases)
    best = stated_likelihoods(by_case, release)
    spread = np.array(
        [max((row.spread for _, row in by_case[c][:TOP]), default=0.0) for c in cases]
    )
    odds = np.array([logit(float(p)) for p in best])
    # "Either" is where the site's studies divide: the share of cancer in use above, the rest below.
    middle = float(np.quantile(odds, 1 - release.config.training.prevalence)) if len(odds) else 0.0
    near = np.exp(-(((odds - middle) / FADE) ** 2))
    total = (_ranks(spread) + _ranks(near)) / 2
    return [
        Uncertain(round(float(u), 4), round(float(s), 4), round(float(p), 4))
        for u, s, p in zip(total, spread, best, strict=True)
    ]


def _ranks(values: Floats) -> Floats:
    """Ranks from above 0 to 1; equal values share theirs."""
    if not len(values):
        return values
    return np.array([float((values <= v).mean() + (values < v).mean()) / 2 for v in values])


def diverse_order(uncertainty: Sequence[float], embeddings: Sequence[Floats]) -> list[int]:
    """Return all cases, most worth annotating first: uncertain, and unlike those before."""
    if not len(uncertainty):
        return []
    unsure = np.array(uncertainty)
    table = np.stack([np.asarray(e, dtype=np.float64) for e in embeddings])
    table = (table - table.mean(0)) / np.maximum(table.std(0), 1e-6)
    order = [int(unsure.argmax())]
    distance = np.linalg.norm(table - table[order[0]], axis=1)
    while len(order) < len(unsure):
        scale = max(float(distance.max()), 1e-9)
        worth = np.where(np.isin(np.arange(len(unsure)), order), -1.0, unsure * distance / scale)
        order.append(int(worth.argmax()))
        distance = np.minimum(distance, np.linalg.norm(table - table[order[-1]], axis=1))
    return order


@dataclass(frozen=True)
class Wanted:
    """A study that should be annotated."""

    rank: int
    name: str
    uncertainty: float
    spread: float
    likelihood: float


def write_wanted(wanted: Sequence[Wanted], folder: Path) -> None:
    """Write the list as JSON (for `dicom-node annotations wanted`) and CSV."""
    rows = [asdict(one) for one in wanted]
    write_json(folder / "to-annotate.json", {"format": 1, "wanted": rows})
    with (folder / "to-annotate.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(Wanted.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(rows)
