"""After training: calibration, significance model and figures, on simulated cases held out.

Even cases fit, odd cases are measured, so that no figure is from cases that set a number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ai_core.calibration import Calibration, logit
from ai_core.features import FEATURES, Features, Scene, candidate_features
from ai_core.localize import classify, localize
from ai_core.nets.localizer import MODALITIES
from ai_core.release import Release
from ai_core.significance import SignificanceModel
from ai_core.train.data import Batch, LesionSamples, stream
from ai_core.train.matching import match
from ai_core.train.phases import found_places, truth_of
from ai_core.train.run import LATE_DROPOUT
from ai_core.train.source import Source

FALSE_POSITIVES_PER_CASE = 1.0
STRENGTH = 0.3  # inverse regularisation of the logistic models


@dataclass(frozen=True)
class Row:
    """One candidate of one held-out case."""

    case: int
    heat: float
    logit: float
    features: Features
    significant: bool
    lesion: int


@dataclass
class HeldOut:
    """All candidates, and the significant lesions of each case."""

    rows: list[Row] = field(default_factory=list)
    significant: dict[int, int] = field(default_factory=dict)
    zone_dice: list[tuple[float, float]] = field(default_factory=list)


def collect(release: Release, source: Source, cases: int) -> HeldOut:
    """Run the localizer and the classifier on ``cases`` held-out cases, each rendered once."""
    config = release.config
    samples = LesionSamples(source, config, "calibrate", 1, LATE_DROPOUT, augment=False)
    batches = stream(samples.batch, 0, config.training.workers)
    held_out = HeldOut()
    for case in track(range(cases), description="calibrate"):
        _collect_one(case, next(batches), release, held_out)
    return held_out


def _collect_one(case: int, batch: Batch, release: Release, held_out: HeldOut) -> None:
    flags = zip(MODALITIES, batch["present"].tolist(), strict=True)
    present = tuple(name for name, flag in flags if flag)
    image = batch["image"][0].numpy()
    maps = localize(image, present, release)
    zones = batch["zones"][0].numpy().astype(np.uint8)
    found = found_places(maps.heat, zones > 0, release.config)
    truth = truth_of(batch, 0)
    names = frozenset(m.value for m in present)
    spacing = release.config.lesion_grid.spacing_zyx_mm
    scene = Scene(image, names, zones > 0, zones, spacing)
    for candidate, score in zip(found, classify(found, maps, release), strict=True):
        label = match(candidate, truth)
        table = candidate_features(candidate, scene)
        held_out.rows.append(
            Row(case, candidate.heat, score.logit, table, label.significant, label.lesion)
        )
    held_out.significant[case] = sum(grade >= 2 for grade in truth.isup.values())
    predicted = maps.zones.argmax(0)
    held_out.zone_dice.append((_dice(predicted, zones, 1), _dice(predicted, zones, 2)))


def _dice(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer], label: int) -> float:
    one, other = a == label, b == label
    return 2.0 * float((one & other).sum()) / max(1.0, float(one.sum() + other.sum()))


def fit_calibration(held_out: HeldOut) -> Calibration:
    """Combine map and classifier; report from where one false candidate per case remains."""
    rows = [row for row in held_out.rows if row.case % 2 == 0]
    inputs = np.array([[logit(row.heat), row.logit] for row in rows])
    labels = np.array([row.significant for row in rows])
    if len(set(labels.tolist())) < 2:
        return Calibration(simulated_cases=len(held_out.significant))
    model = LogisticRegression(C=STRENGTH).fit(inputs, labels)
    first = Calibration(
        map_weight=float(max(model.coef_[0, 0], 0.0)),
        classifier_weight=float(max(model.coef_[0, 1], 0.0)),
        intercept=float(model.intercept_[0]),
        simulated_cases=len(held_out.significant),
    )
    wrong = sorted(
        (first.likelihood(r.heat, r.logit) for r in rows if not r.significant), reverse=True
    )
    allowed = int(
        FALSE_POSITIVES_PER_CASE * sum(1 for case in held_out.significant if case % 2 == 0)
    )
    threshold = wrong[allowed] if allowed < len(wrong) else 0.0
    return first.model_copy(update={"report_from": round(threshold, 4)})


def fit_significance(held_out: HeldOut) -> SignificanceModel:
    """Logistic model on standardised features; the label's threshold maximises Youden's index."""
    rows = [row for row in held_out.rows if row.case % 2 == 0]
    table = np.array(
        [[np.nan if (v := row.features[name]) is None else v for name in FEATURES] for row in rows]
    )
    labels = np.array([row.significant for row in rows])
    mean = np.nan_to_num(np.nanmean(table, axis=0)) if rows else np.zeros(len(FEATURES))
    spread = np.nan_to_num(np.nanstd(table, axis=0), nan=1.0) if rows else np.ones(len(FEATURES))
    spread = np.where(spread > 1e-6, spread, 1.0)
    weight, intercept, threshold = np.zeros(len(FEATURES)), 0.0, 0.5
    if len(set(labels.tolist())) == 2:
        z = np.nan_to_num((table - mean) / spread).clip(-4, 4)
        model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(z, labels)
        weight, intercept = model.coef_[0], float(model.intercept_[0])
        threshold = _youden(model.predict_proba(z)[:, 1], labels)
    return SignificanceModel(
        features=FEATURES,
        mean=tuple(np.round(mean, 6).tolist()),
        spread=tuple(np.round(spread, 6).tolist()),
        weight=tuple(np.round(weight, 6).tolist()),
        intercept=round(intercept, 6),
        significant_from=threshold,
    )


def _youden(probability: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> float:
    def index(threshold: float) -> float:
        chosen = probability >= threshold
        return float(chosen[labels].mean() - chosen[~labels].mean())

    thresholds = [step / 100 for step in range(5, 96)]
    return max(thresholds, key=index)


def figures(held_out: HeldOut, release: Release) -> dict[str, float]:
    """Figures on the odd held-out cases."""
    cases = [case for case in held_out.significant if case % 2 == 1]
    calibration, significance = release.calibration, release.significance
    best = dict.fromkeys(cases, 0.0)
    hit: set[tuple[int, int]] = set()
    wrong = first_two = 0
    by_case: dict[int, list[tuple[float, Row]]] = {case: [] for case in cases}
    for row in held_out.rows:
        if row.case in by_case:
            by_case[row.case].append((calibration.likelihood(row.heat, row.logit), row))
    for case, pairs in by_case.items():
        pairs.sort(key=lambda pair: -pair[0])
        best[case] = pairs[0][0] if pairs else 0.0
        first_two += any(row.significant for _, row in pairs[:2])
        for likelihood, row in pairs:
            if likelihood >= calibration.report_from:
                wrong += not row.significant
                if row.significant:
                    hit.add((case, row.lesion))
    positive = [case for case in cases if held_out.significant[case]]
    lesions = sum(held_out.significant[case] for case in cases)
    rows = [row for case in cases for _, row in by_case[case]]
    dice = np.array(held_out.zone_dice)[cases] if cases else np.zeros((1, 2))
    return {
        "cases": float(len(cases)),
        "positive_cases": float(len(positive)),
        "case_auroc": _auroc([best[c] for c in cases], [c in positive for c in cases]),
        "lesion_sensitivity": len(hit) / max(1, lesions),
        "false_positives_per_case": wrong / max(1, len(cases)),
        "first_two_hit": first_two / max(1, len(positive)),
        "candidate_auroc_map": _auroc([r.heat for r in rows], [r.significant for r in rows]),
        "candidate_auroc_classifier": _auroc(
            [r.logit for r in rows], [r.significant for r in rows]
        ),
        "candidate_auroc_features": _auroc(
            [significance.probability(r.features) for r in rows], [r.significant for r in rows]
        ),
        "dice_pz": float(dice[:, 0].mean()),
        "dice_tz": float(dice[:, 1].mean()),
    }


def _auroc(scores: list[float], labels: list[bool]) -> float:
    if len(set(labels)) < 2:
        return float("nan")
    return float(roc_auc_score(labels, scores))


@torch.inference_mode()
def gland_dice(release: Release, batches: list[Batch]) -> dict[str, float]:
    """Dice of the finder, and how often it says rightly whether there is a gland."""
    dice, right = [], []
    for batch in batches:
        logits, presence = release.gland(batch["image"].to(release.device))
        there = batch["has_gland"] > 0.5
        right += ((presence.cpu() > 0) == there).tolist()
        for found, truth, has in zip(logits.argmax(1).cpu(), batch["zones"], there, strict=True):
            if bool(has):
                dice.append(
                    _dice((found > 0).numpy().astype(int), (truth > 0).numpy().astype(int), 1)
                )
    return {
        "dice_gland": float(np.mean(dice)) if dice else float("nan"),
        "presence_right": float(np.mean(right)),
    }
