"""The rendered images against measured figures of real prostate MRI, as bands."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from ai_core.sim.anatomy import draw_anatomy, rasterise
from ai_core.sim.dataset import (
    NO_AUGMENT,
    Augment,
    CachedCase,
    SimCache,
    build_cache,
    cache_geometry,
    case_of,
    load_case,
    render_training,
)
from ai_core.sim.dce import enhancement
from ai_core.sim.params import Tissue
from ai_core.sim.render import Maps, fit_adc
from ai_core.sim.sites import NAMED_SITES, draw_site, load_sites
from ai_core.sim.tissue import TABLE, draw_tissue

Images = dict[str, npt.NDArray[Any]]
CASES = 9


@cache
def _case(seed: int) -> CachedCase:
    """A patient with a cancer that readers would call PI-RADS 4 or 5, of at least 0.6 mL."""
    rng = np.random.default_rng([31, seed])
    params = draw_anatomy(rng, lesion=True)
    while not any(f.significant and f.pirads >= 4 and f.volume_ml > 0.6 for f in params.lesions):
        params = draw_anatomy(rng, lesion=True)
    return case_of(params, rasterise(params, cache_geometry()))


@cache
def _rendered() -> tuple[tuple[CachedCase, Images], ...]:
    torch.set_num_threads(1)
    out = []
    for seed in range(CASES):
        rng = np.random.default_rng([32, seed])
        images = render_training(
            _case(seed),
            rng,
            grid_zyx=(28, 96, 96),
            contrast="physics",
            site=NAMED_SITES["alpha"],
            augment=NO_AUGMENT,
        )
        out.append((_case(seed), {k: v.numpy() for k, v in images.items()}))
    return tuple(out)


def _clean(images: Images, zone: int) -> npt.NDArray[np.bool_]:
    focal = (images["lesion_instances"] > 0) | (images["benign"] > 0)
    return np.asarray((images["zones"] == zone) & ~ndimage.binary_dilation(focal))


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _zone_values(key: str, zone: int) -> list[npt.NDArray[np.float64]]:
    return [i[key][_clean(i, zone)].astype(float) for _, i in _rendered()]


@pytest.mark.slow
def test_t2w_zone_statistics_lie_in_the_measured_bands() -> None:
    pz, tz = _zone_values("t2w", 1), _zone_values("t2w", 2)
    assert 0.27 <= _median([v.std() / v.mean() for v in pz]) <= 0.50
    assert 0.24 <= _median([v.std() / v.mean() for v in tz]) <= 0.55
    assert 0.43 <= _median([b.mean() / a.mean() for a, b in zip(pz, tz, strict=True)]) <= 0.86


@pytest.mark.slow
def test_adc_zone_statistics_lie_in_the_measured_bands() -> None:
    pz, tz = _zone_values("adc", 1), _zone_values("adc", 2)
    assert 1430 <= _median([float(np.median(v)) for v in pz]) <= 1640
    assert 1150 <= _median([float(np.median(v)) for v in tz]) <= 1350
    assert 0.18 <= _median([v.std() / v.mean() for v in pz]) <= 0.40
    assert 0.12 <= _median([v.std() / v.mean() for v in tz]) <= 0.30


def test_t2_and_adc_are_correlated_in_the_peripheral_zone() -> None:
    pairs = zip(_zone_values("t2w", 1), _zone_values("adc", 1), strict=True)
    assert 0.3 <= _median([float(np.corrcoef(t, a)[0, 1]) for t, a in pairs]) <= 0.75


@pytest.mark.slow
def test_surroundings_of_the_gland_are_dark() -> None:
    near, far = [], []
    for case, images in _rendered():
        zones = images["zones"]
        away = ndimage.distance_transform_edt(zones == 0, sampling=(3, 1, 1))
        level = np.abs(np.arange(28) - 13.5) * 3 < 0.8 * case.params.gland.az
        pz = float(np.median(images["t2w"][_clean(images, 1)].astype(float)))
        t2w = images["t2w"].astype(float) / pz
        near.append(float(np.median(t2w[(away >= 2) & (away < 8) & level[:, None, None]])))
        far.append(float(np.median(t2w[(away >= 8) & (away < 25) & level[:, None, None]])))
    assert 0.45 <= _median(near) <= 0.85
    assert 0.35 <= _median(far) <= 0.90


def test_rendered_cancers_stand_out_as_cancers_do() -> None:
    adc: list[float] = []
    high_b: list[float] = []
    t2w: list[float] = []
    for case, images in _rendered():
        for number, focus in enumerate(case.params.lesions, start=1):
            mask = images["lesion_instances"] == number
            if focus.pirads < 4 or not focus.significant or mask.sum() < 100:
                continue
            zone = _clean(images, focus.zone)
            for key, out in (("adc", adc), ("high_b", high_b), ("t2w", t2w)):
                image = images[key].astype(float)
                out.append(float(np.median(image[mask]) / np.median(image[zone])))
    assert len(adc) >= 4
    assert _median(adc) < 0.85 and np.mean(np.array(adc) < 0.9) >= 0.8
    assert 1.2 < _median(high_b) < 2.3
    assert 0.55 < _median(t2w) < 0.95


def test_random_contrast_keeps_adc_quantitative_and_lesions_dark_on_it() -> None:
    draws = [
        draw_tissue(np.random.default_rng(i), NAMED_SITES["alpha"], "random") for i in range(200)
    ]
    pz = np.array([d.adc[Tissue.PZ] for d in draws])
    assert 1.5 < np.median(pz) < 2.1 and pz.min() > 1.0
    ratio = np.array([d.t2w[Tissue.TZ] / d.t2w[Tissue.PZ] for d in draws])
    assert (ratio > 1).mean() > 0.2 and (ratio < 1).mean() > 0.2
    assert 0.02 < np.mean([d.lesion_t2_free for d in draws]) < 0.2
    with pytest.raises(ValueError, match="use mix, physics or random"):
        draw_tissue(np.random.default_rng(0), NAMED_SITES["alpha"], "wild")


def test_enhancement_curve_follows_the_measured_one() -> None:
    site = NAMED_SITES["alpha"]
    measured = np.array([0.81, 1.03, 1.25, 1.46, 1.55, 1.54])
    curves = []
    for tissue in (Tissue.PZ, Tissue.TZ):
        row = TABLE[tissue]
        one = [torch.full((1, 1, 1), float(v)) for v in (1, row.t1, row.ktrans)]
        kep = torch.full((1, 1, 1), 0.8 * row.ktrans / row.ve)
        vp = torch.full((1, 1, 1), row.vp)
        maps = Maps(one[0], one[0], one[0], one[0], one[1], one[2], kep, vp)
        signal = enhancement(maps, [-1, 15, 30, 60, 120, 180, 240], site).reshape(-1).numpy()
        curves.append(signal[1:] / signal[0] - 1)
    assert np.abs(np.mean(curves, axis=0) / measured - 1).max() < 0.25


def test_adc_fit_recovers_a_pure_exponential() -> None:
    adc = torch.tensor([[[0.8, 1.6, 2.5]]])
    b_values = (50.0, 400.0, 800.0)
    signals = torch.stack([2.0 * torch.exp(-b / 1000 * adc) for b in b_values])
    log_s0, fitted = fit_adc(signals, b_values)
    assert torch.allclose(fitted, adc, atol=1e-4)
    assert torch.allclose(log_s0, torch.log(torch.tensor(2.0)).expand_as(adc), atol=1e-4)


def test_zero_filling_is_a_habit_of_sites() -> None:
    zeros = []
    for habit in (False, True):
        site = replace(NAMED_SITES["alpha"], adc_zero_fill=habit)
        images = render_training(_case(0), np.random.default_rng(5), site=site, augment=NO_AUGMENT)
        zeros.append(float((images["adc"] == 0).float().mean()))
    assert zeros[1] > zeros[0] + 0.05


def test_training_render_is_seeded_and_has_the_promised_form() -> None:
    first = render_training(_case(1), np.random.default_rng(3))
    second = render_training(_case(1), np.random.default_rng(3))
    other = render_training(_case(1), np.random.default_rng(4))
    assert set(first) == {
        "t2w", "adc", "high_b", "dce", "zones", "lesion", "lesion_instances", "isup", "pirads",
        "benign", "benign_pirads", "fov",
    }  # fmt: skip
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
        if value.is_floating_point():
            assert bool(torch.isfinite(value).all()), key
    assert not torch.equal(first["t2w"], other["t2w"])
    assert first["dce"].shape == (2, 24, 96, 96)
    finder = render_training(
        _case(1), np.random.default_rng(3), spacing_zyx_mm=(3.0, 1.5, 1.5), modalities=("t2w",)
    )
    assert "adc" not in finder and finder["t2w"].shape == (24, 96, 96)


def test_scale_augmentation_changes_the_gland_volume() -> None:
    still = render_training(_case(2), np.random.default_rng(0), augment=NO_AUGMENT)
    bigger = Augment(scale=(1.2, 1.2), anisotropy=0, rotation_deg=0, shift_zyx_mm=(0, 0, 0),
                     flip=False, soup=0, fov_mask=0, slice_drop=0)  # fmt: skip
    scaled = render_training(_case(2), np.random.default_rng(0), augment=bigger)
    ratio = float((scaled["zones"] > 0).sum() / (still["zones"] > 0).sum())
    assert ratio == pytest.approx(1.2**3, rel=0.15)


def test_soup_replaces_only_what_lies_outside_the_gland() -> None:
    plain = render_training(_case(3), np.random.default_rng(0), augment=NO_AUGMENT)
    soup = Augment(scale=(1, 1), anisotropy=0, rotation_deg=0, shift_zyx_mm=(0, 0, 0),
                   flip=False, soup=1.0, fov_mask=0, slice_drop=0)  # fmt: skip
    mixed = render_training(_case(3), np.random.default_rng(0), augment=soup)
    assert torch.equal(plain["zones"], mixed["zones"])
    assert torch.equal(plain["lesion"], mixed["lesion"])
    assert not torch.equal(plain["t2w"], mixed["t2w"])


@pytest.mark.slow
def test_cache_is_the_same_whenever_it_is_built_and_resumes(tmp_path: Path) -> None:
    folder = tmp_path
    seen: list[tuple[int, int]] = []
    first = build_cache(folder / "a", 2, seed=3, progress=lambda d, n: seen.append((d, n)))
    assert seen == [(1, 2), (2, 2)]
    kept = first[0].stat().st_mtime_ns
    first[1].unlink()
    build_cache(folder / "a", 2, seed=3)
    assert first[0].stat().st_mtime_ns == kept
    again = build_cache(folder / "b", 2, seed=3)
    for one, two in zip(first, again, strict=True):
        a, b = load_case(one), load_case(two)
        assert a.params == b.params
        assert all(torch.equal(a.maps[k], b.maps[k]) for k in a.maps)
        assert one.stat().st_size < 300_000
    assert len(SimCache.open(folder / "a")) == 2
    with pytest.raises(FileNotFoundError, match="build them first"):
        SimCache.open(folder / "none")


def test_sites_vary_and_load_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sites = [draw_site(rng) for _ in range(60)]
    assert {s.adc_zero_fill for s in sites} == {True, False}
    assert {s.high_b_computed for s in sites} == {True, False}
    assert len({s.b_values for s in sites}) >= 4
    path = tmp_path / "sites.toml"
    path.write_text('[[sites]]\nname = "north"\nb_values = [0, 800]\nfield_strength_t = 1.5\n')
    (site,) = load_sites(path)
    assert site.name == "north" and site.b_values == (0.0, 800.0)
    path.write_text('[[sites]]\nnam = "north"\n')
    with pytest.raises(ValueError, match="unknown site fields"):
        load_sites(path)
