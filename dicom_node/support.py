"""What helps others to help: a ZIP that names no patient (`dicom-node support-bundle`).

Out are pixels, names, Patient IDs, dates of patients and studies, UIDs, passwords and the audit
trail. In are versions, the system, the doctor's report, counts, the configuration with hosts and
AE titles, what became of the latest studies in seconds since they began, logs where they are given,
and for one study how its series were chosen. A study is named as in the log (`logs.pseudonym`).
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from dicom_node import __version__
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, load_config
from dicom_node.config_secrets import without_secrets
from dicom_node.dicom.records import InstanceHeader
from dicom_node.dicom.select import select
from dicom_node.doctor import examine
from dicom_node.durable import write_file
from dicom_node.errors import NodeError
from dicom_node.flow.health import storage_state
from dicom_node.logs import pseudonym
from dicom_node.store.engine import HEAD, describe_sqlite
from dicom_node.store.store import Store

STUDIES = 200
LOG_BYTES = 5 * 2**20
"""The end of a log file that is taken."""
_PACKAGES = ("pydicom", "pynetdicom", "highdicom", "numpy", "torch", "monai", "SimpleITK",
             "SQLAlchemy", "fastapi")  # fmt: skip
_UID = re.compile(r"(?<![\d.])[0-2](?:\.\d+){4,}(?!\.?\d)")
_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])(?!\d)")
_NUMBER = re.compile(r"\d{5,}")
_SHOWN = (
    "modality", "series_number", "image_type", "rows", "columns", "bits_allocated",
    "samples_per_pixel", "pixel_spacing", "slice_thickness", "spacing_between", "iop",
    "echo_time", "repetition_time", "flip_angle", "echo_train_length", "scanning_sequence",
    "sequence_variant", "scan_options", "sequence_name", "mr_acquisition_type",
    "field_strength_t", "b_value", "b_source", "directionality", "rescale_slope",
    "rescale_intercept", "rescale_type", "rwvm_unit", "rwvm_slope", "manufacturer", "model",
    "software", "number_of_frames", "has_pixel_data",
)  # fmt: skip
"""Of a header, what decides the choice of series and names nobody."""
_DESCRIBED = ("series_description", "protocol_name", "body_part")
"""Free text: words of the patient and long numbers are taken out."""


def write_bundle(
    config_file: Path, out: Path, study_uid: str = "", logs: Sequence[Path] = ()
) -> list[str]:
    """Write the bundle; returns what is in it.

    Raises:
        NodeError: the configuration cannot be read, the study is unknown, or the disk refused.
    """
    config = load_config(config_file)
    parts: dict[str, Any] = {
        "about.json": about(config),
        "doctor.json": [check.as_dict() for check in examine(config_file)],
        "configuration.toml": without_secrets(config_file.read_text(encoding="utf-8")),
    }
    store = Store(config.database_url, clock=SystemClock())
    try:
        parts["status.json"] = _status(store, config)
        parts["studies.json"] = [_study(store, uid) for uid in _latest(store)]
        if study_uid:
            parts["selection.json"] = selection_of(store, study_uid)
    finally:
        store.close()
    for number, path in enumerate(logs, start=1):
        parts[f"log-{number}.jsonl"] = _log(path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in parts.items():
            text = content if isinstance(content, str) else json.dumps(content, indent=1)
            bundle.writestr(name, without_uids(text))
    write_file(out, [packed.getvalue()], mode=0o600)
    return list(parts)


def about(config: NodeConfig) -> dict[str, Any]:
    """Return versions and the system."""
    data_dir = config.node.data_dir
    found: dict[str, Any] = {
        "version": __version__, "schema": HEAD, "python": sys.version, "sqlite": describe_sqlite(),
        "platform": platform.platform(), "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "packages": {name: _version(name) for name in _PACKAGES},
    }  # fmt: skip
    if data_dir.exists():
        found["disk"] = shutil.disk_usage(data_dir)._asdict()
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _status(store: Store, config: NodeConfig) -> dict[str, Any]:
    return {
        **store.status(), "storage": storage_state(config.node.data_dir).as_dict(),
        "refusals": store.refusals(), "stored_bytes": store.stored_bytes(),
    }  # fmt: skip


def _latest(store: Store) -> list[str]:
    return list(dict.fromkeys(row["study_uid"] for row in store.studies_list(STUDIES)))


def _study(store: Store, uid: str) -> dict[str, Any]:
    """Return what became of a study: no time of the clock, no UID, no words of its patient."""
    rows = store.studies_show(uid)
    events = store.timeline(uid)
    began = min((_seconds(event["at"]) for event in events), default=0.0)
    words = _words_of(store.patient_of(uid))
    return {
        "study": pseudonym(uid),
        "revisions": [
            {
                "revision": row["revision"], "state": row["state"], "reason": row["reason"],
                "message": hidden(row["message"] or "", words), "instances": row["instances"],
                "attempts": row["attempts"],
                "results": dict(Counter(one["kind"] for one in row["results"])),
                "deliveries": dict(Counter(
                    f"{sent['peer']}: {sent['state']}"
                    for one in row["results"] for sent in one["deliveries"]
                )),
            }
            for row in rows
        ],
        "timeline": [
            {
                "after_s": round(_seconds(event["at"]) - began, 3), "event": event["event"],
                "revision": event["revision"], "detail": hidden(event["detail"], words),
            }
            for event in events
        ],
    }  # fmt: skip


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def selection_of(store: Store, study_uid: str) -> dict[str, Any]:
    """Return how the series of a study were chosen, without who it shows.

    Raises:
        NodeError: the study is unknown.
    """
    headers = [InstanceHeader.from_json(row.header_json) for row in store.headers_of(study_uid)]
    if not headers:
        raise NodeError(f"no study {study_uid} here", "see dicom-node studies list")
    words = frozenset().union(*(_words_of_header(header) for header in headers))
    selection = select(headers)
    by_series: dict[str, list[InstanceHeader]] = defaultdict(list)
    for header in headers:
        by_series[header.series_uid].append(header)
    chosen = {uid: role for role, uid in selection.inputs().items() if uid}
    why = {one.series_uid: one.reason for one in selection.rejected}
    return {
        "study": pseudonym(study_uid), "problem": selection.problem,
        "detail": hidden(selection.detail, words),
        "notes": [hidden(note, words) for note in selection.notes],
        "series": [
            {
                "series": pseudonym(uid), "instances": len(some), "role": chosen.get(uid),
                "why_not": hidden(why.get(uid, ""), words), **_series(some, words),
            }
            for uid, some in by_series.items()
        ],
    }  # fmt: skip


def _series(some: Sequence[InstanceHeader], words: frozenset[str]) -> dict[str, Any]:
    """Return each element with its values, the most frequent first."""
    told: dict[str, Any] = {}
    for name in (*_SHOWN, *_DESCRIBED):
        values = Counter(json.dumps(_plain(getattr(one, name))) for one in some)
        shown = [json.loads(value) for value, _ in values.most_common(5)]
        if name in _DESCRIBED:
            shown = [hidden(str(value), words, numbers=True) for value in shown]
        told[name] = shown[0] if len(values) == 1 else {"values": len(values), "most": shown}
    positions = sorted(one.ipp[2] for one in some if one.ipp is not None)
    told["z_mm"] = [round(z, 2) for z in (positions[0], positions[-1])] if positions else None
    return told


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _words_of_header(header: InstanceHeader) -> frozenset[str]:
    return _words_of(
        header.patient_id, header.patient_name, header.issuer, header.accession_number,
        header.institution, header.station, header.device_serial,
    )  # fmt: skip


def _words_of(*texts: str) -> frozenset[str]:
    """Return texts that name somebody, whole and word by word; what is too short is no name."""
    found = {text.strip() for text in texts}
    found |= {word for text in texts for word in re.split(r"[\s^=,;]+", text)}
    return frozenset(word.casefold() for word in found if len(word) > 1)


def hidden(text: str, words: Iterable[str], *, numbers: bool = False) -> str:
    """Return text without these words, dates and UIDs; ``numbers``: without long numbers too."""
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(re.escape(word), "***", text, flags=re.IGNORECASE)
    text = _DATE.sub("***", without_uids(text))
    return _NUMBER.sub("***", text) if numbers else text


def without_uids(text: str) -> str:
    """Return text in which each UID is replaced by the stand-in that logs use."""
    return _UID.sub(lambda found: f"uid-{pseudonym(found[0])}", text)


def _log(path: Path) -> str:
    """Return the end of a log: lines of JSON alone, as the node writes them."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}", "name a log file") from None
    return "\n".join(line for line in lines if _is_record(line)) + "\n"


def _is_record(line: str) -> bool:
    try:
        told = json.loads(line)
    except ValueError:
        return False
    return isinstance(told, Mapping) and {"time", "level", "event"} <= told.keys()
