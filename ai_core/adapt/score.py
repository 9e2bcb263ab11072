"""Scores a release on prepared cases, as it would be used: candidates, likelihoods, figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.progress import track

from ai_core.adapt.console import STDERR
from ai_core.config import ModalityDropout
from ai_core.evaluate.metrics import Rows, auroc, average_precision
from ai_core.release import Release
from ai_core.train.data import LesionSamples, stream
from ai_core.train.fit import HeldOut, Row, collect_one, scored
from ai_core.train.source import Cases

NO_DROPOUT = ModalityDropout(dce=0.0, high_b=0.0, adc=0.0, t2w_only=0.0)
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def rate(release: Release, source: Cases, count: int, title: str) -> HeldOut:
    """Find and score the candidates of cases 0 to ``count`` - 1.

    Same release and source: same outcome. The title only names the progress bar.
    """
    config = release.config
    samples = LesionSamples(
        source, config, "rate", 1, NO_DROPOUT, augment=False, in_order=True, profile=release.profile
    )
    batches = stream(samples.batch, 0, 0)
    held_out = HeldOut(prevalence=config.training.prevalence, real=source.real)
    for case in track(range(count), description=title, console=STDERR):
        collect_one(case, next(batches), release, held_out)
    return held_out


@dataclass(frozen=True)
class Sheet:
    """What figures are computed from: cases, and rows by lesion (missed ones score 0)."""

    positive: Bools
    likelihood: Floats
    lesions: Rows

    def auroc(self, weight: Floats | None = None) -> float:
        """AUROC by case; ``weight`` by case."""
        rows = Rows(np.arange(len(self.positive)), self.positive, self.likelihood)
        return auroc(rows, self._weight(weight))

    def average_precision(self, weight: Floats | None = None) -> float:
        """Average precision by lesion."""
        return average_precision(self.lesions, self._weight(weight))

    def log_loss(self, weight: Floats | None = None) -> float:
        """Mean over the two classes of the log loss by case: whatever the share of cancer is."""
        w = self._weight(weight)
        p = np.clip(self.likelihood, 1e-4, 1 - 1e-4)
        loss = -np.where(self.positive, np.log(p), np.log1p(-p))
        parts = [
            float((w * loss)[chosen].sum() / w[chosen].sum())
            for chosen in (self.positive, ~self.positive)
            if w[chosen].sum() > 0
        ]
        return float(np.mean(parts)) if parts else math.nan

    def figures(self) -> dict[str, float]:
        """All figures, by name."""
        return {
            "auroc": self.auroc(),
            "average_precision": self.average_precision(),
            "log_loss": self.log_loss(),
        }

    def _weight(self, weight: Floats | None) -> Floats:
        return np.ones(len(self.positive)) if weight is None else weight


def sheet_of(held_out: HeldOut, release: Release) -> Sheet:
    """Likelihoods of a release for candidates that were found before."""
    cases = sorted(held_out.significant)
    by_case = scored(held_out, release, cases)
    rows: list[tuple[int, bool, float]] = []
    for index, case in enumerate(cases):
        hit: set[int] = set()
        for likelihood, row in by_case[case]:
            # A second candidate on one lesion is neither right nor wrong.
            if not row.significant or row.lesion not in hit:
                rows.append((index, row.significant, likelihood))
            if row.significant:
                hit.add(row.lesion)
        rows += [(index, True, 0.0)] * max(0, held_out.significant[case] - len(hit))
    stated = stated_likelihoods(by_case, release)
    positive = [held_out.significant[case] > 0 for case in cases]
    return Sheet(np.array(positive, dtype=bool), stated, _rows(rows))


def stated_likelihoods(
    by_case: Mapping[int, Sequence[tuple[float, Row]]], release: Release
) -> Floats:
    """Return what the release says of each case, from its candidates, most likely first."""
    state = release.calibration.case_likelihood
    return np.array([state(pairs[0][0] if pairs else 0.0) for pairs in by_case.values()])


def _rows(rows: Sequence[tuple[int, bool, float]]) -> Rows:
    return Rows(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=bool),
        np.array([row[2] for row in rows], dtype=np.float64),
    )
