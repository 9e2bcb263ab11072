"""Keeps rendered examinations, so that the next evaluation of the same data reads them.

Rendering takes more time than the analysis; ablations and other releases look at the same inputs.
One NPZ file by case: arrays, and a JSON header with geometry and truth. Images are rounded to 11
significant bits (float16 times a power of two), which is finer than the noise of any scanner; a
case reads the same the first time and from the file.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_core.evaluate.sources import CaseSource
from ai_core.labelled import BenignFocus, LabelledCase, Reference
from ai_core.types import Case, DceSeries, DwiVolume, Geometry, LabelArray, Volume

HEADER = "header"
TRUTH = ("grades", "gland", "zones")
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class KeptInputs:
    """A source whose cases are written to ``folder`` when first read, and read from there after."""

    source: CaseSource
    folder: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cases, in order."""
        return self.source.names

    def read(self, index: int) -> LabelledCase:
        """Read a case with all its images and labels; raises as the source does."""
        path = self.folder / f"{self.names[index]}.npz"
        kept = _load(path)
        if kept is not None:
            return kept
        case = self.source.read(index)
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **_pack(case))
        part.replace(path)
        fresh = _load(path)
        return case if fresh is None else fresh


def _load(path: Path) -> LabelledCase | None:
    """Return the case in a file; None where there is none, or a broken one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return _unpack({name: stored[name] for name in stored.files})
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError):
        return None


def _volumes(case: Case) -> Iterator[tuple[str, Volume]]:
    yield "t2w", case.t2w
    if case.adc is not None:
        yield "adc", case.adc
    if case.high_b is not None:
        yield "high_b", case.high_b.volume
    for number, image in enumerate(case.dwi):
        yield f"dwi{number}", image.volume
    for number, phase in enumerate(case.dce.phases if case.dce else ()):
        yield f"dce{number}", phase


def _pack(labelled: LabelledCase) -> dict[str, npt.NDArray[Any]]:
    case, truth = labelled.case, labelled.reference
    images: dict[str, Any] = {}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, volume in _volumes(case):
        scale = _scale(volume.array)
        arrays[name] = (volume.array.astype(np.float32) / scale).astype(np.float16)
        images[name] = {"geometry": asdict(volume.geometry), "scale": scale}
    arrays |= {name: mask for name in TRUTH if (mask := getattr(truth, name)) is not None}
    header = {
        "name": labelled.name,
        "site": labelled.site,
        "images": images,
        "adc_to_um2_s": case.adc_to_um2_s,
        "dwi": [_b_value(image) for image in case.dwi],
        "high_b": None if case.high_b is None else _b_value(case.high_b),
        "dce_times_s": None if case.dce is None else case.dce.times_s,
        "positive": truth.positive,
        "benign": None if truth.benign is None else [asdict(focus) for focus in truth.benign],
        "highest_pirads": truth.highest_pirads,
    }
    return {**arrays, HEADER: np.array(json.dumps(header))}


def _b_value(image: DwiVolume) -> tuple[float, bool]:
    return image.b_value_s_per_mm2, image.computed


def _scale(array: npt.NDArray[Any]) -> float:
    """Power of two that brings the largest value below 2048, far from float16's limits."""
    top = float(np.abs(array).max())
    return 2.0 ** max(-40, math.ceil(math.log2(top)) - 11) if top > 0 else 1.0


def _unpack(stored: Arrays) -> LabelledCase:
    header = json.loads(str(stored[HEADER]))
    images = {name: _volume(stored[name], about) for name, about in header["images"].items()}
    high_b, times_s = header["high_b"], header["dce_times_s"]
    case = Case(
        images["t2w"],
        images.get("adc"),
        header["adc_to_um2_s"],
        tuple(DwiVolume(images[f"dwi{i}"], *about) for i, about in enumerate(header["dwi"])),
        None if high_b is None else DwiVolume(images["high_b"], *high_b),
        None
        if times_s is None
        else DceSeries(tuple(images[f"dce{i}"] for i in range(len(times_s))), tuple(times_s)),
    )
    masks: dict[str, LabelArray | None] = {name: stored.get(name) for name in TRUTH}
    benign = header["benign"]
    truth = Reference(
        header["positive"],
        **masks,
        benign=None if benign is None else tuple(_focus(about) for about in benign),
        highest_pirads=header["highest_pirads"],
    )
    return LabelledCase(header["name"], header["site"], case, truth)


def _volume(array: npt.NDArray[Any], about: dict[str, Any]) -> Volume:
    place = about["geometry"]
    geometry = Geometry(
        tuple(place["size_xyz"]),
        tuple(place["spacing_xyz_mm"]),
        tuple(place["origin_lps_mm"]),
        tuple(tuple(row) for row in place["direction"]),  # type: ignore[arg-type]
    )
    return Volume(array.astype(np.float32) * np.float32(about["scale"]), geometry)


def _focus(about: dict[str, Any]) -> BenignFocus:
    return BenignFocus(about["kind"], about["isup"], about["pirads"], tuple(about["center_lps_mm"]))
