"""Normal prostates to train synthesis on: what a radiologist would not report."""

from __future__ import annotations

from dataclasses import replace

from ai_core.errors import InputError
from ai_core.train.archive_source import ArchiveSource
from ai_core.train.datasets import Mixed
from ai_core.train.source import Cases, Source


def normals_of(cases: Cases) -> Cases:
    """Return the same data as normal prostates.

    Simulated anatomies lose their cancers and the benign foci that look like one; of real
    examinations those without a marked lesion are taken.

    Raises:
        InputError: no normal examination is left.
    """
    if isinstance(cases, Source):
        return replace(cases, normal=True)
    if isinstance(cases, ArchiveSource):
        kept = cases.without_lesions()
        if not len(kept):
            raise InputError(
                "every examination has a lesion; synthesis is trained on normal ones",
                "Add examinations without lesions, or set training.synthesis.steps = 0.",
            )
        return kept
    parts = getattr(cases, "parts", None)
    if parts is None:
        raise InputError("these cases cannot be made normal", "Give --data.")
    return Mixed(tuple(normals_of(part) for part in parts))
