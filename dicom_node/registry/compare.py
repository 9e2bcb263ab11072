"""The studies that two releases both analysed, and how far they agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dicom_node.domain.agreement import Agreement, FindingSummary, Pair, Summary, agreement_of
from dicom_node.store.rows import ShadowRow
from dicom_node.store.store import Store


def compare(store: Store, first: str, second: str) -> Agreement:
    """Return the agreement of two releases (digests) over their shadow runs, either way round.

    A run that failed counts where ``second`` was the one in the shadow.
    """
    pairs = []
    for run in store.shadow_list(first, second):
        pair = pair_of(run)
        if run.active_sha256 == first:
            pairs.append(pair)
        elif turned := pair.turned():
            pairs.append(turned)
    return agreement_of(pairs)


def pair_of(run: ShadowRow) -> Pair:
    """Read what a run wrote; one that failed holds ``error`` alone."""
    values = json.loads(run.pair_json)
    if values.get("error"):
        return Pair(Summary(0.0, False, 0.0, 0.0), None, error=str(values["error"]))
    return Pair(
        _summary(values["first"]), _summary(values["second"]),
        values["dice_gland"], values["dice_lesions"],
    )  # fmt: skip


def _summary(values: Mapping[str, Any]) -> Summary:
    findings = tuple(
        FindingSummary(**{**one, "center_lps_mm": tuple(one["center_lps_mm"])})
        for one in values["findings"]
    )
    return Summary(**{**values, "findings": findings})
