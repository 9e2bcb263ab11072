"""Stage (a): what unlabelled studies tell about a site."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor, nn

from ai_core.adapt.cases import SiteCase
from ai_core.adapt.console import STDERR
from ai_core.adapt.plan import ProfilePlan
from ai_core.adapt.score import NO_DROPOUT
from ai_core.localize import classify, localize
from ai_core.nets.localizer import MODALITIES
from ai_core.release import Release
from ai_core.site_profile import ADC_LIMITS, Landmarks, SiteProfile, Usual
from ai_core.train.data import Batch, LesionSamples
from ai_core.train.phases import found_places
from ai_core.train.source import Cases

#: Percentiles of gland tissue. The quartiles of T2W are fixed already by its z-score.
PERCENTILES = (5.0, 25.0, 50.0, 75.0, 95.0)
T2W, ADC, HIGH_B = 0, 1, 2
#: Landmarks nearer than this cannot be told apart.
STEP = 1e-3
FEWEST_VOXELS = 100
STUDIES_PER_BATCH = 4
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tissue:
    """Percentiles of the gland: medians over studies; None where the image is not there."""

    t2w: Floats | None
    adc: Floats | None
    high_b: Floats | None


def measure_tissue(release: Release, source: Cases, count: int, title: str) -> Tissue:
    """Measure what the networks get to see of the gland, without any profile."""
    samples = LesionSamples(
        source, release.config, "tissue", 1, NO_DROPOUT, augment=False, in_order=True
    )
    found: dict[int, list[Floats]] = {T2W: [], ADC: [], HIGH_B: []}
    for case in track(range(count), description=title, console=STDERR):
        batch = samples.batch(case)
        gland = batch["zones"][0].numpy() > 0
        for channel, rows in found.items():
            values = batch["image"][0, channel].numpy()
            inside = values[gland & (values != 0)]
            if inside.size >= FEWEST_VOXELS:
                rows.append(np.percentile(inside, PERCENTILES))
    return Tissue(*(np.median(rows, axis=0) if rows else None for rows in found.values()))


def fit_profile(
    site: Tissue, training: Tissue, cases: Sequence[SiteCase], plan: ProfilePlan
) -> SiteProfile:
    """Fit landmarks; with few studies they stay near "no change"."""
    studies = len(cases)
    trust = studies / (studies + plan.prior_studies)
    scale = 1.0
    if site.adc is not None and training.adc is not None:
        scale = float(np.clip((training.adc[2] / max(site.adc[2], 1e-6)) ** trust, *ADC_LIMITS))
    return SiteProfile(
        studies=studies,
        t2w=_landmarks(site.t2w, training.t2w, trust),
        high_b=_landmarks(site.high_b, training.high_b, trust, zero=True),
        adc_scale=round(scale, 4),
        norm_blend=round(plan.norm_blend * trust, 4),
        quality=_quality(cases),
    )


def _landmarks(
    site: Floats | None, training: Floats | None, trust: float, zero: bool = False
) -> Landmarks:
    """Match percentiles; ``zero``: nothing stays nothing."""
    if site is None or training is None:
        return Landmarks()
    wanted = site + trust * (training - site)
    pairs = ([0.0, *site], [0.0, *wanted]) if zero else (list(site), list(wanted))
    return Landmarks(site=_rising(pairs[0]), training=_rising(pairs[1]))


def _rising(values: Sequence[float]) -> tuple[float, ...]:
    out: list[float] = []
    for value in values:
        out.append(round(max(float(value), out[-1] + STEP if out else float(value)), 5))
    return tuple(out)


def _quality(cases: Sequence[SiteCase]) -> dict[str, Usual]:
    names = sorted({name for case in cases for name in case.measures})
    table = {n: [case.measures[n] for case in cases if n in case.measures] for n in names}
    return {
        name: Usual(
            p05=round(float(np.percentile(values, 5)), 4),
            median=round(float(np.median(values)), 4),
            p95=round(float(np.percentile(values, 95)), 4),
            studies=len(values),
        )
        for name, values in table.items()
    }


def blend_norms(release: Release, source: Cases, count: int, share: float) -> Release:
    """Return a release whose batch normalisation knows the site (Li et al. 2018, AdaBN).

    Mean and variance of what each normalisation receives are taken over the site's studies and
    blended with the stored ones. The gland finder has instance normalisation: nothing to adapt.
    """
    samples = LesionSamples(
        source, release.config, "norms", 1, NO_DROPOUT, augment=False, in_order=True,
        profile=release.profile,
    )  # fmt: skip
    batches = [samples.batch(case) for case in range(count)]
    localizer = copy.deepcopy(release.localizer)
    with _measured(localizer, share):
        for first in range(0, count, STUDIES_PER_BATCH):
            image, present = _joined(batches[first : first + STUDIES_PER_BATCH])
            with torch.no_grad():
                localizer(image.to(release.device), present.to(release.device))
    half = replace(release, localizer=localizer)
    classifier = copy.deepcopy(release.classifier)
    measuring = replace(half, classifier=classifier)
    with _measured(classifier, share):
        for batch in track(batches, description="norms", console=STDERR):
            _classify(measuring, batch)
    return replace(half, classifier=classifier)


def _joined(batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """One batch of several; an image that one study lacks is left out for all of them."""
    present = torch.stack([batch["present"] for batch in batches]).amin(0)
    return torch.cat([batch["image"] for batch in batches]), present


def _classify(release: Release, batch: Batch) -> None:
    flags = zip(MODALITIES, batch["present"].tolist(), strict=True)
    maps = localize(batch["image"][0].numpy(), tuple(m for m, flag in flags if flag), release)
    gland = batch["zones"][0].numpy() > 0
    classify(found_places(maps.heat, gland, release.config), maps, release)


@contextmanager
def _measured(network: nn.Module, share: float) -> Iterator[None]:
    """Measure at every batch normalisation (in training mode), then blend; others stay as used."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    kept = {m: (m.running_mean, m.running_var) for m in norms}
    sums: dict[nn.BatchNorm3d, list[tuple[Tensor, Tensor]]] = {m: [] for m in norms}

    def watch(norm: nn.BatchNorm3d) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().float()
            axes = (0, 2, 3, 4)
            sums[norm].append((values.mean(axes).clone(), values.square().mean(axes).clone()))

        return hook

    hooks = [norm.register_forward_pre_hook(watch(norm)) for norm in norms]
    for norm in norms:
        norm.running_mean, norm.running_var = None, None
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
        for norm in norms:
            norm.running_mean, norm.running_var = kept[norm]
            _blend(norm, sums[norm], share)


def _blend(norm: nn.BatchNorm3d, sums: Sequence[tuple[Tensor, Tensor]], share: float) -> None:
    if not sums or norm.running_mean is None or norm.running_var is None:
        return
    mean = torch.stack([first for first, _ in sums]).mean(0)
    variance = torch.stack([second for _, second in sums]).mean(0) - mean.square()
    norm.running_mean = (1 - share) * norm.running_mean + share * mean
    norm.running_var = (1 - share) * norm.running_var + share * variance.clamp(min=1e-6)
