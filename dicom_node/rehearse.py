"""The rehearsal of a release: the packaged phantom through everything a study goes through.

Reading, networks, findings, encoding and the output gate run as they do for a patient. It needs
torch; only commands that prepare a release import it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ai_core import load_release
from ai_core.errors import CoreError
from ai_core.types import CaseResult
from dicom_node import __version__
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.errors import InputProblem, NodeError, RegistryError
from dicom_node.flow.study import StudyJob, StudyOutcome, run_study
from dicom_node.phantom import packaged_study
from dicom_node.process import read_folder
from dicom_node.registry.shelf import CheckedRelease, check_whole
from dicom_node.registry.switch import find_release
from dicom_node.results.gate import GateError
from dicom_node.store.store import Store

_NOT_THIS = "do not use this release; tell whoever made it"


@dataclass(frozen=True)
class Rehearsal:
    """What the release made of the phantom. Volumes in mL; likelihood 0-1."""

    seconds: float
    gland_ml: float
    findings: int
    likelihood: float
    objects: int

    def words(self) -> list[tuple[str, str]]:
        """Return it as (what, value), for people and the audit trail."""
        return [
            ("phantom analysed in", f"{self.seconds:.1f} s"),
            ("phantom gland", f"{self.gland_ml:.1f} mL"),
            ("phantom findings", str(self.findings)),
            ("phantom likelihood", f"{100 * self.likelihood:.1f} %"),
            ("phantom result objects", str(self.objects)),
        ]


def rehearse(config: NodeConfig, release: CheckedRelease) -> Rehearsal:
    """Let a release analyse the packaged phantom.

    Raises:
        RegistryError: it cannot be loaded, fails, finds no prostate, gives values that are not
            numbers or lie outside their range, or its result objects do not pass the gate.
    """
    start = time.perf_counter()
    settings = config.model
    try:
        outcome = run_study(
            _phantom_job(config),
            lambda: load_release(
                release.folder,
                settings.device,
                settings.precision,
                release.sha256,
                settings.synthesis,
            ),
        )
    except CoreError as error:
        raise RegistryError(str(error.args[0]), error.advice) from error
    except (InputProblem, GateError) as error:
        raise RegistryError(f"the phantom could not be analysed: {error}", _NOT_THIS) from error
    result = _checked(outcome)
    return Rehearsal(
        time.perf_counter() - start,
        result.gland.volume_ml,
        len(result.findings),
        result.case_likelihood,
        len(outcome.objects),
    )


def _phantom_job(config: NodeConfig) -> StudyJob:
    folder = read_folder(packaged_study())
    return StudyJob(
        headers=folder.headers,
        load=lambda uid: folder.files[uid].read_bytes(),
        digests=folder.digests,
        content_time=SystemClock().now(),
        config_digest=config.analysis_digest(),
        installation_id="rehearsal",
        software_version=__version__,
    )


def _checked(outcome: StudyOutcome) -> CaseResult:
    if outcome.state != "analysed" or outcome.result is None:
        raise RegistryError(f"the phantom came back as {outcome.state}: {outcome.message}",
                            _NOT_THIS)  # fmt: skip
    wrong = next(_problems(outcome.result), None)
    if wrong is not None:
        raise RegistryError(f"of the phantom, {wrong}", _NOT_THIS)
    return outcome.result


def _problems(result: CaseResult) -> Iterator[str]:
    """Say what no release may give."""
    maps = {"likelihood": result.likelihood, "relevance": result.relevance}
    maps |= {f"map of {name}": values for name, values in result.modality_maps.items()}
    for name, values in maps.items():
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            yield f"the {name} leaves 0 to 1"
    numbers = [result.case_likelihood, *(one.likelihood for one in result.findings)]
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in numbers):
        yield "a likelihood leaves 0 to 1"
    if not all(math.isfinite(one.suspicion_score) for one in result.findings):
        yield "a suspicion score is not a number"


def main(arguments: list[str]) -> int:
    """Rehearse the release of a digest and print the outcome as JSON: for the web process.

    The configuration comes as JSON on standard input. The process ends with its parent.
    """
    from dicom_node.roles import die_with_parent

    die_with_parent()
    config = NodeConfig.model_validate_json(sys.stdin.read())
    store = Store(config.database_url, clock=SystemClock())
    told: dict[str, object] = {"problem": "", "proof": []}
    try:
        found = find_release(config, store, arguments[0])
        told["proof"] = rehearse(config, check_whole(config, found.row)).words()
    except NodeError as error:
        told["problem"] = str(error)
    finally:
        store.close()
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
