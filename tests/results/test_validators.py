"""Result objects before programs that this project did not write: dciodvfy and DCMTK."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dicom_node.results.build import ResultObject, ResultRequest

pytestmark = pytest.mark.interop

Built = tuple[ResultRequest, list[ResultObject]]

ALLOWED = (
    "Retired Person Name form",  # the source's own name, copied byte for byte
    "needed to build DICOMDIR - Study ID",  # empty in the source
    "Unrecognized defined term <99PDN>",  # any private coding scheme draws it
    "Unrecognized defined term <QUANTITY>",  # the one term of parametric maps
)
SETS = (
    "real_finding", "real_no_finding", "real_not_analysed", "full_finding", "full_no_finding",
    "full_not_analysed", "full_stack", "full_enhanced",
)  # fmt: skip
IODS = {
    "key-images": "SCImage", "parametric-map": "ParametricMap", "pdf": "EncapsulatedPDF",
    "presentation-state": "GrayscaleSoftcopyPresentationState",
    "key-object": "KeyObjectSelectionDocument", "rejection-note": "KeyObjectSelectionDocument",
}  # fmt: skip


def program(name: str) -> str:
    path = shutil.which(name)
    assert path, f"{name} is needed: apt-get install dicom3tools dcmtk"
    return path


@pytest.fixture(params=SETS)
def objects(request: pytest.FixtureRequest) -> list[ResultObject]:
    built: Built = request.getfixturevalue(request.param)
    return built[1]


def test_dciodvfy_has_no_error_and_known_warnings_only(
    objects: list[ResultObject], tmp_path: Path
) -> None:
    for number, made in enumerate(objects):
        path = tmp_path / f"{number}-{made.kind}.dcm"
        path.write_bytes(made.data)
        done = subprocess.run(
            [program("dciodvfy"), path], capture_output=True, text=True, check=False
        )
        lines = (done.stdout + done.stderr).splitlines()
        remarks = [line for line in lines if line.startswith(("Error", "Warning"))]
        unknown = [line for line in remarks if not any(known in line for known in ALLOWED)]
        assert not unknown, f"{made.kind}: {unknown}"
        # a validator that did not read the object has no remarks either
        twin = str(made.variant).startswith("comprehensive")
        report = "ComprehensiveSR" if twin else "Comprehensive3DSR"
        iod = report if made.kind == "sr" else IODS.get(made.kind, "Segmentation")
        assert iod in lines, f"{made.kind}: {lines}"


@pytest.mark.parametrize("name", ["dsrdump", "dsr2html"])
def test_dcmtk_reads_the_report(name: str, objects: list[ResultObject], tmp_path: Path) -> None:
    for made in (made for made in objects if made.kind == "sr"):
        path = tmp_path / "sr.dcm"
        path.write_bytes(made.data)
        done = subprocess.run([program(name), path], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stderr == ""
        assert "Imaging Measurement Report" in done.stdout


def test_dcmdump_reads_every_object(objects: list[ResultObject], tmp_path: Path) -> None:
    for made in objects:
        path = tmp_path / "object.dcm"
        path.write_bytes(made.data)
        done = subprocess.run(
            [program("dcmdump"), "-q", path], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
