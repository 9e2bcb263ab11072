"""The pinned codes against the tables that pydicom generates from the standard."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from ai_core.types import Quality
from dicom_node.domain.reasons import REASONS
from dicom_node.results import codes


def meanings(code: Code) -> set[str]:
    """Meanings that the standard gives to a code value."""
    table = concepts[code.scheme_designator]
    return {entry[code.value][0] for entry in table.values() if code.value in entry}


def context_groups(code: Code) -> set[int]:
    table = concepts[code.scheme_designator]
    return {
        group for entry in table.values() if code.value in entry for group in entry[code.value][1]
    }


@pytest.mark.parametrize("code", codes.STANDARD, ids=lambda code: code.meaning)
def test_standard_codes_have_the_standard_meaning(code: Code) -> None:
    assert code.meaning in meanings(code)


# highdicom writes these as PS3.16 does in its templates; the concept tables of pydicom have others
OTHER_WORDS = {"Source Series for Segmentation", "Finding category", "Source", "Finding Site"}


def test_pinned_codes_of_the_structure_have_the_standard_meaning() -> None:
    for (value, scheme), pinned in codes.PINNED.items():
        if scheme not in ("DCM", "SCT", "LN"):
            continue
        known = meanings(Code(value, scheme, ""))
        for meaning in pinned - OTHER_WORDS:
            assert meaning in known, (value, meaning, known)


def test_sector_map_is_cid_6304() -> None:
    assert len(codes.SECTORS) == 41
    assert len({code.value for code in codes.SECTORS.values()}) == 41
    for key, code in codes.SECTORS.items():
        assert code.meaning in meanings(code), key
        assert 6304 in context_groups(code), key


@pytest.mark.parametrize("key", sorted(codes.SECTORS))
def test_side_and_level_of_key_are_those_of_the_meaning(key: str) -> None:
    zone, _, level, side = key.split("/")
    words = codes.SECTORS[key].meaning.lower()
    assert {"L": "left", "R": "right", "-": ""}[side] in words
    assert {"base": "basal", "mid": "middle", "apex": "apical", "-": ""}[level] in words
    assert {
        "PZ": "peripheral", "TZ": "transition", "AS": "stroma", "CZ": "central",
        "SV": "seminal", "US": "sphincter",
    }[zone] in words  # fmt: skip


def test_unknown_sector_gets_the_coarser_truth() -> None:
    assert codes.finding_site("PZ/-/mid/R") == (codes.PERIPHERAL_ZONE, codes.RIGHT)
    assert codes.finding_site("TZ/x/base/L") == (codes.TRANSITION_ZONE, codes.LEFT)
    assert codes.finding_site("") == (codes.PROSTATE, None)


def test_quality_codes_of_reasons_and_of_findings_are_standard() -> None:
    of_reasons = {text.quality for text in REASONS.values() if text.quality}
    for code in of_reasons:
        assert code.meaning in meanings(Code(code.value, code.scheme, code.meaning))
    assert set(codes.QUALITY_CODES) <= set(Quality)
