"""Hidden parameters of one simulated patient: frozen, seeded and JSON-able.

Axes are LPS millimetres (+x left, +y posterior, +z superior); the gland centre is the origin.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from typing import Any

Vec = tuple[float, float, float]


class Tissue(IntEnum):
    """Labels of the rasterised anatomy."""

    AIR = 0
    FAT = 1
    PELVIC_FAT = 2
    GLUTEUS = 3
    OBTURATOR_INT = 4
    OBTURATOR_EXT = 5
    LEVATOR = 6
    CORTICAL = 7
    MARROW = 8
    FEMORAL_HEAD = 9
    SYMPHYSIS = 10
    COCCYX = 11
    BLADDER_URINE = 12
    BLADDER_WALL = 13
    RECTAL_WALL = 14
    RECTAL_MUCOSA = 15
    STOOL = 16
    GAS = 17
    ANAL_CANAL = 18
    SV_LUMEN = 19
    SV_WALL = 20
    PLEXUS = 21
    NVB = 22
    VESSEL_VOID = 23
    VESSEL_BRIGHT = 24
    FASCIA = 25
    PZ = 26
    TZ = 27
    BPH_GLANDULAR = 28
    BPH_STROMAL = 29
    NODULE_RIM = 30
    AFMS = 31
    CZ = 32
    URETHRA = 33
    CAPSULE = 34
    PENILE_BULB = 35
    SPHINCTER = 36
    CYST = 37


class FocusKind(StrEnum):
    """What a focal change is. Everything but ``CANCER`` is a benign mimic."""

    CANCER = "cancer"
    PROSTATITIS_FOCAL = "prostatitis_focal"
    PROSTATITIS_WEDGE = "prostatitis_wedge"
    PROSTATITIS_DIFFUSE = "prostatitis_diffuse"
    ATROPHY = "atrophy"
    STROMAL_NODULE = "stromal_nodule"
    EXOPHYTIC_NODULE = "exophytic_nodule"
    GRANULOMATOUS = "granulomatous"
    HAEMORRHAGE = "haemorrhage"
    PSEUDOLESION = "pseudolesion"


@dataclass(frozen=True)
class GlandShape:
    """Superellipsoid gland with its zones; lengths in mm, the rest are ratios."""

    volume_ml: float
    ax: float
    ay: float
    az: float
    power: float
    taper: float
    wedge: float
    tilt: float
    indent: float
    pz_fraction: float
    tz_lx: float
    tz_radii: Vec
    tz_y: float
    tz_z: float
    tz_scale: float
    tz_asymmetry: float
    pz_min_mm: float
    horn_mm: float
    horn_y: float
    afms_half_width: float
    afms_depth: float
    cz_scale: float
    cz_x: float
    median_lobe_mm: float
    median_lobe_radius: float
    urethra_radius: float
    capsule_visible: bool
    surgical_capsule: bool


@dataclass(frozen=True)
class PelvisShape:
    """Organs around the gland; lengths in mm."""

    rectum_gap: float
    rectum_rx: float
    rectum_ry: float
    rectum_wall: float
    rectum_filling: str
    rectum_x: float
    rectum_slope_up: float
    rectum_slope_down: float
    bladder_radii: Vec
    bladder_y: float
    bladder_floor: float
    bladder_wall: float
    levator_gap: float
    levator_thickness: float
    levator_flare: float
    levator_power: float
    levator_top: float
    obturator_x: float
    obturator_thickness: float
    obturator_slant: float
    retropubic_gap: float
    pubis_z: float
    apron_mm: float
    plexus_mm: float
    plexus_fill: float
    sv_width: float
    sv_height: float
    sv_radius: float
    sv_lumen: float
    pelvic_scale: float
    subcutaneous_y: float
    coccyx_z: float


@dataclass(frozen=True)
class Nodule:
    """BPH nodule: ``kind`` is a value of ``Tissue``; ``rim`` draws a dark pseudo-capsule."""

    center: Vec
    radii: Vec
    kind: int
    rim: bool


@dataclass(frozen=True)
class Focus:
    """A lesion or a mimic. Ratios are relative to the normal tissue of its zone (1 PZ, 2 TZ).

    ``axes`` holds three orthonormal rows; ``radii`` belong to them, in mm. ``infiltration`` is the
    share of the voxel that the focus replaces at its core; the ratios hold *after* that mixing.
    ``shape``: "ellipsoid", "wedge" or "diffuse".
    """

    kind: FocusKind
    zone: int
    center: Vec
    radii: Vec
    axes: tuple[Vec, Vec, Vec]
    shape: str
    roughness: float
    edge_mm: float
    epe_mm: float
    volume_ml: float
    isup: int
    pirads: int
    adc_ratio: float
    t2_ratio: float
    s0_ratio: float
    ktrans_ratio: float
    kep_ratio: float
    texture_keep: float

    @property
    def significant(self) -> bool:
        """Whether this is clinically significant cancer (ISUP grade group 2 or more)."""
        return self.isup >= 2


@dataclass(frozen=True)
class AnatomyParams:
    """Everything that makes one simulated patient; ``seed`` drives warps and noise lattices."""

    seed: int
    gland: GlandShape
    pelvis: PelvisShape
    nodules: tuple[Nodule, ...]
    foci: tuple[Focus, ...]
    vessels: tuple[tuple[Vec, Vec, float, int], ...]
    warp_coarse_mm: float
    warp_fine_mm: float
    age_years: float
    psa_ng_ml: float

    @property
    def lesions(self) -> tuple[Focus, ...]:
        """Cancers, in order of their instance number 1..n."""
        return tuple(f for f in self.foci if f.kind is FocusKind.CANCER)

    @property
    def mimics(self) -> tuple[Focus, ...]:
        """Benign foci, in order of their instance number 1..n."""
        return tuple(f for f in self.foci if f.kind is not FocusKind.CANCER)


def to_json(params: AnatomyParams) -> str:
    """JSON text of all hidden parameters."""
    return json.dumps(asdict(params), sort_keys=True)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return value


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {k: _tuples(v) for k, v in data.items()}


def from_json(text: str) -> AnatomyParams:
    """Inverse of ``to_json``. Raises ValueError or TypeError where the text has another shape."""
    data = json.loads(text)
    foci = tuple(Focus(**{**_plain(f), "kind": FocusKind(f["kind"])}) for f in data.pop("foci"))
    nodules = tuple(Nodule(**_plain(n)) for n in data.pop("nodules"))
    gland = GlandShape(**_plain(data.pop("gland")))
    pelvis = PelvisShape(**_plain(data.pop("pelvis")))
    return AnatomyParams(gland=gland, pelvis=pelvis, nodules=nodules, foci=foci, **_plain(data))
