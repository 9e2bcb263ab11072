"""The types spoken at the door between the core and the product.

Frozen dataclasses; units and frames stand in the names. Arrays are NumPy, indexed ``[z, y, x]``
(slice, row, column). Geometry follows the convention of SimpleITK and of DICOM: index ``(x, y, z)``
maps to patient space in millimetres, LPS (+x to the patient's left, +y posterior, +z superior).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.uint8]
Vector3 = tuple[float, float, float]
Matrix3 = tuple[Vector3, Vector3, Vector3]


class Modality(StrEnum):
    """An image of the multi-parametric examination that has a localization map of its own."""

    T2W = "t2w"
    ADC = "adc"
    HIGH_B = "high_b"
    DCE = "dce"


@dataclass(frozen=True)
class Geometry:
    """Where a voxel grid lies in the patient.

    ``direction`` holds three rows of a 3 x 3 matrix whose *columns* are the unit vectors of the
    x (column index), y (row index) and z (slice index) axes in LPS, as ``SimpleITK.GetDirection``.
    ``origin_lps_mm`` is the centre of voxel (0, 0, 0).
    """

    size_xyz: tuple[int, int, int]
    spacing_xyz_mm: Vector3
    origin_lps_mm: Vector3
    direction: Matrix3 = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Shape of the NumPy array of this grid."""
        x, y, z = self.size_xyz
        return (z, y, x)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        x, y, z = self.spacing_xyz_mm
        return x * y * z


@dataclass(frozen=True)
class Volume:
    """A scalar image: array ``[z, y, x]`` and the geometry of its grid."""

    array: npt.NDArray[np.generic]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape_zyx:
            raise ValueError(
                f"array shape {self.array.shape} does not match the grid {self.geometry.shape_zyx}"
            )


@dataclass(frozen=True)
class DwiVolume:
    """A trace-weighted diffusion image. ``computed``: made by extrapolation, not acquired."""

    volume: Volume
    b_value_s_per_mm2: float
    computed: bool = False


@dataclass(frozen=True)
class DceSeries:
    """Dynamic contrast-enhanced phases of one geometry; times count from the first phase."""

    phases: tuple[Volume, ...]
    times_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.phases) != len(self.times_s):
            raise ValueError("every DCE phase needs its time")


@dataclass(frozen=True)
class Case:
    """One examination, as the core reads it. Every volume keeps its own grid.

    ``adc`` holds the values as read; ``adc_to_um2_s`` multiplies them to 10^-6 mm^2/s (um2/s), or
    is None where the unit is not proven by the source (then the core tests plausibility).
    Needed: ``t2w`` (axial) and ``adc`` or two ``dwi`` b-values. The rest is optional.
    """

    t2w: Volume
    adc: Volume | None = None
    adc_to_um2_s: float | None = None
    dwi: tuple[DwiVolume, ...] = ()
    high_b: DwiVolume | None = None
    dce: DceSeries | None = None


class Quality(StrEnum):
    """Findings about the input. They are reported; the core never refuses for them."""

    NO_CREDIBLE_GLAND = "no_credible_gland"
    GLAND_CUT_OFF = "gland_cut_off"
    ADC_DERIVED = "adc_derived"
    ADC_UNIT_UNKNOWN = "adc_unit_unknown"
    HIGH_B_COMPUTED = "high_b_computed"
    HIGH_B_MISSING = "high_b_missing"
    LOW_SNR = "low_snr"
    LOW_T2W_SNR = "low_t2w_snr"
    DISTORTION = "distortion"
    UNFAMILIAR = "unfamiliar"
    DIFFUSION_COVERAGE = "diffusion_coverage"
    REGISTRATION_REJECTED = "registration_rejected"
    DCE_UNUSABLE = "dce_unusable"
    SYNTHESIS_ABSTAINS = "synthesis_abstains"


#: Remarks that make an input inadequate; the others only say how it was used.
INADEQUATE = frozenset(
    {
        Quality.NO_CREDIBLE_GLAND,
        Quality.GLAND_CUT_OFF,
        Quality.HIGH_B_MISSING,
        Quality.LOW_SNR,
        Quality.LOW_T2W_SNR,
        Quality.DISTORTION,
        Quality.DIFFUSION_COVERAGE,
        Quality.UNFAMILIAR,
    }
)


@dataclass(frozen=True)
class QualityFinding:
    """One remark about the input: a code, plain words, the measured value where there is one."""

    code: Quality
    message: str
    value: float | None = None


@dataclass(frozen=True)
class Finding:
    """One suspicious region. ``rank`` 1 is the most suspicious; it labels ``lesions`` too.

    ``center_lps_mm`` is the voxel of highest likelihood inside the finding. ``sector`` is a
    PI-RADS v2.1 sector key such as ``PZ/pl/mid/R`` (zone/position/level/side).
    ``likelihood`` (0-1) is an AI suspicion index, not a probability, while the release's
    calibration names no real cases. ``abnormality``: how unlike synthesised normal tissue, in
    standard deviations of it; None where the branch is off or abstains.
    """

    rank: int
    center_lps_mm: Vector3
    volume_ml: float
    longest_diameter_mm: float
    likelihood: float
    significant: bool
    suspicion_score: float
    sector: str
    mean_adc_um2_s: float | None
    uncertainty: float
    abnormality: float | None = None


@dataclass(frozen=True)
class Gland:
    """The prostate found on T2W. ``credible`` is False where no prostate was recognised."""

    volume_ml: float
    center_lps_mm: Vector3 | None
    credible: bool


@dataclass(frozen=True)
class ReleaseInfo:
    """Which weights made a result."""

    name: str
    version: str
    sha256: str
    calibrated_on_real_cases: bool = False


@dataclass(frozen=True)
class Synthesis:
    """Opinion of the synthesis branch (a release may have one).

    ``abnormality`` lies on the T2W grid of the result: how unlike normal tissue, in standard
    deviations of it, 0 and more; None where the branch abstains. ``input`` and ``normal`` are the
    images that it compared and the normal ones (T2W z-score, ADC in 10^-3 mm2/s, high b in parts
    of the gland), on ``grid``. ``typical``: median difference over the gland; above ``limit`` the
    branch abstains.
    """

    abnormality: FloatArray | None
    grid: Geometry
    input: Mapping[Modality, FloatArray]
    normal: Mapping[Modality, FloatArray]
    typical: float
    limit: float


@dataclass(frozen=True)
class CaseResult:
    """What the core found. All arrays lie on the T2W grid of ``geometry``.

    ``gland`` mask 0/1; ``zones`` 1 PZ, 2 TZ; ``lesions`` the rank of the finding;
    ``likelihood`` fused localization map 0-1; ``relevance`` clinical relevance map 0-1;
    ``modality_maps`` one map 0-1 per modality used. ``measures``: what input quality was judged
    on, by name; ``out_of_distribution`` above 1 is unlike the training images. ``synthesis``: None
    where the release has no such branch, or it is switched off.
    """

    geometry: Geometry
    gland: Gland
    gland_mask: LabelArray
    zones: LabelArray
    lesions: LabelArray
    likelihood: FloatArray
    relevance: FloatArray
    modality_maps: Mapping[Modality, FloatArray]
    findings: tuple[Finding, ...]
    case_likelihood: float
    case_significant: bool
    quality: tuple[QualityFinding, ...]
    release: ReleaseInfo
    used: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timings_s: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    measures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    synthesis: Synthesis | None = None

    @property
    def inadequate(self) -> tuple[QualityFinding, ...]:
        """Why the input is not adequate; empty where it is. Never a reason to refuse."""
        return tuple(q for q in self.quality if q.code in INADEQUATE)
