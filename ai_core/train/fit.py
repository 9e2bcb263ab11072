"""After training: calibration, significance model and figures, on simulated cases held out.

Even cases fit, odd cases are measured, so that no figure is from cases that set a number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from rich.progress import track
from sklearn.metrics import roc_auc_score

from ai_core.calibration import LOGIT_LIMIT, Calibration, logit, sigmoid
from ai_core.features import DIRECTION, FEATURES, Features, Scene, candidate_features
from ai_core.localize import classify, localize, second_opinion, zones_in
from ai_core.logistic import LogisticModel
from ai_core.nets.localizer import MODALITIES
from ai_core.release import Release
from ai_core.synthesis.complete import Prostate
from ai_core.train.data import Batch, LesionSamples, stream
from ai_core.train.logistic_fit import bounded_logistic, fit_logistic
from ai_core.train.matching import match
from ai_core.train.phases import found_places, truth_of
from ai_core.train.run import LATE_DROPOUT
from ai_core.train.source import Cases
from ai_core.types import FloatArray

#: Candidates are reported down to here, on simulated cases. Real lesions look fainter to networks
#: trained on simulation: a stricter threshold is for a calibration on real cases to set.
FALSE_POSITIVES_PER_CASE = 2.0
FOLDS = 5


@dataclass(frozen=True)
class Row:
    """One candidate of one held-out case."""

    case: int
    heat: float
    logit: float
    features: Features
    significant: bool
    lesion: int
    spread: float = 0.0


@dataclass
class HeldOut:
    """All candidates, and the significant lesions of each case."""

    rows: list[Row] = field(default_factory=list)
    significant: dict[int, int] = field(default_factory=dict)
    zone_dice: list[tuple[float, float]] = field(default_factory=list)
    embeddings: list[npt.NDArray[np.float64]] = field(default_factory=list)
    prevalence: float = 0.28
    real: bool = False

    def fitted(self) -> list[int]:
        """Return the cases that numbers are fitted on; the others are measured."""
        return [case for case in self.significant if case % 2 == 0]


def collect(release: Release, source: Cases, cases: int) -> HeldOut:
    """Run the localizer and the classifier on ``cases`` held-out cases, one after the other.

    Of real examinations each is used once; simulated ones are rendered anew where they are few.
    """
    config = release.config
    cases = min(cases, len(source)) if source.real else cases
    samples = LesionSamples(
        source, config, "calibrate", 1, LATE_DROPOUT, augment=False, in_order=True
    )
    batches = stream(samples.batch, 0, config.training.workers)
    held_out = HeldOut(prevalence=config.training.prevalence, real=source.real)
    for case in track(range(cases), description="calibrate"):
        collect_one(case, next(batches), release, held_out)
    return held_out


def collect_one(case: int, batch: Batch, release: Release, held_out: HeldOut) -> None:
    """Add the candidates of a batch of one image, and what is true of them."""
    flags = zip(MODALITIES, batch["present"].tolist(), strict=True)
    present = tuple(name for name, flag in flags if flag)
    image = batch["image"][0].numpy()
    maps = localize(image, present, release)
    zones = batch["zones"][0].numpy().astype(np.uint8)
    # Candidates and features as in use: on the gland and the zones that the localizer sees.
    gland = second_opinion(maps, zones > 0).gland
    found = found_places(maps.heat, gland, release.config)
    truth = truth_of(batch, 0)
    names = frozenset(m.value for m in present)
    spacing = release.config.lesion_grid.spacing_zyx_mm
    seen_zones = zones_in(gland, maps)
    believed = _abnormality(Prostate(image, present, seen_zones), release)
    scene = Scene(image, names, gland, seen_zones, spacing, believed)
    for candidate, score in zip(found, classify(found, maps, release), strict=True):
        label = match(candidate, truth)
        table = candidate_features(candidate, scene)
        held_out.rows.append(
            Row(
                case,
                candidate.heat,
                score.logit,
                table,
                label.significant,
                label.lesion,
                score.spread,
            )
        )
    held_out.significant[case] = sum(grade >= 2 for grade in truth.isup.values())
    predicted = maps.zones.argmax(0)
    held_out.embeddings.append(maps.embedding(zones > 0))
    held_out.zone_dice.append((_dice(predicted, zones, 1), _dice(predicted, zones, 2)))


def _abnormality(prostate: Prostate, release: Release) -> FloatArray | None:
    """Return the map of the synthesis branch, as in use; None where it says nothing."""
    if release.synthesis is None or not prostate.zones.any():
        return None
    with release.computing():
        opinion = release.synthesis.opinion(prostate, release.config)
    return opinion.map if opinion.credible else None


def _dice(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer], label: int) -> float:
    one, other = a == label, b == label
    return 2.0 * float((one & other).sum()) / max(1.0, float(one.sum() + other.sum()))


def case_weights(cases: list[int], held_out: HeldOut) -> npt.NDArray[np.float64]:
    """Weight of each of ``cases``, so that positive ones count at the prevalence in use."""
    positive = [held_out.significant[case] > 0 for case in held_out.fitted()]
    share = min(max(float(np.mean(positive)), 1e-3), 1 - 1e-3)
    wanted = held_out.prevalence
    up, down = wanted / share, (1 - wanted) / (1 - share)
    return np.array([up if held_out.significant[case] else down for case in cases])


def fit_calibration(held_out: HeldOut, start: Calibration | None = None) -> Calibration:
    """Combine map, classifier and features; report from where two false candidates a case remain.

    ``start``: holds the calibration of the map, which stays.

    The feature model's part comes from cross-validation over cases, so that its weight is not that
    of a model that has seen the answers.
    """
    rows = [row for row in held_out.rows if row.case % 2 == 0]
    labels = np.array([row.significant for row in rows])
    count = len(held_out.fitted())
    counts = {"real_cases" if held_out.real else "simulated_cases": count}
    blank = (start or Calibration()).model_copy(update=counts)
    if len({row.case for row in rows if row.significant}) < FOLDS:
        return blank
    inputs = np.array(
        [
            [logit(row.heat), row.logit, logit(seen)]
            for row, seen in zip(rows, _unseen(rows), strict=True)
        ]
    )
    weights, intercept = bounded_logistic(
        inputs, labels, (1, 1, 1), case_weights([row.case for row in rows], held_out)
    )
    first = blank.model_copy(
        update={
            "map_weight": float(weights[0]),
            "classifier_weight": float(weights[1]),
            "feature_weight": float(weights[2]),
            "intercept": intercept,
        }
    )
    odds = inputs @ weights + first.intercept
    first = _with_case([row.case for row in rows], odds, held_out, first)
    wrong = np.sort(odds[~labels])[::-1]
    allowed = int(FALSE_POSITIVES_PER_CASE * count)
    threshold = sigmoid(float(wrong[allowed])) if allowed < len(wrong) else 0.0
    return first.model_copy(update={"report_from": round(threshold, 4)})


def _with_case(
    cases: list[int], odds: npt.NDArray[np.float64], held_out: HeldOut, start: Calibration
) -> Calibration:
    """Fit the case's log-odds to the highest of its candidates (``cases``: of each of ``odds``)."""
    highest: dict[int, float] = {}
    for case, value in zip(cases, odds.tolist(), strict=True):
        highest[case] = max(highest.get(case, -LOGIT_LIMIT), value)
    there = list(highest)
    labels = np.array([held_out.significant[case] > 0 for case in there])
    inputs = np.array([[highest[case]] for case in there])
    slope, offset = bounded_logistic(inputs, labels, (1,), case_weights(there, held_out))
    if slope[0] <= 0:
        return start
    return start.model_copy(update={"case_slope": float(slope[0]), "case_offset": offset})


def _unseen(rows: list[Row]) -> list[float]:
    """Return the feature model's probability of each row, fitted without the row's case."""
    cases = sorted({row.case for row in rows})
    fold = {case: index % FOLDS for index, case in enumerate(cases)}
    models = [_fit([row for row in rows if fold[row.case] != f]) for f in range(FOLDS)]
    return [models[fold[row.case]].probability(row.features) for row in rows]


def fit_significance(held_out: HeldOut) -> LogisticModel:
    """Logistic model on standardised features; the label's threshold maximises Youden's index."""
    return _fit([row for row in held_out.rows if row.case % 2 == 0])


def _fit(rows: list[Row]) -> LogisticModel:
    table, answers = [row.features for row in rows], [row.significant for row in rows]
    return fit_logistic(FEATURES, table, answers, direction=DIRECTION)


def figures(held_out: HeldOut, release: Release) -> dict[str, float]:
    """Figures on the odd held-out cases."""
    cases = [case for case in held_out.significant if case % 2 == 1]
    by_case = scored(held_out, release, cases)
    positive = [case for case in cases if held_out.significant[case]]
    lesions = sum(held_out.significant[case] for case in cases)
    reported = [
        (case, row)
        for case, pairs in by_case.items()
        for likelihood, row in pairs
        if likelihood >= release.calibration.report_from
    ]
    hit = {(case, row.lesion) for case, row in reported if row.significant}
    wrong = sum(not row.significant for _, row in reported)
    best = [by_case[case][0][0] if by_case[case] else 0.0 for case in cases]
    first_two = sum(any(row.significant for _, row in by_case[c][:2]) for c in positive)
    dice = np.array(held_out.zone_dice)[cases] if cases else np.zeros((1, 2))
    return {
        "cases": float(len(cases)),
        "positive_cases": float(len(positive)),
        "case_auroc": auroc(best, [case in positive for case in cases]),
        "lesion_sensitivity": len(hit) / max(1, lesions),
        "false_positives_per_case": wrong / max(1, len(cases)),
        "first_two_hit": first_two / max(1, len(positive)),
        "dice_pz": float(dice[:, 0].mean()),
        "dice_tz": float(dice[:, 1].mean()),
        **_candidate_figures([pair for case in cases for pair in by_case[case]], release),
    }


def scored(
    held_out: HeldOut, release: Release, cases: list[int]
) -> dict[int, list[tuple[float, Row]]]:
    """Return the candidates of each case with their likelihood, most likely first."""
    by_case: dict[int, list[tuple[float, Row]]] = {case: [] for case in cases}
    for row in held_out.rows:
        if row.case in by_case:
            seen = release.significance.probability(row.features)
            likelihood = release.calibration.likelihood(row.heat, row.logit, seen)
            by_case[row.case].append((likelihood, row))
    for pairs in by_case.values():
        pairs.sort(key=lambda pair: -pair[0])
    return by_case


def _candidate_figures(pairs: list[tuple[float, Row]], release: Release) -> dict[str, float]:
    rows = [row for _, row in pairs]
    labels = [row.significant for row in rows]
    significance = [release.significance.probability(row.features) for row in rows]
    return {
        "candidate_auroc_map": auroc([row.heat for row in rows], labels),
        "candidate_auroc_classifier": auroc([row.logit for row in rows], labels),
        "candidate_auroc_features": auroc(significance, labels),
        "candidate_auroc_likelihood": auroc([likelihood for likelihood, _ in pairs], labels),
    }


def auroc(scores: list[float], labels: list[bool]) -> float:
    """Area under the ROC curve; NaN where one class is absent."""
    if len(set(labels)) < 2:
        return float("nan")
    return float(roc_auc_score(labels, scores))
