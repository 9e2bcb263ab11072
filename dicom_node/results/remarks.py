"""What a report says in words, besides its coded content."""

from __future__ import annotations

from ai_core.types import CaseResult
from dicom_node.results.equipment import DISCLAIMER, MODEL_NAME
from dicom_node.results.request import NotAnalysed, ResultRequest
from dicom_node.results.text import ascii_text


def not_analysed_words(outcome: NotAnalysed) -> str:
    """Return why there is no result, in words that cannot be read as a negative one."""
    lead = {
        "not_analysable": "NOT ANALYSED. This study was not analysed by the AI.",
        "failed": "NOT ANALYSED. The analysis of this study by the AI failed.",
    }[outcome.state]
    return ascii_text(
        f"{lead} Reason: {outcome.message} The absence of findings in this report means nothing."
    )


def analysed_remarks(result: CaseResult, request: ResultRequest) -> list[str]:
    """Return what is said of an analysed study as a whole, one remark per line."""
    release = result.release
    summary = (
        f"{len(result.findings)} region(s) marked by the AI."
        if result.findings
        else "The AI marked no region. This does not exclude cancer."
    )
    wording = (
        []
        if release.calibrated_on_real_cases
        else ["The AI suspicion index is not a probability: it was not calibrated on real cases."]
    )
    quality = [f"Image quality: {finding.message}" for finding in result.quality]
    model = f"Model: {release.name} {release.version}, weights SHA-256 {release.sha256}"
    return [DISCLAIMER, summary, *wording, *quality, model, *common_remarks(request)[1:]]


def common_remarks(request: ResultRequest) -> list[str]:
    """Return what every report says of its making: caveat, series, digests, software."""
    revision = [f"Revision {request.revision} of this report."] if request.revision > 1 else []
    return [
        DISCLAIMER,
        *revision,
        *(f"Series used: {series}" for series in request.selection.chosen),
        *(f"Series not used: {series}" for series in request.selection.rejected),
        *(f"Note: {note}." for note in request.selection.notes),
        f"Input SHA-256 {request.inputs_digest}",
        f"Settings SHA-256 {request.config_digest}",
        f"Software: {MODEL_NAME} {request.software_version}",
    ]
