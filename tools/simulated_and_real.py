"""Draws simulated examinations beside a real one, the same slice and window for all.

    python tools/simulated_and_real.py --real T2W_FOLDER ADC_FOLDER HIGH_B_FOLDER \
        --anatomies CACHE --out docs/images/simulated-and-real.png

The real series are folders of DICOM files of one series each; the cache is made by
`ai-core simulate --anatomies`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure

from ai_core.geometry import centre_lps, grid_around
from ai_core.sim.dataset import NO_AUGMENT, SimCache, render_training
from ai_core.sim.sites import draw_site
from ai_core.types import FloatArray, Geometry

SHAPE, SPACING = (24, 128, 128), (3.0, 1.0, 1.0)
ROWS = (("T2W", 0, 11), ("T2W, nearer the apex", 0, 8), ("ADC", 1, 11), ("high b-value", 2, 11))
HIGHEST_ADC = 2600.0


def real_images(folders: list[Path]) -> list[FloatArray]:
    """Read T2W, ADC and high b of one examination on a grid in the middle of T2W."""
    images = [_series(folder) for folder in folders]
    first = images[0]
    d = first.GetDirection()
    geometry = Geometry(
        first.GetSize(), first.GetSpacing(), first.GetOrigin(), (d[0:3], d[3:6], d[6:9])
    )
    z, y, x = SPACING
    size = (SHAPE[2], SHAPE[1], SHAPE[0])
    grid = grid_around(centre_lps(geometry), (x, y, z), size, np.array(d).reshape(3, 3))
    target = sitk.Image(grid.size_xyz, sitk.sitkFloat32)
    target.SetSpacing(grid.spacing_xyz_mm)
    target.SetOrigin(grid.origin_lps_mm)
    target.SetDirection(d)
    return [sitk.GetArrayFromImage(sitk.Resample(image, target)) for image in images]


def _series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.Cast(reader.Execute(), sitk.sitkFloat32)


def simulated_images(cache: SimCache, index: int, seed: int) -> list[FloatArray]:
    """Render one cached anatomy at a random site, without masking or random contrast."""
    rng = np.random.default_rng([seed, index])
    out = render_training(
        cache.load(index),
        rng,
        grid_zyx=SHAPE,
        spacing_zyx_mm=SPACING,
        modalities=("t2w", "adc", "high_b"),
        contrast="physics",
        site=draw_site(rng),
        augment=NO_AUGMENT,
    )
    return [out[name].numpy() for name in ("t2w", "adc", "high_b")]


def draw(columns: list[tuple[str, list[FloatArray]]], out: Path) -> None:
    """Write the picture: a column for each examination, a row for each image."""
    figure = Figure(figsize=(2.3 * len(columns), 2.3 * len(ROWS) + 0.4), layout="constrained")
    panels = figure.subplots(len(ROWS), len(columns))
    for line, (label, kind, z) in enumerate(ROWS):
        for column, (title, images) in enumerate(columns):
            panel, image = panels[line, column], images[kind]
            top = HIGHEST_ADC if kind == 1 else float(np.percentile(image[image > 0], 99.2))
            panel.imshow(image[z], cmap="gray", vmin=0, vmax=top)
            panel.set_xticks([])
            panel.set_yticks([])
            if line == 0:
                panel.set_title(title)
            if column == 0:
                panel.set_ylabel(label)
    figure.savefig(out, dpi=80)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--real", type=Path, nargs=3, required=True)
    parser.add_argument("--anatomies", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    cache = SimCache.open(given.anatomies)
    columns = [("real", real_images(given.real))]
    columns += [
        (f"simulated {i + 1}", simulated_images(cache, i, given.seed)) for i in range(given.count)
    ]
    draw(columns, given.out)


if __name__ == "__main__":
    main()
