"""Make the study that tests a connection: images of nobody, and the results made of them.

``python -m dicom_node.connection_study --rebuild FOLDER`` simulates a small examination, lets the
packaged release analyse it and writes images and results of every kind and form as one file. It
needs torch; who sends the study only unpacks it (`dicom_node.flow.connection_study`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ai_core import load_release
from dicom_node import __version__, durable
from dicom_node.domain.profile import ResultKind
from dicom_node.errors import NodeError
from dicom_node.flow.connection_study import ARCHIVE, IMAGES, PATIENT_ID, RESULTS
from dicom_node.flow.study import StudyJob, StudyOutcome, run_study
from dicom_node.phantom import PhantomOptions, write_study
from dicom_node.process import StudyFolder, read_folder

_SEED, _MATRIX, _SLICES, _PHASES = 7, 192, 18, 2
_SENT_SERIES = "t2w-axial"
_CONTENT_TIME = datetime(2024, 1, 2, 11, tzinfo=UTC)
_WITHOUT = {ResultKind.REJECTION_NOTE}
_OPTIONS = PhantomOptions(
    uid_seed="connection test",
    patient_id=PATIENT_ID,
    patient_name="CONNECTION TEST^NOT A PATIENT",
    elements={
        "StudyDescription": "CONNECTION TEST, NOT A PATIENT", "AccessionNumber": "",
        "InstitutionName": "Synthetic data, connection test",
    },
)  # fmt: skip


def rebuild(folder: Path) -> Path:
    """Simulate, analyse and write the study; returns its file.

    Raises:
        NodeError: the study was not analysed, or has no lesion to mark.
    """
    from ai_core.sim.study import Site, simulate_study  # type: ignore[attr-defined]

    simulated = simulate_study(
        _SEED, site=Site(), lesion=True, t2w_matrix=_MATRIX, slices=_SLICES, dce_phases=_PHASES
    )
    with tempfile.TemporaryDirectory() as scratch:
        write_study(simulated, Path(scratch), options=_OPTIONS)
        found = read_folder(Path(scratch))
        outcome = _analyse(found)
        out = folder / ARCHIVE
        durable.ensure_dir(folder)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, data in [*_images(Path(scratch)), *_results(outcome)]:
                # a fixed time: the same content gives the same file
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out


def _analyse(found: StudyFolder) -> StudyOutcome:
    job = StudyJob(
        headers=found.headers,
        load=lambda uid: found.files[uid].read_bytes(),
        digests=found.digests,
        content_time=_CONTENT_TIME,
        config_digest="connection test",
        installation_id="connection test",
        software_version=__version__,
        kinds=frozenset(kind.value for kind in ResultKind if kind not in _WITHOUT),
        variants=True,
    )
    outcome = run_study(job, lambda: load_release(device="cpu", precision="fp32"))
    if outcome.state != "analysed" or not outcome.result or not outcome.result.findings:
        raise NodeError(f"the study is {outcome.state}: {outcome.message}", "choose another seed")
    return outcome


def _images(folder: Path) -> Iterator[tuple[str, bytes]]:
    (series,) = folder.glob(f"*-{_SENT_SERIES}")
    for path in sorted(series.iterdir()):
        yield f"{IMAGES}/{path.name}", path.read_bytes()


def _results(outcome: StudyOutcome) -> Iterator[tuple[str, bytes]]:
    for number, item in enumerate(outcome.objects, start=1):
        form = f"{item.kind}.{item.variant}" if item.variant else item.kind
        yield f"{RESULTS}/{form}/{number:04d}.dcm", item.data


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m dicom_node.connection_study``."""
    parser = argparse.ArgumentParser(prog="python -m dicom_node.connection_study")
    parser.add_argument("--rebuild", type=Path, required=True, metavar="FOLDER")
    made = rebuild(parser.parse_args(arguments).rebuild)
    sys.stdout.write(f"wrote {made}, {made.stat().st_size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
