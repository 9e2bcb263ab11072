"""The same path without network: a folder of DICOM files in, result objects out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ai_core import load_release
from ai_core.errors import CoreError
from dicom_node import __version__
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.dicom.header import HeaderError, InstanceHeader, read_header
from dicom_node.dicom.part10 import dataset_sha256
from dicom_node.domain.assignment import ImageOrigin
from dicom_node.domain.profile import DEFAULT_KINDS
from dicom_node.domain.reasons import Reason
from dicom_node.durable import ensure_dir, write_file
from dicom_node.errors import InputProblem, NodeError
from dicom_node.flow.study import StudyJob, StudyOutcome, encode_json, result_json, run_study
from dicom_node.registry.choose import database_exists, release_for, release_without_registry
from dicom_node.registry.shelf import RunnableRelease
from dicom_node.results.gate import GateError
from dicom_node.results.request import Psa
from dicom_node.store.store import Store

log = logging.getLogger(__name__)
INSTALLATION_ID = "process"
MAX_PSA_NG_ML = 10_000.0


@dataclass(frozen=True)
class StudyFolder:
    """The readable DICOM files of a folder, and how many files were left out."""

    headers: tuple[InstanceHeader, ...]
    files: Mapping[str, Path]
    digests: Mapping[str, str]
    skipped: int


@dataclass(frozen=True)
class ProcessOptions:
    """What to write, and what the images do not tell: kinds of object, PSA in ng/mL.

    ``registry``: ask the database of the configuration which release analyses the study.
    """

    maps: bool = False
    kinds: tuple[str, ...] = DEFAULT_KINDS
    psa_ng_ml: float | None = None
    registry: bool = False


_DEFAULTS = ProcessOptions()


def process_folder(
    folder: Path, out: Path, config: NodeConfig, options: ProcessOptions = _DEFAULTS
) -> dict[str, Any]:
    """Analyse the study in ``folder`` and write its result objects to ``out``.

    Returns the JSON of the contract. ``state`` is ``failed`` where the study may not be answered
    at all (its images disagree about the patient, or a result object failed its checks).

    Raises:
        NodeError: the folder holds no study, or more than one; the release cannot be used.
    """
    found = read_folder(folder)
    ensure_dir(out)
    release = _release(config, found, registry=options.registry)
    job = StudyJob(
        headers=found.headers,
        load=lambda uid: found.files[uid].read_bytes(),
        digests=found.digests,
        content_time=_content_time(out, found),
        config_digest=config.analysis_digest(),
        installation_id=INSTALLATION_ID,
        software_version=__version__,
        kinds=frozenset(options.kinds),
        psa=_psa(options.psa_ng_ml),
    )
    try:
        outcome = run_study(
            job,
            lambda: load_release(
                release.folder,
                config.model.device,
                config.model.precision,
                release.sha256,
                config.model.synthesis,
            ),
        )
    except CoreError as error:
        raise NodeError(str(error)) from error
    except InputProblem as problem:
        outcome = _refused(found, problem.reason, problem.message)
    except GateError as error:
        outcome = _refused(found, Reason.OUTPUT_GATE, str(error))
    return _write(outcome, found, out, job, maps=options.maps)


def _psa(value_ng_ml: float | None) -> Psa | None:
    if value_ng_ml is None:
        return None
    if not 0 < value_ng_ml < MAX_PSA_NG_ML:
        raise NodeError(
            f"a PSA of {value_ng_ml:g} ng/mL cannot be", "give it in ng/mL, for example 7.2"
        )
    return Psa(value_ng_ml, "given on the command line")


def _release(config: NodeConfig, found: StudyFolder, *, registry: bool) -> RunnableRelease:
    origins = {
        ImageOrigin(station=header.station, protocol=header.protocol_name)
        for header in found.headers
    }
    if not registry or config.model.release or not database_exists(config):
        return release_without_registry(config)
    store = Store(config.database_url, clock=SystemClock())
    try:
        return release_for(config, store, lambda: origins)
    finally:
        store.close()


def read_folder(folder: Path) -> StudyFolder:
    """Read the headers of one study.

    Raises:
        NodeError: the folder holds no study, or more than one.
    """
    if not folder.is_dir():
        raise NodeError(f"no folder {folder}", "give the folder that holds the DICOM files")
    headers: dict[str, InstanceHeader] = {}
    files: dict[str, Path] = {}
    digests: dict[str, str] = {}
    skipped = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = read_header(path)
        except (HeaderError, OSError):
            skipped += 1
            continue
        uid = header.sop_instance_uid
        digest = dataset_sha256(path.read_bytes())
        if digests.setdefault(uid, digest) != digest:
            raise NodeError(
                f"two files hold SOP Instance UID {uid} with different content",
                "keep the right one",
            )
        headers.setdefault(uid, header)
        files.setdefault(uid, path)
    studies = {header.study_uid for header in headers.values()}
    if not studies:
        raise NodeError(f"{folder} holds no DICOM files", "give the folder of one study")
    if len(studies) > 1:
        raise NodeError(f"{folder} holds {len(studies)} studies", "give the folder of one study")
    if skipped:
        log.info("files left out", extra={"files": skipped, "why": "not readable as DICOM"})
    return StudyFolder(tuple(headers.values()), files, digests, skipped)


def _content_time(out: Path, found: StudyFolder) -> datetime:
    """Now; or the time of the result that ``out`` already holds of the same images.

    So a repeated run writes the same bytes under the same UIDs (guarantee G3).
    """
    try:
        before = json.loads((out / "result.json").read_text(encoding="utf-8"))
        if before["input_digests"] == dict(sorted(found.digests.items())):
            return datetime.fromisoformat(before["content_time"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no earlier result, or not one of ours
    return SystemClock().now().astimezone()


def _refused(found: StudyFolder, reason: Reason, message: str) -> StudyOutcome:
    return StudyOutcome(
        study_uid=found.headers[0].study_uid,
        state="failed",
        reason=reason,
        message=message,
        objects=(),
        inputs={"t2w": None, "adc": None, "high_b": None, "dce": None},
        timings_s={},
    )


def _write(
    outcome: StudyOutcome, found: StudyFolder, out: Path, job: StudyJob, *, maps: bool
) -> dict[str, Any]:
    outputs = []
    for number, item in enumerate(outcome.objects, start=1):
        same_kind = [other for other in outcome.objects if other.kind == item.kind]
        suffix = f"-{same_kind.index(item) + 1}" if len(same_kind) > 1 else ""
        path = out / f"{item.kind}{suffix}.dcm"
        write_file(path, [item.data])
        outputs.append(str(path))
        log.debug("wrote", extra={"number": number, "kind": item.kind})
    report = result_json(outcome, outputs)
    if maps and outcome.result is not None:
        from ai_core import write_maps

        write_maps(outcome.result, out)
    stored = {
        **report,
        "content_time": job.content_time.isoformat(),
        "input_digests": dict(sorted(found.digests.items())),
        "skipped_files": found.skipped,
    }
    write_file(out / "result.json", [encode_json(stored)])
    return {**report, "skipped_files": found.skipped}
