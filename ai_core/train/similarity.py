"""How far sites lie from the first one, and the order in which training goes through them.

Claim 13: a further dataset is reordered by its similarity to the first. Two distances are combined:
between the features that the network trained on the first site gives the cases (Frechet, Heusel et
al. 2017, with shrunk covariances), and between the ways of acquiring (Gower 1971).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.config import CoreConfig, ModalityDropout
from ai_core.localize import localize
from ai_core.nets.localizer import MODALITIES
from ai_core.origin import SiteStep
from ai_core.release import Release
from ai_core.train.data import LesionSamples
from ai_core.train.site_list import Acquisition
from ai_core.train.source import Cases

Rows = npt.NDArray[np.float64]
NOTHING_WITHHELD = ModalityDropout(dce=0.0, high_b=0.0, adc=0.0, t2w_only=0.0)
#: Ratio of two numbers of an acquisition that counts as wholly different.
FARTHEST_RATIO = 2.0


@dataclass(frozen=True)
class Measured:
    """What the order is made from: embeddings ``(cases, features)`` and the acquisition."""

    name: str
    cases: int
    embeddings: Rows
    acquisition: Acquisition


def embeddings_of(release: Release, cases: Cases, config: CoreConfig, count: int) -> Rows:
    """Return the deepest features over the gland of ``count`` cases, ``(count, features)``.

    Cases are drawn as scanned, without augmentation, with every image they have.
    """
    count = min(count, len(cases)) if cases.real else count
    samples = LesionSamples(
        cases, config, "similarity", 1, NOTHING_WITHHELD, augment=False, in_order=True
    )
    rows = []
    for index in range(count):
        batch = samples.batch(index)
        flags = zip(MODALITIES, batch["present"].tolist(), strict=True)
        maps = localize(batch["image"][0].numpy(), tuple(m for m, f in flags if f), release)
        rows.append(maps.embedding(batch["zones"][0].numpy() > 0))
    return np.stack(rows)


def frechet(one: Rows, other: Rows) -> float:
    """Return the squared Frechet distance of two sets of embeddings as Gaussians; 0 if equal."""
    from sklearn.covariance import LedoitWolf

    first, second = LedoitWolf().fit(one), LedoitWolf().fit(other)
    a, b = first.covariance_, second.covariance_
    # tr((ab)^1/2) = sum of roots of the eigenvalues of a^1/2 b a^1/2, which is symmetric
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0.0, None)).sum()
    means = float(((first.location_ - second.location_) ** 2).sum())
    return max(0.0, means + float(np.trace(a) + np.trace(b) - 2 * shared))


def acquisition_distance(one: Acquisition, other: Acquisition) -> float | None:
    """Return the mean difference of what both tell, 0 (same) to 1; None where they share nothing.

    A name differs or not; a number differs by its ratio, wholly from `FARTHEST_RATIO` on.
    """
    found = []
    for name in Acquisition.model_fields:
        a, b = getattr(one, name), getattr(other, name)
        if a is None or b is None:
            continue
        if isinstance(a, str):
            found.append(float(a != b))
        else:
            found.append(min(1.0, abs(math.log(a / b)) / math.log(FARTHEST_RATIO)))
    return sum(found) / len(found) if found else None


def order_sites(sites: Sequence[Measured], acquisition_weight: float) -> tuple[SiteStep, ...]:
    """Return the first site, then the others from the nearest to the farthest.

    Features are scaled by their spread at the first site. Each distance is divided by the largest
    one; where acquisitions are not told, the embedding alone decides. Equal distances keep the
    order of the list.
    """
    first, *others = sites
    spread = np.maximum(first.embeddings.std(0), 1e-6)
    own = first.embeddings / spread
    embedding = {one.name: frechet(own, one.embeddings / spread) for one in others}
    told = {one.name: acquisition_distance(first.acquisition, one.acquisition) for one in others}
    combined = _combined(embedding, told, acquisition_weight)
    steps = [
        SiteStep(
            name=one.name, cases=one.cases, embedding=embedding[one.name],
            acquisition=told[one.name], distance=combined[one.name],
        )
        for one in others
    ]  # fmt: skip
    steps.sort(key=lambda step: step.distance or 0.0)
    return (SiteStep(name=first.name, cases=first.cases), *steps)


def _combined(
    embedding: Mapping[str, float], told: Mapping[str, float | None], weight: float
) -> dict[str, float]:
    farthest = max(embedding.values()) or 1.0
    near = {name: value / farthest for name, value in embedding.items()}
    known = {name: value for name, value in told.items() if value is not None}
    if len(known) < len(near):
        return near
    widest = max(known.values()) or 1.0
    return {n: (1 - weight) * near[n] + weight * known[n] / widest for n in near}
