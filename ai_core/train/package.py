"""Makes the release folder at the end of training: weights, fitted numbers, model card."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor

from ai_core.calibration import Calibration
from ai_core.config import CoreConfig
from ai_core.familiarity import fit_familiarity
from ai_core.logistic import LogisticModel
from ai_core.manifest import read_manifest
from ai_core.origin import Figure, Origin, SiteStep
from ai_core.release import NETWORKS, Release, build_networks, choose_device, write_release
from ai_core.train.branch import add_branch, branch_alone, fitted_branch
from ai_core.train.datasets import open_cases
from ai_core.train.fit import collect, figures, fit_calibration, fit_significance
from ai_core.train.heat_fit import fit_heat
from ai_core.train.presence import fit_presence, gland_figures
from ai_core.train.run import PREPARED
from ai_core.train.source import Cases, Source
from ai_core.types import ReleaseInfo

CARD = """# Model card: {name} {version}

**Research software. Not a medical device. Not for clinical use.**

- **What it does**: finds the prostate on T2W, makes a localization map per modality (T2W, ADC,
  high b, DCE) and a fused map, scores up to {count} candidates, labels clinical significance.
- **Trained on**: {trained}
- **Likelihood**: calibrated on {simulated} simulated and {real} real examinations. {wording}
- **Needed input**: axial T2W, and ADC or diffusion with two b-values. High b and DCE may be absent.
- **Made by**: `ai-core train` with the `config.json` beside this file (seed {seed}).

## Figures on cases that were never trained on
Computed at the end of the training command on {cases:.0f} held-out {kind} cases
({positive_cases:.0f} with significant cancer); fitted numbers came from other held-out cases.

| Figure | Value |
|---|---|
{table}

## Limits
Simulated anatomy is simpler than anatomy: expect errors at base and apex, with median lobes in the
bladder, after treatment, with hip prostheses, and with strong distortion. Lesions that look like
benign nodules or inflammation are the hard part, in simulation as in life.
"""

SIMULATED = (
    "simulated examinations and nothing else: up to {count} anatomies, rendered anew at every "
    "step.\n  No patient image was used. Never shown: that it finds cancer in patients. Expect "
    "worse figures on\n  real scans than here."
)
REAL = "{count} examinations, of patients in whole or in part."
#: As many held-out cases calibrate the map; each gives thousands of voxels.
HEAT_CASES = 120
INDEX = "It is an\n  *AI suspicion index, not a probability*."
PROBABILITY = "It is meant\n  as a probability at the prevalence of those."
NAMES = {
    "dice_gland": "Gland Dice (finder, coarse grid)",
    "presence_right": "Says rightly whether there is a prostate",
    "dice_pz": "Peripheral zone Dice (localizer)",
    "dice_tz": "Transition zone Dice (localizer)",
    "case_auroc": "AUROC by case",
    "lesion_sensitivity": "Sensitivity by lesion at the reporting threshold",
    "false_positives_per_case": "False positives by case at that threshold",
    "first_two_hit": "Positive cases with a hit among the first two findings",
    "candidate_auroc_map": "AUROC by candidate, map alone",
    "candidate_auroc_classifier": "AUROC by candidate, classifier",
    "candidate_auroc_features": "AUROC by candidate, significance model on features",
    "candidate_auroc_likelihood": "AUROC by candidate, likelihood (all three)",
}


def make_release(
    config: CoreConfig,
    weights: dict[str, dict[str, Tensor]],
    data: list[Path],
    folder: Path,
    device: str,
    start: Path | None = None,
) -> dict[str, float]:
    """Fit calibration and significance on held-out cases, measure, write the release.

    ``start``: folder of the release whose weights came first; it is named as the parent. Where the
    synthesis branch alone was trained, it is added to that release and nothing else changes.
    """
    scratch = folder.parent / PREPARED
    if start is not None and branch_alone(config):
        branch = fitted_branch(weights, open_cases(data, config, scratch, True), config, device)
        if branch is not None:
            return add_branch(folder, start, branch, config)
    sides = Sides(open_cases(data, config, scratch), open_cases(data, config, scratch, True))
    return make_release_from(config, weights, sides, folder, device, Lineage(start))


@dataclasses.dataclass(frozen=True)
class Sides:
    """Cases that were trained on, and those that never were."""

    trained_on: Cases
    held_out: Cases


@dataclasses.dataclass(frozen=True)
class Lineage:
    """What came before: the folder of the parent, and the sites that training went through."""

    start: Path | None = None
    sites: tuple[SiteStep, ...] = ()


def make_release_from(
    config: CoreConfig,
    weights: dict[str, dict[str, Tensor]],
    sides: Sides,
    folder: Path,
    device: str,
    lineage: Lineage,
) -> dict[str, float]:
    """Make a release as `make_release` does, from cases that are open already."""
    source, trained_on, start = sides.held_out, sides.trained_on, lineage.start
    release = in_memory(config, weights, device)
    branch = fitted_branch(weights, source, config, device)
    release = dataclasses.replace(release, synthesis=branch)
    presence = fit_presence(release.gland, trained_on, config)
    cases = min(config.training.calibration_cases, HEAT_CASES)
    release = dataclasses.replace(release, calibration=fit_heat(release, source, cases))
    held_out = collect(release, source, config.training.calibration_cases)
    calibration = fit_calibration(held_out, release.calibration)
    significance = fit_significance(held_out)
    fitted = dataclasses.replace(
        release, calibration=calibration, significance=significance, presence=presence
    )
    values = figures(held_out, fitted)
    values |= gland_figures(release.gland, presence, source, config)
    card = _card(config, calibration, values, trained_on)
    familiarity = fit_familiarity(held_out.embeddings)
    origin = Origin(
        parent=read_manifest(start).sha256 if start else None,
        made_by="ai-core train",
        seed=config.training.seed,
        trained_on=len(trained_on),
        figures=tuple(
            Figure(name=text, cases="held out", after=values[key])
            for key, text in NAMES.items()
            if math.isfinite(values[key])
        ),
        sites=lineage.sites,
    )
    write_release(
        folder, config, weights, calibration, significance, presence, card, familiarity, origin,
        synthesis=branch,
    )  # fmt: skip
    return values


def in_memory(config: CoreConfig, weights: dict[str, dict[str, Tensor]], device: str) -> Release:
    """Return networks as a release that was not calibrated."""
    where = choose_device(device)
    networks = build_networks(config)
    for name, network in zip(NETWORKS, networks, strict=True):
        network.load_state_dict(weights[name])
        network.eval().to(where)
    blank = LogisticModel(features=(), mean=(), spread=(), weight=(), intercept=0.0)
    info = ReleaseInfo(config.name, config.version, "")
    torch.manual_seed(config.training.seed)
    return Release(info, config, *networks, Calibration(), blank, blank, where)


def _card(
    config: CoreConfig, calibration: Calibration, values: dict[str, float], trained_on: Cases
) -> str:
    rows = [f"| {text} | {values[key]:.2f} |" for key, text in NAMES.items()]
    simulated_alone = isinstance(trained_on, Source)
    return CARD.format(
        name=config.name,
        version=config.version,
        count=config.candidates.maximum_count,
        trained=(SIMULATED if simulated_alone else REAL).format(count=len(trained_on)),
        simulated=calibration.simulated_cases,
        real=calibration.real_cases,
        wording=PROBABILITY if calibration.real_cases else INDEX,
        seed=config.training.seed,
        cases=values["cases"],
        positive_cases=values["positive_cases"],
        kind="real" if calibration.real_cases else "simulated",
        table="\n".join(rows),
    )
