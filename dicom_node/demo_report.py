"""What the demo checks and shows: the objects that came back to the PACS stand-in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from rich.console import Console
from rich.table import Table

from dicom_node.durable import write_file
from dicom_node.errors import DeliveryError
from dicom_node.net.standin import Filed, PacsStandIn, dataset_bytes

_NUMBERS = {  # concept code of a measurement -> column of the table
    "118565006": "volume, ml",
    "103339001": "longest diameter, mm",
    "113041": "mean ADC, um2/s",
    "AI-SUSPICION": "AI suspicion index, %",
}
_MEASUREMENT_GROUP = "125007"
_TRACKING_IDENTIFIER = "112039"
_FINDING_SITE = "363698007"


@dataclass(frozen=True)
class Returned:
    """One result object as it came back, and the file it was written to."""

    kind: str
    filed: Filed
    file: Path


def collect(results: Sequence[dict[str, Any]], pacs: PacsStandIn, out: Path) -> list[Returned]:
    """Compare what the PACS got with what the node says it sent; copy it to ``out``.

    Raises:
        DeliveryError: an object is missing at the PACS, came twice, or differs.
    """
    filed = {item.sop_instance_uid: item for item in pacs.filed()}
    out.mkdir(parents=True, exist_ok=True)
    returned: list[Returned] = []
    for result in results:
        item = filed.get(result["sop_instance_uid"])
        if item is None or item.copies != 1 or item.differing:
            raise DeliveryError(f"the {result['kind']} object did not arrive once and whole")
        if not dataset_bytes(item.path):
            raise DeliveryError(f"the {result['kind']} object arrived empty")
        number = sum(other.kind == result["kind"] for other in returned) + 1
        name = result["kind"] if number == 1 else f"{result['kind']}-{number}"
        target = out / f"{name}.dcm"
        write_file(target, [item.path.read_bytes()])
        returned.append(Returned(result["kind"], item, target))
    _write_pictures(returned, out)
    return returned


def _write_pictures(objects: Sequence[Returned], out: Path) -> None:
    pages = [item.file for item in objects if item.kind == "key-images"]
    for number, file in enumerate(pages, start=1):
        name = "key-image.png" if number == 1 else f"key-image-{number}.png"
        Image.fromarray(pydicom.dcmread(file).pixel_array).save(out / name)


def show(
    console: Console,
    row: dict[str, Any],
    timings: dict[str, float],
    objects: Sequence[Returned],
    images: int,
    stored_s: float,
    out: Path,
) -> None:
    """Print the tables: study, findings, objects, time per stage."""
    study = Table(title="Study", title_justify="left", show_header=False)
    study.add_row("Study Instance UID", row["study_uid"])
    study.add_row("images received", str(images))
    study.add_row("state", row["state"] + (f" ({row['reason']})" if row["reason"] else ""))
    if row["message"]:
        study.add_row("message", row["message"])
    console.print(study)
    for item in objects:
        if item.kind == "sr":
            _show_findings(console, pydicom.dcmread(item.file))
    table = Table(title="Result objects, as they came back to the PACS", title_justify="left")
    for column in ("object", "modality", "bytes", "SOP Instance UID", "file"):
        table.add_column(column)
    for item in objects:
        header = pydicom.dcmread(item.file, stop_before_pixels=True)
        size = str(item.file.stat().st_size)
        table.add_row(item.kind, header.Modality, size, item.filed.sop_instance_uid, str(item.file))
    console.print(table)
    _show_times(console, timings, stored_s)
    for picture in sorted(out.glob("*.png")):
        console.print(f"picture: {picture}")
    console.print("Machine-made, unverified, research use only.")


def _show_findings(console: Console, report: Dataset) -> None:
    table = Table(title="Findings, read from the returned report", title_justify="left")
    for column in ("region", "site", *_NUMBERS.values()):
        table.add_column(column)
    for name, group in _measurement_groups(report).items():
        numbers = [group.get(code, "") for code in _NUMBERS]
        table.add_row(name, group.get("site", ""), *numbers)
    if table.row_count:
        console.print(table)


def _measurement_groups(report: Dataset) -> dict[str, dict[str, str]]:
    """Measurement groups of a TID 1500 report that hold numbers, by tracking identifier."""
    groups: dict[str, dict[str, str]] = {}
    for item in _walk(report):
        if _code(item) != _MEASUREMENT_GROUP:
            continue
        values: dict[str, str] = {}
        for child in item.get("ContentSequence", ()):
            code = _code(child)
            if child.ValueType == "NUM" and code in _NUMBERS:
                measured = child.MeasuredValueSequence[0]
                values[code] = f"{float(measured.NumericValue):g}"
            elif code == _TRACKING_IDENTIFIER:
                values["name"] = child.TextValue
            elif code == _FINDING_SITE:
                values["site"] = child.ConceptCodeSequence[0].CodeMeaning
        if any(code in values for code in _NUMBERS):
            groups[values.get("name", "?")] = values
    return groups


def _walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _walk(child)


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _show_times(console: Console, timings: dict[str, float], stored_s: float) -> None:
    table = Table(title="Time per stage", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_row("receive (all images stored)", f"{stored_s:.1f}")
    for stage, seconds in timings.items():
        table.add_row(stage, f"{seconds:.1f}")
    console.print(table)
