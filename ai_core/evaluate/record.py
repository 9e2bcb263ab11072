"""What is kept of each evaluated case: small JSON files, so that a run can go on after a stop."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

#: Name of the analysis with all images; others are named by what differs.
FULL = "full"
TISSUE_TABLE = "tissue_table"
#: Score by which candidates are ranked unless told otherwise.
LIKELIHOOD = "likelihood"
#: Score of the synthesis branch; absent where the release has none, or it abstains.
ABNORMALITY = "abnormality"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CandidateRecord(_Part):
    """One candidate: the lesion it hits (0: none), whether it is false, its scores by method.

    ``peak_inside``: its most suspicious voxel lies in a significant lesion.
    """

    lesion: int
    false: bool
    overlap: float
    peak_inside: bool
    scores: dict[str, float]
    uncertainty: float = 0.0


class AnalysisRecord(_Part):
    """One analysis of a case.

    ``benign_candidates``: for each benign focus, which candidates lie on it. Dice: None where
    there is no reference. ``case_likelihood``: as stated to the user; None where there is none
    but the score of the highest candidate. ``abnormality``: of the gland's most abnormal part, also
    where synthesis ``abstained``; None where the release has no such branch.
    """

    candidates: tuple[CandidateRecord, ...]
    case_likelihood: float | None = None
    abnormality: float | None = None
    abstained: bool = False
    benign_candidates: tuple[tuple[int, ...], ...] = ()
    gland_found: bool = True
    gland_dice: float | None = None
    pz_dice: float | None = None
    tz_dice: float | None = None
    seconds: float = 0.0


class LesionRecord(_Part):
    """One significant lesion; number 1.. in order. ``zone``: PZ, TZ or unknown."""

    isup: int
    volume_ml: float
    zone: str


class BenignRecord(_Part):
    """One benign focus."""

    kind: str
    isup: int
    pirads: int


class CaseRecord(_Part):
    """One case: truth, analyses by name, seconds to read or render it.

    ``problem``: why it could not be evaluated; then everything else is empty.
    ``lesions_drawn``: False where only the case is labelled.
    """

    name: str
    site: str = ""
    problem: str | None = None
    positive: bool = False
    lesions_drawn: bool = True
    lesions: tuple[LesionRecord, ...] = ()
    benign: tuple[BenignRecord, ...] = ()
    highest_pirads: int | None = None
    analyses: dict[str, AnalysisRecord] = {}
    quality: tuple[str, ...] = ()
    read_s: float = 0.0


def write_record(record: CaseRecord, folder: Path) -> None:
    """Write a record; the file appears whole or not at all."""
    path = record_path(folder, record.name)
    part = path.with_suffix(".part")
    part.write_text(record.model_dump_json() + "\n", encoding="utf-8")
    part.replace(path)


def read_record(folder: Path, name: str) -> CaseRecord | None:
    """Read a record; None where it is not there or not readable (then it is made again)."""
    try:
        return CaseRecord.model_validate_json(record_path(folder, name).read_bytes())
    except (OSError, ValidationError):
        return None


def record_path(folder: Path, name: str) -> Path:
    """File of the record of a case."""
    return folder / f"{name}.json"
