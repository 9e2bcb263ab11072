"""Synthetic studies for tests: simulated once a session, written under new UIDs as needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from ai_core.sim.study import SimulatedStudy, simulate_study
from dicom_node.phantom import PhantomOptions, Role, write_study

BIPARAMETRIC = frozenset({Role.T2W_AXIAL, Role.DWI, Role.ADC})


class StudyMaker:
    """Writes copies of one simulated examination."""

    def __init__(self) -> None:
        self._study: SimulatedStudy | None = None

    @property
    def study(self) -> SimulatedStudy:
        """A small examination with a significant lesion."""
        if self._study is None:
            self._study = simulate_study(
                7, lesion=True, planes=("axial",), t2w_matrix=224, slices=20, dce_phases=3
            )
        return self._study

    def write(
        self, folder: Path, name: str, *, roles: frozenset[Role] = BIPARAMETRIC, **options: Any
    ) -> list[Path]:
        """Write the examination; `name` decides the UIDs and the patient."""
        chosen = PhantomOptions(uid_seed=name, patient_id=f"TEST-{name}", roles=roles)
        return write_study(self.study, folder, options=replace(chosen, **options))


def noise(dataset: Dataset) -> None:
    """Leave nothing that looks like a prostate: an edit for ``StudyMaker.write``."""
    chance = np.random.default_rng(int(dataset.InstanceNumber))
    pixels = chance.integers(0, 900, (dataset.Rows, dataset.Columns), dtype=np.uint16)
    dataset.PixelData = pixels.tobytes()


def cut_pixels(dataset: Dataset) -> None:
    """Leave the first 1000 bytes of the pixel data: an edit for ``StudyMaker.write``."""
    dataset.PixelData = dataset.PixelData[:1000]


def study_uid(files: list[Path]) -> str:
    """Study Instance UID of written files."""
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
