"""The one process that holds the model: a child of the worker, one study at a time.

Reads jobs as lines of JSON on stdin, answers each with a line of JSON on stdout. Result objects
are written to the folder named in the job before the answer. It may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from ai_core.errors import CoreError
from dicom_node import __version__
from dicom_node.crash_points import fault
from dicom_node.domain.reasons import Reason
from dicom_node.durable import ensure_dir, write_file
from dicom_node.errors import InputProblem
from dicom_node.logs import guard_tracebacks, pseudonym, start_logging
from dicom_node.roles import die_with_parent

log = logging.getLogger(__name__)

RELEASES_IN_MEMORY = 3
"""One for the study, one in its shadow, one of another scanner; more are loaded again."""


def main() -> int:
    """Serve jobs until stdin closes."""
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):  # the worker decides when this process ends
        signal.signal(number, signal.SIG_IGN)
    start_logging("model")
    guard_tracebacks()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()
    return 0


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job. A study that must be held, and an error, are answers too."""
    from dicom_node.results.gate import GateError

    if "shadow" in job:
        return _shadow(job)
    try:
        return _run(job)
    except InputProblem as problem:
        return {"outcome": "held", "reason": problem.reason.value, "message": problem.message}
    except GateError as error:
        return {"outcome": "held", "reason": Reason.OUTPUT_GATE.value, "message": str(error)}
    except CoreError as error:
        log.exception("core error", extra={"study": pseudonym(job["study_uid"])})
        return {"outcome": "error", "message": f"{error}"}
    except Exception as error:
        log.exception("analysis failed", extra={"study": pseudonym(job["study_uid"])})
        return {"outcome": "error", "message": f"{type(error).__name__} in the analysis"}


_kept: dict[tuple[str, int], Any] = {}
"""The last study that was analysed, by UID and revision, for a release in the shadow."""


def _shadow(job: dict[str, Any]) -> dict[str, Any]:
    """Let another release analyse the last study. Nothing of it is written or sent."""
    from dicom_node.flow.shadow import beside

    kept = _kept.pop((job["study_uid"], job["revision"]), None)
    if kept is None:
        return {"outcome": "gone"}  # another process analysed it
    case, active = kept
    try:
        release = _release(**job["shadow"])
        return {"outcome": "compared", "pair": beside(case, active, release)}
    except Exception as error:
        log.exception("shadow failed", extra={"study": pseudonym(job["study_uid"])})
        told = str(error) if isinstance(error, CoreError) else type(error).__name__
        return {"outcome": "error", "message": told}


def _run(job: dict[str, Any]) -> dict[str, Any]:
    from dicom_node.flow.observe import KEY, observe
    from dicom_node.flow.study import StudyJob, encode_json, result_json, run_study
    from dicom_node.results.request import EarlierObject, NotAnalysed

    verdict = job["verdict"]
    study = StudyJob(
        headers=_headers(job["headers"]),
        load=_loader(job["files"]),
        digests={uid: entry["sha256"] for uid, entry in job["files"].items()},
        content_time=datetime.fromisoformat(job["content_time"]).astimezone(),
        config_digest=job["config_digest"],
        installation_id=job["installation_id"],
        software_version=__version__,
        revision=job["revision"],
        earlier=tuple(EarlierObject(**entry) for entry in job["earlier"]),
        kinds=frozenset(job["kinds"]),
        variants=job["variants"],
        verdict=NotAnalysed(verdict["state"], Reason(verdict["reason"]), verdict["message"])
        if verdict
        else None,
    )
    _kept.clear()
    outcome = run_study(study, lambda: _release(**job["release"]))
    if job.get("keep") and outcome.case is not None and outcome.result is not None:
        _kept[job["study_uid"], job["revision"]] = (outcome.case, outcome.result)
    folder = Path(job["out"])
    ensure_dir(folder)
    results: list[dict[str, Any]] = []
    for item in outcome.objects:
        # the content decides the name: another attempt cannot change what was sent
        name = f"{item.kind}-{item.sha256[:16]}.dcm"
        if not _is_there(folder / name, item.sha256):
            write_file(folder / name, [item.data])
        results.append(
            {
                "kind": str(item.kind),
                "variant": str(item.variant),
                "sop_class_uid": item.sop_class_uid,
                "sop_instance_uid": item.sop_instance_uid,
                "series_uid": item.series_uid,
                "file": name,
                "sha256": item.sha256,
                "size": len(item.data),
            }
        )
    observed = observe(study.headers, outcome)
    summary = {**result_json(outcome, [entry["file"] for entry in results]), KEY: observed}
    write_file(folder / "result.json", [encode_json(summary)])
    fault("results-written")
    return {
        "outcome": outcome.state,
        "reason": outcome.reason.value if outcome.reason else None,
        "message": outcome.message,
        "results": results,
        "timings_s": summary["timings_s"],
        KEY: observed,
        "kept": bool(_kept),
        "sha256": outcome.release.sha256 if outcome.release else None,
    }


def _is_there(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _headers(texts: list[str]) -> tuple[Any, ...]:
    from dicom_node.dicom.header import InstanceHeader

    return tuple(InstanceHeader.from_json(text) for text in texts)


def _loader(files: dict[str, dict[str, str]]) -> Callable[[str], bytes]:
    """Return a function that reads an instance and checks it against what was received."""
    from dicom_node.dicom.part10 import dataset_sha256

    def load(sop_instance_uid: str) -> bytes:
        entry = files[sop_instance_uid]
        try:
            data = Path(entry["path"]).read_bytes()
        except FileNotFoundError:
            raise InputProblem(Reason.HASH_MISMATCH, "A stored file is missing.") from None
        if dataset_sha256(data) != entry["sha256"]:
            raise InputProblem(Reason.HASH_MISMATCH)
        return data

    return load


@lru_cache(maxsize=RELEASES_IN_MEMORY)
def _release(folder: str, sha256: str, device: str, precision: str, synthesis: bool = True) -> Any:
    """Load a release once. Files that changed since do not matter: what runs was verified."""
    from ai_core import load_release

    return load_release(
        Path(folder), device=device, precision=precision, sha256=sha256, synthesis=synthesis
    )


if __name__ == "__main__":
    raise SystemExit(main())
