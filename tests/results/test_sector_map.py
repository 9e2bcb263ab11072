"""The drawn sector map: all 41 sectors, each once, right on the left of the picture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from dicom_node.results.codes import SECTORS
from dicom_node.results.sector_map import (
    KEYS,
    LEVELS,
    Mark,
    draw_level,
    labels,
    place_of,
    sectors_of,
)

SIZE = 196


def test_every_sector_is_drawn_on_exactly_one_level() -> None:
    drawn = [KEYS[i] for level in LEVELS for i in np.unique(labels(level, SIZE)) if i >= 0]
    assert sorted(drawn) == sorted(SECTORS)


@pytest.mark.parametrize("key", sorted(SECTORS))
def test_a_sector_is_one_piece_on_its_side_of_its_level(key: str) -> None:
    zone, _, level, side = key.split("/")
    expected = {"SV": LEVELS[0], "CZ": "base", "US": "apex"}.get(zone, level)
    found = labels(expected, SIZE) == KEYS.index(key)
    assert found.sum() > 60
    pieces = ndimage.label(found)[1]
    # sphincter and central zone lie upon other sectors and may cut a corner off
    assert pieces == 1, pieces
    columns = np.nonzero(found)[1]
    if side == "R":
        assert columns.max() < SIZE / 2
    if side == "L":
        assert columns.min() >= SIZE / 2
    place = place_of(expected, SIZE, key)
    assert place is not None
    assert found[int(place[1]), int(place[0])]


def test_anterior_is_up() -> None:
    rows = {
        position: np.nonzero(labels("mid", SIZE) == KEYS.index(f"PZ/{position}/mid/R"))[0].mean()
        for position in ("a", "pl", "pm")
    }
    assert rows["a"] < rows["pl"] < rows["pm"]


def test_a_coarser_key_marks_all_its_sectors_and_nonsense_marks_none() -> None:
    assert set(sectors_of("PZ/-/mid/R")) == {"PZ/a/mid/R", "PZ/pl/mid/R", "PZ/pm/mid/R"}
    assert sectors_of("") == sectors_of("PZ") == sectors_of("XX/a/mid/R") == ()


def test_the_more_suspicious_finding_gives_the_colour() -> None:
    marks = [Mark(1, "PZ/pl/mid/R", (255, 0, 0)), Mark(2, "PZ/pl/mid/R", (0, 255, 0))]
    picture = draw_level("mid", SIZE, marks)
    assert (picture == (255, 0, 0)).all(axis=-1).sum() > 500
    assert not (picture == (0, 255, 0)).all(axis=-1).any()
