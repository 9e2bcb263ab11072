"""The opinion of the synthesis branch, as part of a result."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from ai_core.nets.synthesis import IMAGES
from ai_core.prepare.geometry import Window, resample_map
from ai_core.synthesis.compare import Abnormality
from ai_core.synthesis.complete import MIDDLE, SPREAD, SYNTHESISED, Prostate
from ai_core.types import FloatArray, Geometry, Modality, Quality, QualityFinding, Synthesis


def in_words(opinion: Abnormality | None) -> list[QualityFinding]:
    """Return a remark where the branch abstains."""
    if opinion is None or opinion.credible:
        return []
    words = (
        "Synthesis of normal tissue is not credible here: the whole gland differs "
        f"({opinion.typical:.2f}, believed up to {opinion.limit:.2f}). No abnormality map is given."
    )
    return [QualityFinding(Quality.SYNTHESIS_ABSTAINS, words, round(opinion.typical, 3))]


def on_t2w(
    opinion: Abnormality | None, prostate: Prostate, grid: Geometry, window: Window
) -> Synthesis | None:
    """Bring the opinion to the T2W grid; images stay on the working grid ``grid``."""
    if opinion is None:
        return None
    units = np.asarray(opinion.normal.image * SPREAD + MIDDLE, dtype=np.float32)
    found: FloatArray | None = None
    if opinion.credible:
        found = window.embed(np.maximum(resample_map(opinion.map, grid, window.part), 0.0))
    return Synthesis(
        abnormality=found,
        grid=grid,
        input=_by_name(prostate.stack[:IMAGES], prostate),
        normal=_by_name(units, prostate),
        typical=opinion.typical,
        limit=opinion.limit,
    )


def _by_name(images: FloatArray, prostate: Prostate) -> MappingProxyType[Modality, FloatArray]:
    pairs = zip(SYNTHESISED, images, strict=True)
    return MappingProxyType({name: image for name, image in pairs if name in prostate.present})
