"""The stages of an adaptation on prepared cases, without files of a hospital: (a) and (c).

`ai_core.adapt.run` calls them for a site; the experiment on simulated sites calls the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file

from ai_core.adapt.calibrate import refit
from ai_core.adapt.cases import SiteCase
from ai_core.adapt.finetune import Finetune, Material, with_weights
from ai_core.adapt.keep import once, rated, write_weights
from ai_core.adapt.plan import AdaptPlan, Order
from ai_core.adapt.profile_fit import blend_norms, fit_profile, measure_tissue
from ai_core.release import Release
from ai_core.resume import write_json
from ai_core.site_profile import SiteProfile
from ai_core.train.archive_source import ArchiveSource
from ai_core.train.data import generator
from ai_core.train.fit import HeldOut
from ai_core.train.phases import JointModel
from ai_core.train.source import Cases

#: Studies that tell how the training's tissue looks to the networks.
TRAINING_STUDIES = 60


def profiled(
    parent: Release, source: ArchiveSource, cases: Sequence[SiteCase], rehearsed: Cases,
    plan: AdaptPlan, folder: Path,
) -> Release:  # fmt: skip
    """Stage (a): the parent with the profile and the normalisation statistics of the site.

    Too few studies: the parent as it is.
    """
    count = len(source)
    if count < plan.profile.fewest_studies:
        return parent
    file, weights = folder / "profile.json", folder / "norms.safetensors"

    def measure() -> None:
        plain = replace(parent, profile=None)
        site = measure_tissue(plain, source, count, "site tissue")
        wanted = min(TRAINING_STUDIES, len(rehearsed))
        training = measure_tissue(plain, rehearsed, wanted, "training tissue")
        write_json(file, fit_profile(site, training, cases, plan.profile).model_dump(mode="json"))

    once(file, measure)
    profile = SiteProfile.model_validate_json(file.read_text(encoding="utf-8"))
    release = replace(parent, profile=profile)

    def blend() -> None:
        blended = blend_norms(release, source, count, profile.norm_blend)
        network = JointModel(blended.localizer, blended.classifier, freeze=False)
        write_weights(weights, network.state_dict())

    once(weights, blend)
    return with_weights(release, load_file(weights))


def calibrated(release: Release, held_out: HeldOut, plan: AdaptPlan) -> Release:
    """Stage (c), first part: calibration and operating point by annotated cases."""
    calibration = refit(held_out, release.calibration, release.significance, plan.calibration)
    return replace(release, calibration=calibration)


@dataclass(frozen=True)
class Annotated:
    """Annotated cases by their use; ``uncertainty`` of the trained ones, in their order."""

    trained: ArchiveSource
    watched: ArchiveSource
    uncertainty: Sequence[float]


def finetuned(
    release: Release, annotated: Annotated, rehearsed: Cases, plan: AdaptPlan, folder: Path
) -> Release:
    """Stage (c), second part: fine-tuning, then calibration by the cases that only watched."""
    order = training_order(annotated.uncertainty, plan)
    files = annotated.trained.files
    trained = replace(annotated.trained, files=tuple(files[i] for i in order))
    material = Material(trained, annotated.watched, rehearsed)
    tuned = Finetune(release, material, plan.finetune, folder, plan.seed, plan.workers).run()
    held_out = rated(
        folder / "watched-after.json", tuned, annotated.watched, len(annotated.watched)
    )
    again = refit(held_out, tuned.calibration, tuned.significance, plan.calibration)
    # The same cases calibrated the stage before: they count once.
    counts = release.calibration.model_dump(include={"simulated_cases", "real_cases"})
    return replace(tuned, calibration=again.model_copy(update=counts))


def training_order(uncertainty: Sequence[float], plan: AdaptPlan) -> list[int]:
    """Return the order in which cases enter the fine-tuning."""
    places = list(range(len(uncertainty)))
    if plan.finetune.order is Order.RANDOM:
        return [int(i) for i in generator(plan.seed, "order", 0).permutation(len(places))]
    sign = -1.0 if plan.finetune.order is Order.UNCERTAIN_FIRST else 1.0
    return sorted(places, key=lambda i: sign * uncertainty[i])
