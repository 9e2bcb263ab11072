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
from ai_core.nets.gland import gland_probability
from ai_core.prepare.geometry import resample, to_sitk, working_grid
from ai_core.prepare.normalise import whole_image_z
from ai_core.release import Release
from ai_core.types import FloatArray, Geometry, Quality, QualityFinding, Vector3, Volume

Mask = npt.NDArray[np.bool_]
#: A gland further than this from the middle of the grid is looked at again, centred.
RECENTRE_MM = 10.0
#: Share of the volume that the largest connected part must hold.
LARGEST_PART = 0.6
#: Plausible extents z, y, x in millimetres.
EXTENTS_MM = ((12.0, 100.0), (14.0, 95.0), (20.0, 105.0))


@dataclass(frozen=True)
class GlandFound:
    """The prostate on a coarse grid, and how sure the finder is.

    ``probability``: of gland, 0-1, on ``grid``. ``presence``: that there is a prostate at all.
    ``confidence``: mean probability inside the mask.
    """

    grid: Geometry
    probability: FloatArray
    mask: Mask
    center_lps_mm: Vector3
    volume_ml: float
    presence: float
    confidence: float
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
    best = max(tries, key=lambda found: (found.credible, found.presence * found.confidence))
    distance = np.linalg.norm(np.subtract(best.center_lps_mm, centre_lps(best.grid)))
    if best.mask.any() and distance > RECENTRE_MM:
        again = _look(image, t2w.geometry, best.center_lps_mm, release)
        if again.credible or not best.credible:
            return again
    return best


def _starts(t2w: Geometry, reach_mm: float) -> list[Vector3]:
    """Centres to look at: the image's, and two thirds of the grid up and down in a long stack."""
    nz, sz = t2w.size_xyz[2], t2w.spacing_xyz_mm[2]
    spare = nz * sz - reach_mm
    middle = ((t2w.size_xyz[1] - 1) / 2, (t2w.size_xyz[0] - 1) / 2)
    offsets = [0.0] if spare < reach_mm / 3 else [0.0, -spare / 2, spare / 2]
    return [lps_of_index(t2w, ((nz - 1) / 2 + off / sz, *middle)) for off in offsets]


def _look(image: sitk.Image, t2w: Geometry, center: Vector3, release: Release) -> GlandFound:
    config = release.config
    grid = working_grid(t2w, center, config.gland_grid)
    values = whole_image_z(resample(image, grid), config.normalise)
    probability, presence = _infer(values, release)
    return judge(probability, presence, grid, release)


@torch.inference_mode()
def _infer(image: FloatArray, release: Release) -> tuple[FloatArray, float]:
    """Gland probability and presence, averaged over the image and its mirror image.

    The pair is one batch: two volumes take the fast convolution path on CPUs, one does not.
    """
    single = torch.from_numpy(image)[None, None].to(release.device)
    pair = torch.cat([single, single.flip(-1)])
    gland = gland_probability(release.gland(pair))
    presence = torch.sigmoid(release.presence(pair, gland)).mean()
    mean = (gland[0, 0] + gland[1, 0].flip(-1)) / 2
    return mean.cpu().numpy(), float(presence)


def judge(probability: FloatArray, presence: float, grid: Geometry, release: Release) -> GlandFound:
    """Mask, volume and credibility of a probability map."""
    rules = release.config.credible
    everything = probability > 0.5
    mask = largest_part(everything)
    volume = float(mask.sum()) * grid.voxel_volume_mm3 / 1000.0
    confidence = float(probability[mask].mean()) if mask.any() else 0.0
    center = (
        lps_of_index(grid, tuple(float(v) for v in ndimage.center_of_mass(mask)))  # type: ignore[arg-type]
        if mask.any()
        else centre_lps(grid)
    )
    low, high = rules.volume_ml
    checks = (
        (not mask.any(), "nothing looks like a prostate"),
        (presence < rules.minimum_presence, f"presence of a prostate {presence:.2f}"),
        (not low <= volume <= high, f"volume {volume:.0f} mL"),
        (confidence < rules.minimum_confidence, f"confidence {confidence:.2f}"),
        (mask.sum() < LARGEST_PART * everything.sum(), "it falls into several parts"),
        (mask.any() and not _plausible_extent(mask, grid), "its extent is not that of a prostate"),
    )
    doubt = next((text for failed, text in checks if failed), None)
    return GlandFound(grid, probability, mask, center, volume, presence, confidence, doubt)


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


def not_credible(found: GlandFound) -> QualityFinding:
    """Return the remark for a gland that is not believed."""
    return QualityFinding(
        Quality.NO_CREDIBLE_GLAND,
        f"No prostate was recognised on T2W ({found.doubt}).",
        round(found.presence, 3),
    )
