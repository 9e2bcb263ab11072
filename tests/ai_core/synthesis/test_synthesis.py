"""Abnormality by synthesis: what is deleted, what is seen, what is compared, when it abstains."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ai_core.config import CoreConfig, Grid, SynthesisRules
from ai_core.nets.synthesis import Generator
from ai_core.synthesis.branch import in_gland, in_region
from ai_core.synthesis.compare import (
    Seen,
    fit_spread,
    judge,
    names_of,
    positions,
    signed_difference,
)
from ai_core.synthesis.complete import Normal, Prostate, box_around, normal_image
from ai_core.synthesis.holes import Lattice
from ai_core.types import Modality

SHAPE = (8, 40, 40)
ALL = (Modality.T2W, Modality.ADC, Modality.HIGH_B)


def config(**rules: object) -> CoreConfig:
    grid = Grid(shape_zyx=SHAPE, spacing_zyx_mm=(3.0, 1.2, 1.2))
    return CoreConfig(
        name="x", version="1", lesion_grid=grid, synthesis=SynthesisRules.model_validate(rules)
    )


def generator() -> Generator:
    torch.manual_seed(3)
    return Generator((4, 4, 8, 8)).eval()


def zones() -> npt.NDArray[np.uint8]:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = (z / 0.8) ** 2 + (y / 0.6) ** 2 + (x / 0.7) ** 2 < 1
    return np.where(inside, np.where(y > 0.2, 1, 2), 0).astype(np.uint8)


def prostate(seed: int = 0, present: tuple[Modality, ...] = ALL) -> Prostate:
    rng = np.random.default_rng(seed)
    stack = rng.normal(0, 0.3, (5, *SHAPE)).astype(np.float32)
    stack[1] += 1.4
    stack[2] += 1.0
    return Prostate(stack, present, zones())


def with_lesion(normal: Prostate) -> tuple[Prostate, npt.NDArray[np.bool_]]:
    """The same prostate with a spot that is dark on T2W and ADC and bright at high b."""
    place = np.zeros(SHAPE, dtype=bool)
    place[3:6, 24:29, 14:19] = True
    stack = normal.stack.copy()
    stack[:, place] += np.array([-2.0, -0.8, 0.8, 0, 0], dtype=np.float32)[:, None]
    return dataclasses.replace(normal, stack=stack), place


@given(
    stride=st.integers(1, 6), holes=st.integers(1, 3), gaps=st.integers(1, 3),
    rows=st.integers(1, 50), columns=st.integers(1, 50),
)  # fmt: skip
def test_every_voxel_is_deleted_as_often_as_promised(
    stride: int, holes: int, gaps: int, rows: int, columns: int
) -> None:
    lattice = Lattice(stride * holes, stride, stride * (holes + gaps))
    planes = list(lattice.planes((rows, columns)))
    assert len(planes) == lattice.count
    times = np.sum(planes, axis=0)
    assert (times == lattice.times).all()


def test_holes_that_do_not_tile_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiples of stride"):
        SynthesisRules(hole_voxels=16, stride_voxels=5)
    with pytest.raises(ValidationError, match="larger than hole"):
        SynthesisRules(hole_voxels=16, stride_voxels=8, period_voxels=16)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_the_generator_never_sees_what_was_deleted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (1, 1, 4, 16, 16)
    deleted = torch.from_numpy((rng.random(shape) < 0.3).astype(np.float32))
    one = torch.from_numpy(rng.normal(size=(1, 3, *shape[2:])).astype(np.float32))
    other = torch.where(deleted > 0, torch.from_numpy(rng.normal(size=1).astype(np.float32)), one)
    about, noise = torch.ones(1, 4, *shape[2:]), torch.zeros(shape)
    network = generator()
    with torch.inference_mode():
        a, b = (network(image, deleted, about, noise) for image in (one, other))
    hidden = (deleted > 0).expand_as(a)
    assert torch.equal(a[hidden], b[hidden])
    assert torch.equal(a[~hidden], one[~hidden])


def test_the_normal_image_is_the_same_each_time_and_keeps_what_lies_outside() -> None:
    rules = config(hole_voxels=8, stride_voxels=4, period_voxels=16, draws=2)
    one, two = (normal_image(prostate(), generator(), rules) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    outside = ~prostate().deletable(rules)
    assert np.array_equal(one.image[:, outside], prostate().standardised()[:, outside])
    assert (one.disagreement[:, outside] == 0).all()
    assert np.isfinite(one.image).all()
    assert (one.disagreement[:, zones() > 0] > 0).any()


def test_an_absent_image_is_neither_synthesised_nor_counted() -> None:
    rules = config(hole_voxels=8, stride_voxels=4, period_voxels=16)
    partial = prostate(present=(Modality.T2W, Modality.ADC))
    assert (normal_image(partial, generator(), rules).image[2] == 0).all()
    changed = dataclasses.replace(partial, stack=partial.stack + np.eye(5, dtype=np.float32)[2][
        :, None, None, None
    ])  # fmt: skip
    one, two = (normal_image(p, generator(), rules).image for p in (partial, changed))
    assert np.array_equal(one, two)
    assert names_of(partial.present) == "t2w+adc"


def test_a_box_can_be_halved_and_holds_the_gland() -> None:
    mask = zones() > 0
    box = box_around(mask)
    cut = mask[box]
    assert cut.sum() == mask.sum()
    assert all(n % step == 0 for n, step in zip(cut.shape, (4, 8, 8), strict=True))
    with pytest.raises(ValueError, match="no gland"):
        box_around(np.zeros(SHAPE, dtype=bool))


def _seen(seeds: range, rules: CoreConfig) -> list[Seen]:
    """Normal cases whose normal image is flat: what is left is their noise."""
    rows = []
    for seed in seeds:
        case = prostate(seed)
        flat = Normal(np.zeros((3, *SHAPE), np.float32), np.zeros((3, *SHAPE), np.float32))
        rows.append(Seen(signed_difference(case, flat, rules)[:, case.zones > 0], case))
    return rows


FLAT = Normal(np.zeros((3, *SHAPE), np.float32), np.zeros((3, *SHAPE), np.float32))


def test_a_lesion_stands_out_and_its_opposite_does_not() -> None:
    rules = config()
    spread = fit_spread(_seen(range(12), rules))
    sick, place = with_lesion(prostate(99))
    gland = sick.zones > 0
    found = judge(sick, FLAT, spread, rules)
    assert found.credible
    assert in_region(found.map, place, gland) > 5
    assert in_gland(found.map, gland, 0.00432) > 3
    assert float(np.median(found.map[gland & ~place])) < 1.5
    assert (found.map[~gland] == 0).all()
    opposite = dataclasses.replace(sick, stack=2 * prostate(99).stack - sick.stack)
    assert in_region(judge(opposite, FLAT, spread, rules).map, place, gland) == 0


def test_the_spread_is_that_of_the_place() -> None:
    rules = config()
    rows = _seen(range(8), rules)
    peripheral = zones()[zones() > 0] == 1
    noisy = [
        dataclasses.replace(r, difference=r.difference * np.where(peripheral, 3.0, 1.0))
        for r in rows
    ]
    spread = np.reshape(fit_spread(noisy).spread, (3, 2, 4, 4, 3))
    assert spread[:, 0].mean() > 1.5 * spread[:, 1].mean()
    where = positions(zones())
    assert where.min() >= -0.5
    assert (where <= np.array([3.5, 3.5, 2.5])).all()


def test_where_the_whole_gland_differs_it_abstains() -> None:
    rules = config()
    spread = fit_spread(_seen(range(12), rules))
    strange = prostate(99)
    strange = dataclasses.replace(strange, stack=strange.stack + np.float32(0.6))
    found = judge(strange, FLAT, spread, rules)
    assert not found.credible
    assert found.typical > found.limit


def test_images_that_no_normal_case_had_are_not_believed() -> None:
    rules = config()
    rows = [
        dataclasses.replace(r, prostate=dataclasses.replace(r.prostate, present=(Modality.T2W,)))
        for r in _seen(range(4), rules)
    ]
    assert not judge(prostate(50), FLAT, fit_spread(rows), rules).credible
    with pytest.raises(ValueError, match="two normal cases"):
        fit_spread(rows[:1])
