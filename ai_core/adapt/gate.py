"""Stage (d): a site's release comes to be only where it is not worse, at the site and elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.adapt.plan import AdaptPlan, GatePlan
from ai_core.adapt.score import Sheet
from ai_core.errors import CoreError

Floats = npt.NDArray[np.float64]
SITE, GENERAL = "site hold-out", "general set"


class GateRefused(CoreError):
    """An adapted release is worse than its parent, or it cannot be told."""

    code = "gate_refused"


@dataclass(frozen=True)
class Check:
    """One figure of the gate. ``bound``: what the loss surely does not exceed (95 %)."""

    figure: str
    cases: str
    count: int
    before: float
    after: float
    bound: float
    passed: bool

    def words(self) -> str:
        """Say it in one line."""
        return (
            f"{self.figure} on the {self.cases} ({self.count} cases): before {self.before:.3f}, "
            f"after {self.after:.3f}, loss at most {self.bound:.3f}"
        )


@dataclass(frozen=True)
class Pair:
    """The same cases before and after."""

    cases: str
    before: Sheet
    after: Sheet


def judge(site: Pair, general: Pair, plan: AdaptPlan) -> tuple[Check, ...]:
    """Compare on the locked hold-out of the site and on the simulated cases of other sites."""
    gate, seed = plan.gate, plan.seed
    return (
        _auroc(site, gate.site_loss, gate.site_bound, gate, seed),
        _log_loss(site, gate, seed),
        _auroc(general, gate.general_loss, gate.general_bound, gate, seed),
    )


def enough(positives: Sequence[bool], plan: AdaptPlan) -> str:
    """Say what a hold-out lacks; empty where it lacks nothing."""
    positive = sum(positives)
    negative = len(positives) - positive
    if min(positive, negative) >= plan.fewest_of_each:
        return ""
    return (
        f"the hold-out has {positive} cases with significant cancer and {negative} without, "
        f"{plan.fewest_of_each} of each are needed"
    )


def demand(checks: Sequence[Check]) -> None:
    """Let pass what is not worse.

    Raises:
        GateRefused: a check failed; the message has its figures.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        raise GateRefused(
            "the adapted release is refused; " + "; ".join(check.words() for check in failed),
            "The release in use stays as it is. Annotate more studies of the list, look at the "
            "annotations, or adapt without fine-tuning (--no-finetune).",
        )


def _auroc(pair: Pair, loss: float, bound: float, gate: GatePlan, seed: int) -> Check:
    worst = _worst_loss(pair, Sheet.auroc, gate, seed)
    before, after = pair.before.auroc(), pair.after.auroc()
    passed = bool(before - after <= loss and worst <= bound)
    return Check(
        "AUROC by case", pair.cases, len(pair.before.positive), before, after, worst, passed
    )


def _log_loss(pair: Pair, gate: GatePlan, seed: int) -> Check:
    def gain(sheet: Sheet, weight: Floats) -> float:
        return -sheet.log_loss(weight)

    worst = _worst_loss(pair, gain, gate, seed)
    before, after = pair.before.log_loss(), pair.after.log_loss()
    passed = bool(after - before <= gate.site_log_loss)
    return Check(
        "Log loss by case", pair.cases, len(pair.before.positive), before, after, worst, passed
    )


def _worst_loss(
    pair: Pair, figure: Callable[[Sheet, Floats], float], gate: GatePlan, seed: int
) -> float:
    """95th percentile of what is lost, over bootstrap samples of cases within each class."""
    weights = stratified_weights(pair.before.positive, gate.repeats, seed)
    losses = [figure(pair.before, w) - figure(pair.after, w) for w in weights]
    return float(np.percentile(losses, 95))


def stratified_weights(positive: npt.NDArray[np.bool_], repeats: int, seed: int) -> Floats:
    """Case counts of bootstrap samples, ``(repeats, cases)``; no class is ever absent."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((repeats, len(positive)))
    for wanted in (True, False):
        places = np.flatnonzero(positive == wanted)
        if len(places):
            share = np.full(len(places), 1.0 / len(places))
            weights[:, places] = rng.multinomial(len(places), share, size=repeats)
    return weights
