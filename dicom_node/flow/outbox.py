"""Result files: written once, whole, with a manifest from which a lost database is rebuilt.

``results/<16 of sha256 of study UID>-<revision>/`` holds one Part 10 file per object and
``manifest.json`` with the state of the revision and of its deliveries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dicom_node.domain.states import DeliveryState, RevisionState
from dicom_node.durable import ensure_dir, write_file
from dicom_node.errors import StoreError
from dicom_node.flow.spool import RESULTS
from dicom_node.store.rows import ManifestDelivery, ManifestRow, OmissionRow, ResultRow
from dicom_node.store.store import Store

MANIFEST = "manifest.json"
_VERSION = 1


def results_folder(study_uid: str, number: int) -> str:
    """Folder of the results of a revision, relative to the data folder."""
    return f"{RESULTS}/{hashlib.sha256(study_uid.encode()).hexdigest()[:16]}-{number}"


def model_of(data_dir: Path, study_uid: str, number: int) -> dict[str, Any] | None:
    """Return name, version and digest of the release that analysed a revision; None: nothing did.

    Also None where the result cannot be read.
    """
    try:
        path = data_dir / results_folder(study_uid, number) / "result.json"
        told = json.loads(path.read_bytes())
        return dict(told["model"]) if told["state"] == "analysed" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_manifests(store: Store, data_dir: Path) -> int:
    """Bring manifests up to date with the database; returns how many were written."""
    due = store.manifests_due()
    for row in due:
        folder = data_dir / row.folder
        ensure_dir(folder)
        write_file(folder / MANIFEST, [json.dumps(_to_json(row), indent=1).encode()])
        store.manifest_written(row)
    return len(due)


def read_manifests(data_dir: Path) -> Iterator[ManifestRow]:
    """Every readable manifest, by study and revision."""
    for path in sorted((data_dir / RESULTS).glob(f"*/{MANIFEST}")):
        try:
            yield _from_json(json.loads(path.read_bytes()), f"{RESULTS}/{path.parent.name}")
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{path} cannot be read: {error}", "move its folder away and recover again"
            ) from None


def _to_json(row: ManifestRow) -> dict[str, Any]:
    return {
        "version": _VERSION, "study_uid": row.study_uid, "revision": row.number,
        "state": row.state, "reason": row.reason, "message": row.message,
        "input_key": row.input_key, "content_time": row.content_time_s,
        "results": [
            {
                "kind": result.kind, "variant": result.variant,
                "sop_class_uid": result.sop_class_uid,
                "sop_instance_uid": result.sop_instance_uid, "series_uid": result.series_uid,
                "file": Path(result.path).name, "sha256": result.sha256, "size": result.size,
                "deliveries": [
                    {"peer": one.peer, "state": one.state, "attempts": one.attempts} for one in sent
                ],
            }
            for result, sent in row.results
        ],
        "left_out": [asdict(one) for one in row.left_out],
        "images_removed": row.images_removed_at_s, "results_removed": row.results_removed_at_s,
    }  # fmt: skip


def _from_json(told: dict[str, Any], folder: str) -> ManifestRow:
    results = tuple(
        (
            ResultRow(
                one["kind"], one["sop_class_uid"], one["sop_instance_uid"], one["series_uid"],
                f"{folder}/{Path(one['file']).name}", one["sha256"], int(one["size"]),
                one.get("variant", ""),
            ),
            tuple(
                ManifestDelivery(sent["peer"], DeliveryState(sent["state"]), int(sent["attempts"]))
                for sent in one["deliveries"]
            ),
        )
        for one in told["results"]
    )  # fmt: skip
    return ManifestRow(
        revision_id=0, study_uid=told["study_uid"], number=int(told["revision"]),
        state=RevisionState(told["state"]), reason=told["reason"], message=told["message"],
        input_key=told["input_key"], content_time_s=told["content_time"], folder=folder,
        results=results,
        left_out=tuple(OmissionRow(**one) for one in told.get("left_out", [])),
        images_removed_at_s=told.get("images_removed"),
        results_removed_at_s=told.get("results_removed"),
    )  # fmt: skip
