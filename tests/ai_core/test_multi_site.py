"""Training over sites: distances, order, the growing window, and a run that goes on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_core.config import CoreConfig, Grid, Phase
from ai_core.errors import InputError
from ai_core.manifest import verify_files
from ai_core.release import load_release
from ai_core.sim.dataset import build_cache
from ai_core.sim.sites import Site
from ai_core.train.multi_site import MultiSite, open_sites, stage_config
from ai_core.train.similarity import Measured, acquisition_distance, frechet, order_sites
from ai_core.train.site_list import Acquisition, SiteList, Window, pooled, read_sites
from ai_core.train.source import Drawn, Source
from tests.ai_core.conftest import small_config

GRID = Grid(shape_zyx=(6, 16, 16), spacing_zyx_mm=(8.0, 5.0, 5.0))
LIST = """
newest = 0.6
measured = 8
[[sites]]
name = "first"
data = ["first"]
[sites.scanner]
field_strength_t = 3.0
[[sites]]
name = "second"
data = ["second"]
[sites.acquisition]
vendor = "B"
"""


def rows(seed: int, shift: float = 0.0, count: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, 4))


@given(st.integers(0, 50), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_the_frechet_distance_is_a_distance(seed: int, shift: float) -> None:
    one, other = rows(seed), rows(seed + 100, shift)
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet(one, other) >= 0
    assert frechet(one, other) == pytest.approx(frechet(other, one), rel=1e-6)
    assert frechet(one, one + shift) == pytest.approx(4 * shift**2, abs=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ({"vendor": "A"}, {"vendor": "A"}, 0.0),
        ({"vendor": "A", "slice_mm": 3.0}, {"vendor": "B", "slice_mm": 3.0}, 0.5),
        ({"field_strength_t": 3.0}, {"field_strength_t": 1.5}, 1.0),
        ({"slice_mm": 3.0}, {"slice_mm": 3.0 * 2**0.5}, 0.5),
        ({"slice_mm": 3.0, "vendor": "A"}, {"slice_mm": 9.0}, 1.0),
        ({"slice_mm": 3.0}, {"vendor": "A"}, None),
    ],
)
def test_acquisitions_differ_by_what_both_tell(
    one: dict[str, Any], other: dict[str, Any], distance: float | None
) -> None:
    a, b = Acquisition(**one), Acquisition(**other)
    assert acquisition_distance(a, b) == pytest.approx(distance)
    assert acquisition_distance(b, a) == pytest.approx(distance)


def measured(name: str, shift: float, **told: Any) -> Measured:
    return Measured(name, 30, rows(len(name), shift), Acquisition(**told))


@pytest.mark.parametrize("turned", [False, True])
def test_sites_go_from_near_to_far_whatever_their_order_in_the_list(turned: bool) -> None:
    others = [measured("far", 3.0), measured("middle", 1.5), measured("near", 0.2)]
    steps = order_sites([measured("first", 0.0), *(others[::-1] if turned else others)], 0.5)
    assert [step.name for step in steps] == ["first", "near", "middle", "far"]
    assert steps[0].distance is None
    assert steps[-1].distance == 1.0


def test_the_acquisition_counts_by_its_weight() -> None:
    sites = [
        measured("first", 0.0, field_strength_t=3.0),
        measured("alike", 0.5, field_strength_t=1.5),
        measured("strange", 0.7, field_strength_t=3.0),
    ]
    assert [s.name for s in order_sites(sites, 0.0)] == ["first", "alike", "strange"]
    assert [s.name for s in order_sites(sites, 1.0)] == ["first", "strange", "alike"]


class Named:
    """Cases that say where they were drawn."""

    real = False

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def draw(self, rng: Any, *_: Any, **__: Any) -> Drawn:
        return (self.name, _[3])  # type: ignore[return-value]


def test_half_of_the_draws_come_from_the_newest_site_and_the_rest_from_all_before() -> None:
    window = Window((Named("a", 2), Named("b", 3), Named("c", 9)), 0.5)
    rng = np.random.default_rng(0)
    found = Counter(window.draw(rng, GRID, (0, 0, 0), ())[0] for _ in range(2000))  # type: ignore[index]
    assert found["c"] == pytest.approx(1000, abs=80)
    assert found["a"] == pytest.approx(500, abs=80)
    assert len(window) == 14


def test_in_order_the_sites_take_turns_and_one_site_is_no_window() -> None:
    both = pooled([Named("a", 2), Named("b", 3)])
    rng = np.random.default_rng(0)
    drawn = [both.draw(rng, GRID, (0, 0, 0), (), number) for number in range(4)]
    assert drawn == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    alone = Window((Named("a", 2),), 0.1)
    assert alone.draw(rng, GRID, (0, 0, 0), ()) == ("a", None)


def test_the_list_is_read_with_folders_from_its_own(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(LIST)
    listed = read_sites(tmp_path / "sites.toml")
    first, second = listed.sites
    assert first.data == (tmp_path / "first",)
    assert (first.acquires.field_strength_t, first.acquires.vendor) == (3.0, "vendor-a")
    assert (second.simulated, second.acquires) == (None, Acquisition(vendor="B"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("second", "first"), "stands twice"),
        (("newest = 0.6", "newest = 2"), "newest"),
        (("field_strength_t", "field"), "unknown site fields"),
        (("measured = 8", "of = 8"), "of"),
        (("[[sites]]", "[[sites"), "no list of sites"),
    ],
)
def test_a_wrong_list_says_what_is_wrong(tmp_path: Path, change: tuple[str, str], why: str) -> None:
    (tmp_path / "sites.toml").write_text(LIST.replace(*change))
    with pytest.raises(InputError, match=why):
        read_sites(tmp_path / "sites.toml")


def test_a_further_stage_has_fewer_steps_and_batches_of_its_own() -> None:
    config = small_config(localize=Phase(steps=10), joint=Phase(steps=0))
    listed = SiteList.model_validate(
        {"share": 0.5, "sites": [{"name": "a", "data": ["a"]}, {"name": "b", "data": ["b"]}]}
    )
    later = stage_config(config, 2, listed).training
    assert (later.localize.steps, later.joint.steps) == (5, 0)
    assert later.seed == config.training.seed + 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anatomies of two sites and their list."""
    made = tmp_path_factory.mktemp("sites")
    for seed, name in enumerate(("first", "second")):
        build_cache(made / name, 4, seed=seed)
    (made / "sites.toml").write_text(LIST)
    return made


def tiny(**training: Any) -> CoreConfig:
    few = Phase(steps=2, batch=1)
    return small_config(
        held_out=0.5, localize=few, gland=Phase(steps=0), classify=few, joint=Phase(steps=0),
        **training,
    ).model_copy(update={"lesion_grid": GRID})  # fmt: skip


def test_a_source_is_rendered_at_the_scanner_of_its_site(folder: Path) -> None:
    source = Source((folder / "first",), 2).rendered_at(Site(gain=5000.0))
    weak = Source((folder / "first",), 2).rendered_at(Site(gain=50.0))
    bright, dark = (
        one.draw(np.random.default_rng(3), GRID, (0.0, 0.0, 0.0), ("t2w",), 0, augment=False)
        for one in (source, weak)
    )
    assert bright.images.t2w.mean() == pytest.approx(100 * dark.images.t2w.mean(), rel=0.2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_over_sites_goes_on_where_it_was_and_its_release_tells_the_order(
    folder: Path, tmp_path: Path
) -> None:
    config, listed = tiny(), read_sites(folder / "sites.toml")
    cases = open_sites(listed, config, tmp_path)
    run = MultiSite(config, listed, cases, tmp_path / "run", "cpu", resume=False)
    weights, order = run.run()
    assert [step.name for step in order] == ["first", "second"]
    again = MultiSite(config, listed, cases, tmp_path / "run", "cpu", resume=True)
    (tmp_path / "run" / "stage-1-second" / "classify.safetensors").unlink()
    same, kept = again.run()
    assert kept == order
    for name, tensors in weights.items():
        assert all(torch.equal(value, same[name][key]) for key, value in tensors.items())
    with pytest.raises(InputError, match="holds a training run"):
        run.run()
    run.make_release(weights, order)
    origin = verify_files(tmp_path / "run" / "release").origin
    assert origin is not None
    assert origin.sites == order
    assert load_release(tmp_path / "run" / "release", "cpu").config == config
    told = json.loads((tmp_path / "run" / "order.json").read_text())
    assert told[1]["embedding"] > 0
