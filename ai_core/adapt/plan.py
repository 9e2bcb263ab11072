"""What can be set about an adaptation. The defaults are for a hospital's machine of two cores."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai_core.config import Fraction, ModalityDropout, Phase
from ai_core.errors import InputError

Positive = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Order(StrEnum):
    """In which order annotated cases enter the fine-tuning (the window grows)."""

    UNCERTAIN_FIRST = "uncertain_first"
    CERTAIN_FIRST = "certain_first"
    RANDOM = "random"


class ProfilePlan(_Part):
    """From unlabelled studies. The site counts n / (n + ``prior_studies``) of what it shows."""

    fewest_studies: Positive = 8
    prior_studies: Positive = 10
    #: Share of the site in the normalisation statistics with endless studies.
    norm_blend: Fraction = 0.5


class CalibrationPlan(_Part):
    """From annotated cases. ``spreads``: of the prior around "as the parent", to choose from."""

    spreads: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    folds: Annotated[int, Field(ge=2)] = 10
    #: Reporting threshold of the site counts n / (n + prior_cases).
    prior_cases: Positive = 20
    #: Fewer positive cases do not make a likelihood a probability.
    enough_positive: Positive = 15


class FinetunePlan(_Part):
    """Training on annotated cases, most of all at a low rate.

    ``rehearsal``: share of batches that are simulated cases of other sites. ``first``: share of
    the cases that is open at the start; all are at ``all_open`` of the steps. It ends early after
    ``patience`` looks at the validation part without gain, and the best weights are taken.
    """

    phase: Phase = Phase(
        steps=160, max_minutes=10, batch=2, learning_rate=1e-4, ema=0.98, frozen_norm_from=0.0
    )
    rehearsal: Fraction = 0.5
    order: Order = Order.UNCERTAIN_FIRST
    first: Fraction = 0.34
    all_open: Annotated[float, Field(gt=0, le=1)] = 0.6
    check_every: Positive = 40
    patience: Positive = 2
    dropout: ModalityDropout = ModalityDropout(dce=0.2, high_b=0.1, adc=0.0, t2w_only=0.0)


class GatePlan(_Part):
    """What an adapted release may lose, as AUROC by case (log loss: nats by case).

    ``*_loss``: of the figure itself. ``*_bound``: of the one-sided 95 % bound of the difference,
    from a paired bootstrap over cases within each class.
    """

    site_loss: float = 0.02
    site_bound: float = 0.10
    site_log_loss: float = 0.02
    general_loss: float = 0.01
    general_bound: float = 0.03
    repeats: Positive = 2000


class AdaptPlan(_Part):
    """One adaptation."""

    seed: int = 1
    threads: Positive = 1
    workers: Annotated[int, Field(ge=0)] = 1
    #: Share of the annotated patients that is locked away for the gate, of each class.
    holdout: Fraction = 0.3
    #: Share of the others that decides when to stop.
    validation: Fraction = 0.25
    fewest_annotated: Positive = 8
    fewest_of_each: Positive = 2
    #: Simulated anatomies: one half is rehearsed, the other half is the general set of the gate.
    simulated_cases: Annotated[int, Field(ge=2)] = 240
    profile: ProfilePlan = ProfilePlan()
    calibration: CalibrationPlan = CalibrationPlan()
    finetune: FinetunePlan = FinetunePlan()
    gate: GatePlan = GatePlan()


def read_plan(path: Path | None) -> AdaptPlan:
    """Read a plan from TOML; None: the defaults.

    Raises:
        InputError: the file cannot be read, or a key or value is wrong.
    """
    if path is None:
        return AdaptPlan()
    try:
        return AdaptPlan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    except (ValidationError, ValueError) as error:
        first = str(error).splitlines()
        raise InputError(
            f"{path} is not a plan of an adaptation: {' '.join(first[1:3]) or first[0]}",
            "Compare it with docs/adaptation.md.",
        ) from error
