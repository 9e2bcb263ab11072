"""From a case to images on the working grid around the gland."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ai_core.config import CoreConfig
from ai_core.errors import InputError
from ai_core.prepare.diffusion import adc_unit, extrapolate, fit_adc
from ai_core.prepare.enhancement import enhancement_maps
from ai_core.prepare.geometry import check_geometry, resample, to_sitk
from ai_core.prepare.normalise import Images
from ai_core.prepare.registration import IDENTITY, Alignment, align
from ai_core.types import Case, DwiVolume, FloatArray, Geometry, Quality, QualityFinding

Mask = npt.NDArray[np.bool_]
#: An acquired or given high b counts as such from here (PI-RADS asks for 1400 and more).
HIGH_B_FROM = 1000.0
#: A computed high b is preferred over an acquired one below this.
HIGH_B_GOOD = 1300.0
COVERAGE_NEEDED = 0.9


@dataclass(frozen=True)
class Prepared:
    """Images on ``grid``, what was used and how, and remarks."""

    grid: Geometry
    images: Images
    adc_unit_known: bool
    used: dict[str, str]
    quality: tuple[QualityFinding, ...]


def check_case(case: Case) -> None:
    """Refuse what cannot be analysed at all.

    Raises:
        GeometryError: a volume has no usable geometry.
        InputError: there is neither ADC nor diffusion with two b-values.
    """
    named = [("T2W", case.t2w), ("ADC", case.adc)]
    named += [(f"DWI b={d.b_value_s_per_mm2:g}", d.volume) for d in case.dwi]
    named += [("high b", case.high_b.volume if case.high_b else None)]
    named += [("DCE", phase) for phase in (case.dce.phases if case.dce else ())]
    for name, volume in named:
        if volume is not None:
            check_geometry(volume.geometry, name)
    if case.adc is None and len({d.b_value_s_per_mm2 for d in case.dwi}) < 2:
        raise InputError(
            "there is no ADC map and no diffusion with two b-values",
            "Send the ADC map or a second b-value.",
        )


def assemble(
    case: Case, t2w: FloatArray, gland: Mask, grid: Geometry, config: CoreConfig
) -> Prepared:
    """All images on the working grid.

    Args:
        case: the examination.
        t2w: its T2W on ``grid``.
        gland: gland mask on ``grid``.
        grid: working grid.
        config: of the release.
    """
    remarks: list[QualityFinding] = []
    alignment = _alignment(case, t2w, grid, remarks)
    dwi = {d.b_value_s_per_mm2: _on(d, grid, alignment) for d in case.dwi if not d.computed}
    used: dict[str, str] = {"t2w": "as acquired"}
    if alignment.transform is not None:
        used["registration"] = f"diffusion moved by {alignment.shift_mm:.1f} mm"
    adc, known = _adc(case, dwi, gland, grid, alignment, used, remarks)
    high_b = _high_b(case, dwi, adc, grid, alignment, config, used, remarks)
    dce = _dce(case, gland, grid, used, remarks)
    _coverage(adc, gland, remarks)
    return Prepared(grid, Images(t2w, adc, high_b, dce), known, used, tuple(remarks))


def _on(image: DwiVolume, grid: Geometry, alignment: Alignment) -> FloatArray:
    return resample(to_sitk(image.volume), grid, alignment.transform)


def _alignment(
    case: Case, t2w: FloatArray, grid: Geometry, remarks: list[QualityFinding]
) -> Alignment:
    lowest = min(case.dwi, key=lambda d: d.b_value_s_per_mm2, default=None)
    moving = lowest.volume if lowest is not None else case.adc
    if moving is None:
        return IDENTITY
    alignment = align(t2w, to_sitk(moving), grid)
    if alignment.rejected:
        remarks.append(
            QualityFinding(
                Quality.REGISTRATION_REJECTED,
                "Aligning diffusion to T2W gave an implausible shift and was not used.",
                round(alignment.shift_mm, 1),
            )
        )
    return alignment


def _adc(
    case: Case,
    dwi: dict[float, FloatArray],
    gland: Mask,
    grid: Geometry,
    alignment: Alignment,
    used: dict[str, str],
    remarks: list[QualityFinding],
) -> tuple[FloatArray, bool]:
    if case.adc is None:
        remarks.append(
            QualityFinding(Quality.ADC_DERIVED, "The ADC map was computed from the b-values.")
        )
        used["adc"] = "fitted from b " + ", ".join(f"{b:g}" for b in sorted(dwi))
        return fit_adc(list(dwi.values()), list(dwi)), True
    read = resample(_to_sitk_adc(case), grid, alignment.transform)
    unit = adc_unit(read, case.adc_to_um2_s, gland)
    used["adc"] = "as given"
    if not unit.known:
        remarks.append(
            QualityFinding(
                Quality.ADC_UNIT_UNKNOWN,
                "The unit of the ADC map is not certain; no mean ADC is reported.",
                _median(read, gland),
            )
        )
        if len(dwi) >= 2:
            used["adc"] = "fitted, the unit of the given map is not certain"
            return fit_adc(list(dwi.values()), list(dwi)), True
    return (np.maximum(read, 0.0) * unit.factor).astype(np.float32), unit.known


def _to_sitk_adc(case: Case) -> sitk.Image:
    if case.adc is None:
        raise InputError("there is no ADC map", "Send the ADC map.")
    return to_sitk(case.adc)


def _high_b(
    case: Case,
    dwi: dict[float, FloatArray],
    adc: FloatArray,
    grid: Geometry,
    alignment: Alignment,
    config: CoreConfig,
    used: dict[str, str],
    remarks: list[QualityFinding],
) -> FloatArray | None:
    target = config.normalise.high_b_s_per_mm2
    given = case.high_b
    if given is not None and given.b_value_s_per_mm2 >= (HIGH_B_GOOD if dwi else HIGH_B_FROM):
        used["high_b"] = f"b {given.b_value_s_per_mm2:g} as given"
        return _on(given, grid, alignment)
    if dwi and max(dwi) >= HIGH_B_GOOD:
        used["high_b"] = f"b {max(dwi):g} as acquired"
        return dwi[max(dwi)]
    if dwi:
        b = max(dwi)
        used["high_b"] = f"b {target:g} computed from b {b:g} and ADC"
        remarks.append(
            QualityFinding(Quality.HIGH_B_COMPUTED, f"b {target:g} was computed.", target)
        )
        return extrapolate(dwi[b], b, adc, target)
    if given is not None:
        used["high_b"] = f"b {given.b_value_s_per_mm2:g} as given"
        return _on(given, grid, alignment)
    remarks.append(
        QualityFinding(Quality.HIGH_B_MISSING, "There is no high-b image and none to compute.")
    )
    return None


def _dce(
    case: Case,
    gland: Mask,
    grid: Geometry,
    used: dict[str, str],
    remarks: list[QualityFinding],
) -> FloatArray | None:
    if case.dce is None:
        return None
    phases = [resample(to_sitk(phase), grid) for phase in case.dce.phases]
    maps = enhancement_maps(phases, case.dce.times_s, gland)
    if maps is None:
        remarks.append(
            QualityFinding(
                Quality.DCE_UNUSABLE, "The contrast series shows no enhancement and was not used."
            )
        )
        return None
    used["dce"] = f"{len(phases)} phases"
    return maps


def _coverage(adc: FloatArray, gland: Mask, remarks: list[QualityFinding]) -> None:
    share = float((adc[gland] > 0).mean()) if gland.any() else 0.0
    if share < COVERAGE_NEEDED:
        remarks.append(
            QualityFinding(
                Quality.DIFFUSION_COVERAGE,
                "Diffusion does not cover the whole gland.",
                round(share, 2),
            )
        )


def _median(image: FloatArray, mask: Mask) -> float:
    values = image[mask & (image > 0)]
    return float(np.median(values)) if values.size else 0.0
