"""Writes the release of a site: digests in place of names, figures before and after."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_core.adapt.gate import Check
from ai_core.familiarity import fit_familiarity
from ai_core.origin import Figure, Origin, case_digest
from ai_core.release import NETWORKS, Release, write_release
from ai_core.site_profile import SiteProfile
from ai_core.train.fit import HeldOut

CARD = """# Model card: {name} {version}

**Research software. Not a medical device. Not for clinical use.**

- **What it is**: release {parent_name} {parent_version} (`{parent}`), adapted to one site
  with `ai-core adapt` (seed {seed}).
- **Adapted with**: {studies} studies of the site for its profile; {fitted} annotated ones for
  calibration and fine-tuning (their digests stand in `origin.json`), {holdout} locked away.
- **Likelihood**: calibrated on {simulated} simulated and {real} real examinations. {wording}
- **Profile of the site**: ADC x {adc_scale:.3f}; {norm_blend:.0%} of the normalisation statistics
  are the site's; usual input quality stands in `site_profile.json`.
- **Use it for** the scanners and protocols of that site. Elsewhere the parent is the better choice.

## Gate
Measured once, on cases that neither trained nor stopped nor calibrated anything; bounds are
one-sided 95 % bounds of a paired bootstrap.

| Figure | Cases | Before | After | Loss at most |
|---|---|---|---|---|
{checks}

## Figures by stage on the site hold-out

| Stage | AUROC by case | Average precision by lesion | Log loss by case |
|---|---|---|---|
{stages}

## Limits
{holdout} cases are few: the figures above can be far from what the next hundred studies show. Judge
it in the shadow on live studies before it is activated. What the parent's card says still holds:
simulated cases are simulated cases.
"""
INDEX = "An *AI suspicion\n  index, not a probability*."
PROBABILITY = "Meant as a\n  probability at the prevalence set in `config.json`."
Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Adapted:
    """What goes into a release beside its weights.

    ``names``: of the cases that were fitted on. ``stages``: figures on the hold-out by stage.
    """

    parent: Release
    release: Release
    names: Sequence[str]
    holdout: int
    checks: Sequence[Check]
    stages: Figures
    embeddings: HeldOut


def write_site_release(folder: Path, adapted: Adapted, name: str, seed: int, key: bytes) -> str:
    """Write the folder; it appears whole or not at all. Returns its digest."""
    release = adapted.release
    digests = sorted(case_digest(one, key) for one in adapted.names)
    version = f"{adapted.parent.config.version}+{len(digests)}"
    config = release.config.model_copy(update={"name": name, "version": version})
    networks = (release.gland, release.localizer, release.classifier)
    weights = {
        kind: {k: v.cpu() for k, v in network.state_dict().items()}
        for kind, network in zip(NETWORKS, networks, strict=True)
    }
    origin = Origin(
        parent=adapted.parent.info.sha256,
        made_by="ai-core adapt",
        seed=seed,
        trained_on=len(digests),
        cases=tuple(digests),
        figures=tuple(
            Figure(name=c.figure, cases=f"{c.cases} ({c.count})", before=c.before, after=c.after)
            for c in adapted.checks
        ),
    )
    part = folder.with_name(f".part-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    digest = write_release(
        part,
        config,
        weights,
        release.calibration,
        release.significance,
        release.presence,
        _card(adapted, name, version, seed),
        fit_familiarity(adapted.embeddings.embeddings) or release.familiarity,
        origin,
        release.profile,
        adapted.parent.synthesis,
    )
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    return digest


def _card(adapted: Adapted, name: str, version: str, seed: int) -> str:
    parent, calibration = adapted.parent, adapted.release.calibration
    profile = adapted.release.profile or SiteProfile(studies=1)
    checks = [
        f"| {c.figure} | {c.cases} ({c.count}) | {c.before:.3f} | {c.after:.3f} | {c.bound:.3f} |"
        for c in adapted.checks
    ]
    stages = [
        f"| {stage} | {f['auroc']:.3f} | {f['average_precision']:.3f} | {f['log_loss']:.3f} |"
        for stage, f in adapted.stages.items()
    ]
    return CARD.format(
        name=name,
        version=version,
        parent_name=parent.config.name,
        parent_version=parent.config.version,
        parent=parent.info.sha256,
        seed=seed,
        studies=profile.studies if adapted.release.profile else 0,
        fitted=len(adapted.names),
        holdout=adapted.holdout,
        simulated=calibration.simulated_cases,
        real=calibration.real_cases,
        wording=PROBABILITY if calibration.real_cases else INDEX,
        adc_scale=profile.adc_scale,
        norm_blend=profile.norm_blend,
        checks="\n".join(checks),
        stages="\n".join(stages),
    )
