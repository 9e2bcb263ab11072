"""Painting of everything around the gland, from the outside inwards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ai_core.sim.canvas import Array, Canvas, Window
from ai_core.sim.params import AnatomyParams, GlandShape, PelvisShape, Tissue

_T = Tissue
_Z = np.arange(-140.0, 141.0, 1.0)
Table = npt.NDArray[np.float64]


def _gland_profile(g: GlandShape, z: Table) -> Table:
    """Relative half-width of the gland at a level, 0 beyond its ends."""
    t = z / g.az
    s = 1.0 + g.taper * np.clip(t, -1.3, 1.3)
    shape: Table = s * np.maximum(1.0 - np.abs(t) ** g.power, 0.0) ** (1.0 / g.power)
    return shape


def rectum_front(g: GlandShape, p: PelvisShape) -> Table:
    """Patient y of the anterior rectal wall at the levels -140..140 mm, in contact mid-gland."""
    edge = 0.72 * g.az
    zc = np.clip(_Z, -edge, edge)
    back = g.tilt * zc + g.ay * _gland_profile(g, zc) * (1.0 - g.indent) + p.rectum_gap
    up = p.rectum_slope_up * np.maximum(_Z - edge, 0)
    down = p.rectum_slope_down * np.maximum(-_Z - edge, 0)
    table: Table = np.convolve(np.pad(back + up + down, 4, mode="edge"), np.ones(9) / 9, "valid")
    return table


def rectum_radii(g: GlandShape, p: PelvisShape) -> tuple[Table, Table]:
    """Outer half-widths (x, y) of rectum and anal canal at the levels -140..140 mm."""
    canal = 1.0 / (1.0 + np.exp(np.clip((_Z + g.az + 8) / 4.0, -30, 30)))
    rx = p.rectum_rx * (1 - canal) + 13.0 * canal
    ry = p.rectum_ry * (1 - canal) + 12.0 * canal
    return rx, ry


def _at(table: Table, z: Array) -> Array:
    return np.asarray(np.interp(z, _Z, table), dtype=np.float32)


def _levator_width(g: GlandShape, p: PelvisShape) -> Table:
    hold = np.minimum(_Z, 0.15 * g.az)
    width = g.ax * _gland_profile(g, hold) + p.levator_gap
    width = np.maximum(width, 10.0 + 0.12 * (_Z + g.az + 12).clip(0))
    flare = p.levator_flare * np.maximum(_Z - 0.25 * g.az, 0)
    table: Table = np.convolve(np.pad(width + flare, 5, mode="edge"), np.ones(11) / 11, "valid")
    return table


def levator_distance(g: GlandShape, p: PelvisShape, w: Window) -> Array:
    """Approximate distance (mm) to the inner face of the levator funnel; negative inside."""
    width = _at(_levator_width(g, p), w.z)
    front = _at(rectum_front(g, p), w.z)
    _, ry = rectum_radii(g, p)
    y0 = g.tilt * w.z * 0.5
    reach = np.maximum(front + 2 * _at(ry, w.z) + 4.0 - y0, 12.0)
    dy = w.y - y0
    ax = np.abs(w.x)
    power = p.levator_power
    back = ((ax / width) ** power + (np.maximum(dy, 0) / reach) ** power) ** (1 / power)
    radius = np.sqrt(ax * ax + dy * dy)
    behind = radius * (1.0 - 1.0 / np.maximum(back, 1e-3))
    ahead = ax - width * (1.0 - 0.28 * np.minimum(np.square(dy / (1.25 * g.ay)), 2.5))
    return np.asarray(np.where(dy > 0, behind, ahead), dtype=np.float32)


def paint_wall(canvas: Canvas, params: AnatomyParams) -> None:
    """Bones, pelvic-wall muscles, subcutaneous fat and skin."""
    p = params.pelvis
    k = p.pelvic_scale
    x, y, z = canvas.x, canvas.y, canvas.z
    canvas.labels[(y < -p.subcutaneous_y - 22) | (y > 118 * k)] = _T.AIR
    # Gluteus: a thick sheet behind the ischium, slanting outwards.
    glut = y - (58 * k + 4) + 0.0011 * np.square(np.abs(x) - 30) - 0.12 * z
    canvas.labels[(np.abs(x) > 14) & (glut > 0) & (glut < 26)] = _T.GLUTEUS
    # Abdominal wall and adductor group in front.
    canvas.labels[(y < -p.subcutaneous_y + 14) & (y > -p.subcutaneous_y) & (z > 0)] = (
        _T.OBTURATOR_EXT
    )
    ox = p.obturator_x
    canvas.ellipsoid((56 * k, -50.0, -30.0), (26, 17, 42), _T.OBTURATOR_EXT, both=True)
    canvas.ellipsoid((78 * k, -46.0, 6.0), (22, 15, 55), _T.OBTURATOR_EXT, both=True)
    canvas.ellipsoid((ox + 8, -24.0, -32.0), (20, 20, 20), _T.OBTURATOR_EXT, both=True)
    canvas.ellipsoid((ox + 28, 6.0, 14.0), (22, 32, 36), _T.MARROW, cortex_mm=2.5, both=True)
    canvas.ellipsoid((ox + 24, 30.0, -30.0), (13, 17, 30), _T.MARROW, cortex_mm=2.5, both=True)
    canvas.ellipsoid((ox + 48, -6.0, 12.0), (24, 24, 24), _T.FEMORAL_HEAD, cortex_mm=1.5, both=True)
    _paint_obturator(canvas, params)
    _paint_pubis(canvas, params)
    top = (0.0, 62.0 * k + 22, 70.0)
    canvas.tube((0, 58.0 * k + 4, p.coccyx_z), top, _T.COCCYX, radius=9.0, rim_mm=2.0)


def _paint_obturator(canvas: Canvas, params: AnatomyParams) -> None:
    """Obturator internus: along the side wall above, slanting towards the pubis below the gland."""
    g, p = params.gland, params.pelvis
    for w in canvas.window((-95, -50, -70), (95, 52, 60)):
        ax = np.abs(w.x)
        bend = np.square((w.y - 2) / 47)
        high = 1.0 / (1.0 + np.exp(np.clip(-(w.z + 0.55 * g.az) / 7.0, -30, 30)))
        above = p.obturator_x - np.where(w.y < 2, 11, 6) * bend
        below = 0.42 * p.obturator_x + p.obturator_slant * (w.y + 32)
        inner = high * above + (1 - high) * below
        thick = p.obturator_thickness * (0.6 + 0.4 * high)
        outer = inner + thick * np.sqrt(np.maximum(1 - bend * 0.95, 0.0))
        w.paint((ax > inner) & (ax < outer) & (bend < 1) & (w.z < 45), _T.OBTURATOR_INT)


def pubis_y(params: AnatomyParams) -> float:
    """Patient y of the middle of the symphysis (mm)."""
    g, p = params.gland, params.pelvis
    return -(g.ay + p.retropubic_gap + 9.0) + g.tilt * p.pubis_z


def _paint_pubis(canvas: Canvas, params: AnatomyParams) -> None:
    p = params.pelvis
    k, pz, py = p.pelvic_scale, p.pubis_z, pubis_y(params)
    arm = (11.0, py + 1, pz)
    canvas.tube(arm, (52.0 * k, py + 8, pz + 22), _T.MARROW, radius=10.5, rim_mm=1.6, both=True)
    canvas.tube(
        (9.0, py + 2, pz - 12),
        (40.0 * k, py + 38, pz - 52),
        _T.MARROW,
        radius=7.0,
        rim_mm=2.0,
        both=True,
    )
    canvas.ellipsoid((15.0, py - 1, pz), (14.5, 11, 22), _T.MARROW, cortex_mm=1.6, both=True)
    canvas.ellipsoid((0, py, pz), (2.6, 9.5, 21), _T.SYMPHYSIS)


def paint_funnel(canvas: Canvas, params: AnatomyParams) -> None:
    """Pelvic fat inside the levator funnel, the levator, the block below the gland."""
    g, p = params.gland, params.pelvis
    py = pubis_y(params)
    low, high = -g.az - 30.0, p.levator_top * g.az
    for w in canvas.window((-75, py, low), (75, 95, high + 70)):
        d = levator_distance(g, p, w)
        room = (np.abs(w.x) < p.obturator_x - 1) & (w.labels == _T.FAT)
        w.paint((d < 0) & room & (w.z > -g.az - 10) & (w.y > py + 6), _T.PELVIC_FAT)
        # The muscle thickens below the gland (puborectalis) and ends at the obturator above.
        thick = p.levator_thickness * (1.0 + np.clip((-w.z - 0.6 * g.az) / 14, 0, 1.2))
        band = (d >= 0) & (d < thick) & (w.z < high) & (w.z > low)
        w.paint(band & (w.y > py + 7) & (w.labels != _T.OBTURATOR_INT), _T.LEVATOR)
    apex_y = -g.tilt * g.az
    for w in canvas.window((-24, apex_y - 20, -g.az - 18), (24, apex_y + 18, -g.az + 2)):
        block = (np.abs(w.x) < 18) & (np.abs(w.y - apex_y + 2) < 14)
        w.paint(block & (np.abs(w.z + g.az + 8) < 9), _T.LEVATOR)
    canvas.ellipsoid((0, apex_y - 6, -g.az - 26), (11, 13, 10), _T.PENILE_BULB)
    start = (10.0, apex_y - 4, -g.az - 22)
    canvas.tube(start, (32.0, apex_y + 14, -g.az - 40), _T.PENILE_BULB, radius=6.0, both=True)
    canvas.tube(
        (0, apex_y, -g.az + 3),
        (0, apex_y - 3, -g.az - 20),
        _T.URETHRA,
        radius=7.0,
        rim_mm=3.5,
        rim=_T.SPHINCTER,
    )


def paint_bladder(canvas: Canvas, params: AnatomyParams) -> None:
    """Bladder in front of and above the base; urine, wall."""
    g, p = params.gland, params.pelvis
    rx, ry, rz = p.bladder_radii
    base_y = g.tilt * g.az + p.bladder_y
    center = (0.0, base_y, p.bladder_floor * g.az + rz)
    for w in canvas.window((-rx, base_y - ry, 0.0), (rx, base_y + ry, g.az + 2 * rz)):
        q = (w.x / rx) ** 2 + ((w.y - center[1]) / ry) ** 2
        level = np.sqrt(q + ((w.z - center[2]) / rz) ** 2)
        neck = np.maximum(np.maximum(level, 0), 1e-3)
        d = (1 - 1 / neck) * np.sqrt(w.x**2 + (w.y - center[1]) ** 2 + (w.z - center[2]) ** 2)
        w.paint(level < 1, _T.BLADDER_WALL)
        w.paint((level < 1) & (d < -p.bladder_wall), _T.BLADDER_URINE)


def paint_rectum(canvas: Canvas, params: AnatomyParams) -> None:
    """Rectum touching the gland, its wall, mucosa and filling; anal canal below."""
    g, p = params.gland, params.pelvis
    front, (rx, ry) = rectum_front(g, p), rectum_radii(g, p)
    filling = {"gas": _T.GAS, "stool": _T.STOOL, "empty": _T.RECTAL_MUCOSA, "mixed": _T.STOOL}
    for w in canvas.window((-50, -20, -140), (50, 110, 140)):
        ryz = _at(ry, w.z)
        yc = _at(front, w.z) + ryz
        bump = 0.06 * np.sin(w.z / 7.0 + params.seed % 7)
        level = np.sqrt(((w.x - p.rectum_x) / _at(rx, w.z)) ** 2 + ((w.y - yc) / ryz) ** 2) * (
            1 + bump
        )
        depth = (1 - level) * np.minimum(_at(rx, w.z), ryz)
        canal = w.z < -g.az - 10
        w.paint(level < 1, _T.RECTAL_WALL)
        w.paint((depth > p.rectum_wall) & ~canal, _T.RECTAL_MUCOSA)
        if p.rectum_filling != "empty":
            inner = (depth > p.rectum_wall + 1.3) & ~canal
            w.paint(inner, filling[p.rectum_filling])
            if p.rectum_filling == "mixed":
                w.paint(inner & (w.y < yc), _T.GAS)
        w.paint((level < 1) & canal, _T.ANAL_CANAL)
        w.paint((level < 0.42) & canal, _T.RECTAL_MUCOSA)


def paint_vesicles(canvas: Canvas, params: AnatomyParams) -> None:
    """Seminal vesicles behind the bladder above the base, and the ampullae of the vas."""
    g, p = params.gland, params.pelvis
    y0 = g.tilt * g.az + 0.42 * g.ay + 1.0
    z0 = 0.85 * g.az
    r = p.sv_radius
    for w in canvas.window(
        (-p.sv_width - r, y0 - 3 * r, z0 - r),
        (p.sv_width + r, y0 + 4 * r, z0 + p.sv_height + 2 * r),
    ):
        ax = np.abs(w.x)
        t = np.clip((ax - 4) / max(p.sv_width - 4, 1.0), 0, 1.15)
        yc = y0 + 4.0 * t * t
        zc = z0 + 3 + p.sv_height * t
        rr = r * (0.75 + 0.7 * t * (1.25 - t))
        q = np.square((w.y - yc) / rr) + np.square((w.z - zc) / (1.5 * rr))
        n = canvas.shape_noise.sample_numpy(w.x * 1.6, w.y * 1.6, w.z)
        level = np.sqrt(q) + 0.16 * n[0]
        sv = (level < 1) & (t < 1.12) & (ax > 2.0) & (w.labels != _T.BLADDER_URINE)
        w.paint(sv, _T.SV_WALL)
        w.paint(sv & (level < 0.86) & (n[1] < p.sv_lumen), _T.SV_LUMEN)
    canvas.tube(
        (4.0, y0 - 1, z0),
        (7.0, y0 - 1, z0 + 22),
        _T.SV_LUMEN,
        radius=3.2,
        rim_mm=1.6,
        rim=_T.SV_WALL,
        both=True,
    )


def paint_vessels(canvas: Canvas, params: AnatomyParams) -> None:
    """Iliac and sidewall vessels and the drawn small ones."""
    k = params.pelvis.pelvic_scale
    canvas.tube(
        (50.0 * k, -44.0, 0.0), (42.0 * k, -30.0, 70.0), _T.VESSEL_VOID, radius=5.0, both=True
    )
    canvas.tube(
        (42.0 * k, -40.0, 0.0), (38.0 * k, -22.0, 70.0), _T.VESSEL_BRIGHT, radius=5.5, both=True
    )
    for start, end, radius, kind in params.vessels:
        canvas.tube(start, end, _T(kind), radius=radius)
