"""Write simulated examinations as DICOM studies, as a scanner would send them.

The same study and options give the same bytes. ``python -m dicom_node.phantom --rebuild FOLDER``
makes the packaged studies again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from pydicom.uid import RLELossless

from ai_core.geometry import lps_of_index
from ai_core.types import Volume
from dicom_node import durable
from dicom_node.dicom.examination import (
    RECIPES,
    Examination,
    Layout,
    PhantomOptions,
    Role,
    instances,
)
from dicom_node.dicom.write import encode_part10
from dicom_node.samples import sample

__all__ = [
    "RECIPES",
    "Examination",
    "Layout",
    "PhantomOptions",
    "Role",
    "packaged_study",
    "rebuild",
    "write_study",
]

# name of a packaged study: seed of the simulator, with a significant lesion or without
_PACKAGED = {"lesion": (7, True), "no-lesion": (12, False)}
_MATRIX, _SLICES, _SIDE_SLICES, _PHASES = 256, 20, 9, 5


def write_study(
    study: Examination, out: Path, *, options: PhantomOptions | None = None
) -> list[Path]:
    """Write a simulated examination below a folder, one subfolder for each series.

    Returns:
        The files in the order in which a scanner would send them.

    Raises:
        StoreError: the folder cannot be written to.
    """
    options = options or PhantomOptions()
    paths: list[Path] = []
    for name, dataset in instances(study, options):
        path = out / name
        durable.ensure_dir(path.parent)
        durable.write_file(path, [encode_part10(dataset, options.transfer_syntax_uid)])
        paths.append(path)
    return paths


def packaged_study(name: str = "lesion") -> Path:
    """Return the folder of a packaged study (``lesion`` or ``no-lesion``)."""
    return sample(name)


def rebuild(folder: Path) -> list[Path]:
    """Simulate and write the packaged studies; files of an earlier build are removed first.

    Raises:
        StoreError: the folder cannot be written to.
    """
    # loads torch: only where it is needed; the simulator is entered through this module alone
    from ai_core.sim.study import Site, simulate_study  # type: ignore[attr-defined]

    paths: list[Path] = []
    for number, (name, (seed, lesion)) in enumerate(_PACKAGED.items(), start=1):
        for old in sorted((folder / name).rglob("*.dcm")):
            durable.remove(old)
        simulated = simulate_study(
            seed,
            site=Site(),
            lesion=lesion,
            t2w_matrix=_MATRIX,
            slices=_SLICES,
            dce_phases=_PHASES,
        )
        study = replace(
            simulated,
            t2w_sagittal=_middle(simulated.t2w_sagittal),
            t2w_coronal=_middle(simulated.t2w_coronal),
        )
        options = PhantomOptions(
            uid_seed=f"packaged {name}",
            patient_id=f"PHANTOM-{number:03d}",
            transfer_syntax_uid=RLELossless,
        )
        paths += write_study(study, folder / name, options=options)
    return paths


def _middle(volume: Volume | None) -> Volume | None:
    """Keep the middle slices: the gland is there, and the packaged studies stay small."""
    if volume is None:
        return None
    first = (volume.array.shape[0] - _SIDE_SLICES) // 2
    x, y, _ = volume.geometry.size_xyz
    geometry = replace(
        volume.geometry,
        size_xyz=(x, y, _SIDE_SLICES),
        origin_lps_mm=lps_of_index(volume.geometry, (first, 0, 0)),
    )
    return Volume(volume.array[first : first + _SIDE_SLICES], geometry)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m dicom_node.phantom``."""
    parser = argparse.ArgumentParser(prog="python -m dicom_node.phantom", description=__doc__)
    parser.add_argument("--rebuild", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args(arguments).rebuild
    paths = rebuild(folder)
    size = sum(path.stat().st_size for path in paths)
    sys.stdout.write(f"wrote {len(paths)} images, {size / 1e6:.1f} MB, to {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
