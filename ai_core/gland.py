"""Finds the prostate on T2W and decides whether to believe it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from scipy import ndimage

from ai_core.candidates import CUBE_26
from ai_core.geometry import centre_lps, lps_of_index
from ai_core.nets.gland import both_ways
from ai_core.prepare.geometry import resample, resample_map, to_sitk, working_grid
from ai_core.prepare.normalise import whole_image_z
from ai_core.release import Release
from ai_core.types import FloatArray, Geometry, Vector3, Volume

Mask = npt.NDArray[np.bool_]
#: A gland further than this from the middle of the grid is looked at again, centred.
RECENTRE_MM = 10.0
#: Plausible extents z, y, x in millimetres.
EXTENTS_MM = ((12.0, 100.0), (14.0, 95.0), (20.0, 105.0))


@dataclass(frozen=True)
class GlandFound:
    """The prostate on a coarse grid, and how sure the finder is.

    ``probability``: of gland, 0-1, on ``grid``. ``presence``: that there is a prostate at all.
    """

    grid: Geometry
    probability: FloatArray
    mask: Mask
    center_lps_mm: Vector3
    volume_ml: float
    presence: float
    doubt: str | None

    @property
    def credible(self) -> bool:
        """Whether this is believed to be a prostate."""
        return self.doubt is None


def find_gland(t2w: Volume, release: Release) -> GlandFound:
    """Look in the middle of the image, along z where the stack is long, then once more centred."""
    image = to_sitk(t2w)
    config = release.config
    tries = [
        _look(image, t2w.geometry, center, release)
        for center in _starts(t2w.geometry, config.gland_grid.extent_zyx_mm[0])
    ]
    best = max(tries, key=lambda found: (found.credible, found.presence))
    distance = np.linalg.norm(np.subtract(best.center_lps_mm, centre_lps(best.grid)))
    if best.mask.any() and distance > RECENTRE_MM:
        again = _look(image, t2w.geometry, best.center_lps_mm, release)
        if again.credible or not best.credible:
            return again
    return best


def overlap_on(image: Volume, center_lps_mm: Vector3, gland: Volume, release: Release) -> float:
    """Dice of a gland mask with the gland that the finder sees on another image.

    On the lowest b, which is T2-weighted too, it falls with distortion and with motion.
    """
    seen = _look(to_sitk(image), gland.geometry, center_lps_mm, release)
    mask = resample_map(gland.array.astype(np.float32), gland.geometry, seen.grid) > 0.5
    total = float(mask.sum() + seen.mask.sum())
    return 2.0 * float((mask & seen.mask).sum()) / max(1.0, total)


def _starts(t2w: Geometry, reach_mm: float) -> list[Vector3]:
    """Centres to look at: the image's, and two thirds of the grid up and down in a long stack."""
    nz, sz = t2w.size_xyz[2], t2w.spacing_xyz_mm[2]
    spare = nz * sz - reach_mm
    middle = ((t2w.size_xyz[1] - 1) / 2, (t2w.size_xyz[0] - 1) / 2)
    offsets = [0.0] if spare < reach_mm / 3 else [0.0, -spare / 2, spare / 2]
    return [lps_of_index(t2w, ((nz - 1) / 2 + off / sz, *middle)) for off in offsets]


def _look(t2w_image: sitk.Image, t2w: Geometry, center: Vector3, release: Release) -> GlandFound:
    config = release.config
    grid = working_grid(t2w, center, config.gland_grid)
    values = whole_image_z(resample(t2w_image, grid), config.normalise)
    image = torch.from_numpy(values).to(release.device)
    with release.computing():
        pair = both_ways(release.gland, image)
    plain, mirrored = (part.float().cpu().numpy() for part in pair)
    return judge(plain, mirrored, grid, release)


def judge(plain: FloatArray, mirrored: FloatArray, grid: Geometry, release: Release) -> GlandFound:
    """Mask, volume and credibility from the probabilities of the image and its mirror image."""
    rules = release.config.credible
    probability = ((plain + mirrored) / 2).astype(np.float32)
    mask = largest_part(probability > 0.5)
    presence = release.presence.probability(consistency(plain, mirrored, mask))
    volume = float(mask.sum()) * grid.voxel_volume_mm3 / 1000.0
    center = (
        lps_of_index(grid, tuple(float(v) for v in ndimage.center_of_mass(mask)))  # type: ignore[arg-type]
        if mask.any()
        else centre_lps(grid)
    )
    low, high = rules.volume_ml
    checks = (
        (not mask.any(), "nothing looks like a prostate"),
        (presence < release.presence.yes_from, f"presence of a prostate {presence:.2f}"),
        (not low <= volume <= high, f"volume {volume:.0f} mL"),
        (mask.any() and not _plausible_extent(mask, grid), "its extent is not that of a prostate"),
    )
    doubt = next((text for failed, text in checks if failed), None)
    return GlandFound(grid, probability, mask, center, volume, presence, doubt)


def consistency(plain: FloatArray, mirrored: FloatArray, mask: Mask) -> dict[str, float | None]:
    """How sure and how consistent the finder is: what tells a prostate from anything else.

    Probability inside the mask, agreement of image and mirror image, doubtful volume relative to
    the mask, share of the bounding box that is filled, volume outside the largest part.
    """
    probability = (plain + mirrored) / 2
    size = max(1.0, float(mask.sum()))
    change = float(np.abs(plain - mirrored).sum())
    doubt = float((4 * probability * (1 - probability)).sum())
    return {
        "sureness": float(probability[mask].mean()) if mask.any() else 0.0,
        "agreement": 1 - change / max(1.0, float((plain + mirrored).sum())),
        "doubt_log": float(np.log(max(doubt, 1.0) / size)),
        "filling": size / _box(mask),
        "scatter": min(3.0, float((probability > 0.5).sum()) / size),
    }


def _box(mask: Mask) -> float:
    """Voxels of the bounding box."""
    if not mask.any():
        return 1.0
    places = np.argwhere(mask)
    return float(np.prod(np.ptp(places, axis=0) + 1))


CONSISTENCY = ("sureness", "agreement", "doubt_log", "filling", "scatter")


def largest_part(mask: Mask) -> Mask:
    """Return the largest 26-connected part, holes filled slice by slice."""
    labels, count = ndimage.label(mask, CUBE_26)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    part = labels == int(sizes.argmax()) + 1
    return np.stack([ndimage.binary_fill_holes(plane) for plane in part])


def _plausible_extent(mask: Mask, grid: Geometry) -> bool:
    spacing = grid.spacing_xyz_mm[::-1]
    for axis, (low, high) in enumerate(EXTENTS_MM):
        others = tuple(a for a in range(3) if a != axis)
        places = np.flatnonzero(mask.any(axis=others))
        if not low <= (places[-1] - places[0] + 1) * spacing[axis] <= high:
            return False
    return True
