"""Finds the files of each examination in folders of the PI-CAI layout.

Known places (any depth up to `DEEPEST` below the given folders; several folders count as one):

- MHA archive: ``<patient>/<patient>_<study>_{t2w,adc,hbv,dce}.mha`` (NIfTI and NRRD too);
- nnU-Net raw: ``imagesTr/<case>_0000`` T2W, ``_0001`` ADC, ``_0002`` high b, ``labelsTr/<case>``,
  channels as named by ``dataset.json`` where there is one;
- labels: ``<patient>_<study>.nii.gz`` in folders whose path says what they are (`LABEL_FOLDERS`);
- ``marksheet.csv``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ai_core.errors import InputError
from ai_core.picai.marksheet import ClinicalRow, read_marksheet
from ai_core.volume_io import SUFFIXES

DEEPEST = 6
IMAGES = ("t2w", "adc", "hbv", "dce")
#: Kind of label -> parts of the folder path, the most trusted first.
LABEL_FOLDERS: dict[str, tuple[str, ...]] = {
    "lesions_expert": ("human_expert/resampled", "human_expert", "labelsTr"),
    "lesions_ai": ("csPCa_lesion_delineations/AI",),
    "gland": ("whole_gland",),
    "zones": ("zonal_pz_tz",),
}
NNUNET_CHANNELS = {"0000": "t2w", "0001": "adc", "0002": "hbv"}
CHANNEL_NAMES = {"t2w": "t2w", "t2": "t2w", "adc": "adc", "hbv": "hbv", "dwi": "hbv", "dce": "dce"}


@dataclass(frozen=True)
class StudyFiles:
    """Files of one examination: images by kind, labels by kind, its row of the clinical table."""

    name: str
    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    parameters: Path | None
    row: ClinicalRow | None

    @property
    def patient_id(self) -> str:
        """Patient identifier: the part of the name before the first underscore."""
        return self.row.patient_id if self.row else self.name.split("_", maxsplit=1)[0]

    @property
    def usable(self) -> bool:
        """Whether there is what an analysis needs: T2W and ADC."""
        return {"t2w", "adc"} <= set(self.images)


@dataclass(frozen=True)
class Archive:
    """All examinations of some folders, by name. ``left_out`` lists names without T2W or ADC."""

    studies: tuple[StudyFiles, ...]
    left_out: tuple[str, ...]


@dataclass
class _Found:
    images: dict[str, dict[str, Path]] = field(default_factory=dict)
    labels: dict[str, dict[str, tuple[int, Path]]] = field(default_factory=dict)
    parameters: dict[str, Path] = field(default_factory=dict)
    rows: dict[str, ClinicalRow] = field(default_factory=dict)


def open_archive(folders: Sequence[Path]) -> Archive:
    """Scan folders of the PI-CAI layout.

    Raises:
        InputError: a folder is missing, or nothing in them is an examination.
    """
    found = _Found()
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder", "Give the folder of the data.")
        channels = _channels(folder)
        for path in _files(folder):
            _place(path, folder, channels, found)
    studies = [_study(name, found) for name in sorted(found.images)]
    usable = tuple(study for study in studies if study.usable)
    if not usable:
        listed = ", ".join(str(folder) for folder in folders)
        raise InputError(
            f"no examination with T2W and ADC in {listed}",
            "Expected <patient>/<patient>_<study>_t2w.mha or imagesTr/<case>_0000.nii.gz.",
        )
    return Archive(usable, tuple(study.name for study in studies if not study.usable))


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        depth = len(Path(root).relative_to(folder).parts)
        folders[:] = sorted(folders) if depth < DEEPEST else []
        yield from (Path(root) / name for name in sorted(names))


def _channels(folder: Path) -> dict[str, str]:
    """Return channel numbers of nnU-Net raw, as ``dataset.json`` names them (version 1 or 2)."""
    for path in (folder / "dataset.json", *sorted(folder.glob("*/dataset.json"))):
        if not path.is_file():
            continue
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            named = data.get("channel_names") or data.get("modality") or {}
            pairs = {f"{int(key):04d}": str(value).lower() for key, value in named.items()}
        except (ValueError, AttributeError) as error:
            raise InputError(f"{path} is not a dataset.json: {error}", "Write it again.") from error
        return {key: CHANNEL_NAMES[value] for key, value in pairs.items() if value in CHANNEL_NAMES}
    return NNUNET_CHANNELS


def _place(path: Path, folder: Path, channels: Mapping[str, str], found: _Found) -> None:
    """Sort one file into what was found; others are ignored."""
    if path.name == "marksheet.csv":
        found.rows |= read_marksheet(path)
        return
    where = path.relative_to(folder).parent
    if path.suffix == ".json" and where.name == "parameters":
        found.parameters[path.stem] = path
        return
    stem = _stem(path)
    if stem is None:
        return
    kind = _label_kind("/".join([*folder.resolve().parts[-3:], *where.parts]))
    if kind is not None:
        name, rank = kind
        best = found.labels.setdefault(stem, {}).get(name)
        if best is None or rank < best[0]:
            found.labels[stem][name] = (rank, path)
        return
    name, _, end = stem.rpartition("_")
    image = channels.get(end) if where.name.startswith("images") else None
    image = image or (end if end in IMAGES else None)
    if name and image is not None:
        found.images.setdefault(name, {})[image] = path


def _stem(path: Path) -> str | None:
    lower = path.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if lower.endswith(suffix) and not path.name.startswith("."):
            return path.name[: -len(suffix)]
    return None


def _label_kind(where: str) -> tuple[str, int] | None:
    """Return kind and rank of a label folder (lower is more trusted), or None."""
    for kind, places in LABEL_FOLDERS.items():
        for rank, place in enumerate(places):
            if place in where:
                return kind, rank
    return None


def _study(name: str, found: _Found) -> StudyFiles:
    labels = {kind: path for kind, (_, path) in found.labels.get(name, {}).items()}
    return StudyFiles(
        name, found.images[name], labels, found.parameters.get(name), found.rows.get(name)
    )
