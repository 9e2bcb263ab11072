"""Headers and small examinations made for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ai_core.types import DceSeries, DwiVolume, Geometry, Volume
from dicom_node.dicom.header import MR_IMAGE, InstanceHeader
from dicom_node.dicom.select import Selection
from dicom_node.dicom.write import time_text

TILT = np.deg2rad(18.5)
AXIAL = (1.0, 0.0, 0.0, 0.0, float(np.cos(TILT)), float(-np.sin(TILT)))  # oblique, as in practice
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, -0.3173, -0.9483)

T2W = {
    "series_description": "t2_tse_tra", "scanning_sequence": ("SE",), "echo_time": 104.0,
    "repetition_time": 5660.0, "echo_train_length": 25.0, "sequence_name": "*tse2d1_25",
    "image_type": ("ORIGINAL", "PRIMARY", "M", "NORM"), "mr_acquisition_type": "2D",
    "flip_angle": 160.0,
}  # fmt: skip
TRACE = {
    "series_description": "ep2d_diff_tra", "scanning_sequence": ("EP",), "echo_time": 63.0,
    "repetition_time": 2700.0, "echo_train_length": 48.0, "sequence_name": "*ep_b50t",
    "image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "DIS2D"),
    "rows": 128, "columns": 84, "pixel_spacing": (2.0, 2.0), "flip_angle": 90.0,
    "mr_acquisition_type": "2D",
}  # fmt: skip
ADC = {
    **TRACE, "series_description": "ep2d_diff_tra_ADC", "sequence_name": "*ep_b50_800",
    "image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC", "DIS2D"),
    "b_value": 800.0, "b_source": "siemens",
}  # fmt: skip
DYNAMIC = {
    "series_description": "Twist_dynamic", "scanning_sequence": ("GR",), "echo_time": 1.42,
    "repetition_time": 3.85, "echo_train_length": 1.0, "sequence_name": "*fldyn3d1",
    "image_type": ("ORIGINAL", "PRIMARY", "M", "ND"), "mr_acquisition_type": "3D",
    "rows": 128, "columns": 128, "pixel_spacing": (1.5, 1.5), "flip_angle": 12.0,
}  # fmt: skip


def series(
    name: str,
    values: dict[str, Any],
    *,
    slices: int = 19,
    gap_mm: float = 3.0,
    iop: tuple[float, ...] = AXIAL,
    start_s: float = 36000.0,
    origin: tuple[float, float, float] = (-60.0, -80.0, -27.0),
    **more: Any,
) -> list[InstanceHeader]:
    """Headers of one series; ``more`` overrides single fields."""
    normal = np.cross(iop[:3], iop[3:])
    fields: dict[str, Any] = {
        "sop_class_uid": MR_IMAGE, "study_uid": "2.25.1", "series_uid": f"2.25.10.{name}",
        "modality": "MR", "patient_id": "PHANTOM-001", "patient_sex": "M", "rows": 384,
        "columns": 384, "pixel_spacing": (0.5, 0.5), "slice_thickness": 3.0, "iop": iop,
        "frame_of_reference_uid": "2.25.5", "has_pixel_data": True, "manufacturer": "SIEMENS",
        "acquisition_date": "20240102", "acquisition_number": 1, **values, **more,
    }  # fmt: skip
    return [
        InstanceHeader(
            sop_instance_uid=f"{fields['series_uid']}.{i + 1}",
            instance_number=i + 1,
            ipp=tuple(float(v) for v in np.asarray(origin) + normal * gap_mm * i),
            acquisition_time=fields.get("acquisition_time") or time_text(start_s + 0.3 * i),
            **{k: v for k, v in fields.items() if k != "acquisition_time"},
        )
        for i in range(slices)
    ]


def traces(*b_values: float, name: str = "dwi", **more: Any) -> list[InstanceHeader]:
    """One series with an image of every b-value at each position (Siemens private b)."""
    found = []
    for b in b_values:
        part = series(name, TRACE, b_value=b, b_source="siemens", start_s=36600.0, **more)
        found += [
            replace(
                h, sop_instance_uid=f"{h.sop_instance_uid}.{b:.0f}", sequence_name=f"*ep_b{b:.0f}t"
            )
            for h in part
        ]
    return found


def examination() -> list[InstanceHeader]:
    """A plain bi-parametric study: axial T2W, DWI b 50/400/800 in one series, ADC."""
    return [
        *series("t2", T2W, series_number=4),
        *traces(50, 400, 800, series_number=6),
        *series("adc", ADC, start_s=36700.0, series_number=7),
    ]


def dynamic(phases: int = 70, step_s: float = 4.2, **more: Any) -> list[InstanceHeader]:
    """DCE as one series per time point, 26 slices each."""
    found = []
    for i in range(phases):
        description = f"Twist_dynamic_TT={8 + step_s * i:.1f}s"
        found += series(
            f"dce{i}", {**DYNAMIC, "series_description": description}, slices=26,
            acquisition_number=i + 1, acquisition_time=time_text(37000.0 + step_s * i),
            series_number=20 + i, **more,
        )  # fmt: skip
    return found


def reason_of(selection: Selection, name: str) -> str:
    """Why parts of a series are not used."""
    return " / ".join(r.reason for r in selection.rejected if r.series_uid.endswith(f".{name}"))


def b_values(selection: Selection) -> list[float | None]:
    """b-values of the chosen diffusion images."""
    return [stack.b_value for stack in selection.dwi]


@dataclass(frozen=True)
class Exam:
    """A small examination with the fields of a simulated one."""

    t2w: Volume
    adc: Volume
    dwi: tuple[DwiVolume, ...]
    high_b: DwiVolume | None
    dce: DceSeries | None
    t2w_sagittal: Volume | None = None
    t2w_coronal: Volume | None = None


def _grid(matrix: int, spacing: float, slices: int, iop: tuple[float, ...] = AXIAL) -> Geometry:
    columns = np.stack([iop[:3], iop[3:], np.cross(iop[:3], iop[3:])], axis=1)
    rows = tuple(tuple(float(v) for v in row) for row in columns)
    half = matrix * spacing / 2
    return Geometry((matrix, matrix, slices), (spacing, spacing, 3.0), (-half, -half, -20.0), rows)  # type: ignore[arg-type]


def small_exam(slices: int = 10, phases: int = 6, seed: int = 1) -> Exam:
    """Noise on smooth blobs: enough to see slices swapped or values changed."""
    rng = np.random.default_rng(seed)

    def volume(matrix: int, spacing: float, top: float, iop: tuple[float, ...] = AXIAL) -> Volume:
        geometry = _grid(matrix, spacing, slices, iop)
        z, y, x = np.indices(geometry.shape_zyx)
        blob = np.exp(-(((x - matrix / 2) / matrix) ** 2 + ((y - matrix / 3) / matrix) ** 2) * 8)
        noise = rng.uniform(0, 0.1, geometry.shape_zyx)
        return Volume((top * (blob + 0.02 * z + noise)).astype(np.float32), geometry)

    dwi = tuple(
        DwiVolume(volume(40, 2.0, 300 * np.exp(-b / 1000)), float(b)) for b in (50, 400, 800)
    )
    times = tuple(20.0 * i for i in range(phases))
    return Exam(
        t2w=volume(64, 0.9, 800),
        adc=volume(40, 2.0, 1200),
        dwi=dwi,
        high_b=DwiVolume(volume(40, 2.0, 90), 1400.0, computed=True),
        dce=DceSeries(tuple(volume(32, 1.6, 100 + 20 * i) for i in range(phases)), times),
        t2w_sagittal=volume(48, 0.9, 700, SAGITTAL),
        t2w_coronal=volume(48, 0.9, 700, CORONAL),
    )
