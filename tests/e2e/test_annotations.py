"""A radiologist's edit through the whole node: study in, result out, edited objects in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ai_core.picai import open_archive, read_study
from dicom_node.net.standin import PacsStandIn
from tests.annotations.make import TISSUE, code, verified
from tests.running import NodeUnderTest, wait_until
from tests.studies import study_uid

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MakeStudy = Callable[..., list[Path]]


def filed(pacs: PacsStandIn, uid: str, description: str) -> Dataset:
    """The result object of the study whose series is described so."""
    objects = [pydicom.dcmread(item.path) for item in pacs.filed(uid)]
    # the last: on a busy machine "not analysed" may come first, and a later revision
    return [one for one in objects if description in one.SeriesDescription][-1]


def saved_in_ohif(seg: Dataset, label: str, frames: slice) -> Dataset:
    """Some frames of a segmentation, saved anew: generic codes, no tracking, no creator."""
    count = int(seg.NumberOfFrames)
    pixels = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    planes = pixels[: count * seg.Rows * seg.Columns].reshape(count, -1)[frames]
    seg.PerFrameFunctionalGroupsSequence = seg.PerFrameFunctionalGroupsSequence[frames]
    seg.NumberOfFrames = len(planes)
    packed = np.packbits(planes.ravel(), bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)
    seg.SOPInstanceUID, seg.SeriesInstanceUID = generate_uid(), generate_uid()
    seg.file_meta.MediaStorageSOPInstanceUID = seg.SOPInstanceUID
    seg.Manufacturer = seg.ManufacturerModelName = "Unspecified"
    seg.SeriesDescription = "Research Derived Series"
    del seg.ContentCreatorName
    (segment,) = seg.SegmentSequence
    segment.SegmentLabel, segment.SegmentAlgorithmType = label, "MANUAL"
    segment.SegmentAlgorithmName = "OHIF Brush"
    segment.SegmentedPropertyCategoryCodeSequence = [code(TISSUE)]
    segment.SegmentedPropertyTypeCodeSequence = [code(TISSUE)]
    for name in ("TrackingID", "TrackingUID", "SegmentationAlgorithmIdentificationSequence"):
        delattr(segment, name)
    return seg


def store(pacs: PacsStandIn, node: NodeUnderTest, folder: Path, dataset: Dataset) -> None:
    """Store an object in the PACS, which routes it to the node."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path)
    pacs.send([path], host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")


def test_an_edited_result_becomes_a_case_to_train_on(
    node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy, tmp_path: Path
) -> None:
    files = make_study("annotated")
    uid = study_uid(files)
    pacs.send(files, host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")
    revision = node.wait_for(uid, {"delivered", "failed", "held"})
    assert revision["state"] == "delivered"
    gland = filed(pacs, uid, "prostate gland")
    count = int(gland.NumberOfFrames)
    middle = slice(count // 2 - 1, count // 2 + 1)
    store(pacs, node, tmp_path / "out", gland)  # routed back: no annotation
    drawn = saved_in_ohif(filed(pacs, uid, "prostate gland"), "Lesion", middle)
    store(pacs, node, tmp_path / "out", drawn)
    smaller = saved_in_ohif(gland, "Prostate", slice(1, count))
    store(pacs, node, tmp_path / "out", smaller)
    store(pacs, node, tmp_path / "out", verified(filed(pacs, uid, "prostate report")))

    def used() -> bool:
        listed = node.json("annotations", "list")
        return [row["state"] for row in listed] == ["used"] * 3

    wait_until(used, 120, "three annotations are used")
    lesion, prostate, report = node.json("annotations", "show", uid)
    assert (lesion["kind"], lesion["parts"], lesion["revision"]) == (
        "seg",
        ["lesions"],
        revision["revision"],
    )
    assert lesion["links"] == [], "nothing but the place tells what it is about"
    assert prostate["parts"] == ["gland"]
    assert 0.8 < prostate["dice"]["gland"] < 1.0
    assert (report["kind"], report["person"], report["verified"]) == ("sr", "Reader^Two", True)
    (study, *_) = node.revisions(uid)
    assert (study["revision"], study["state"]) == (revision["revision"], "delivered")

    (written,) = node.json("annotations", "export", "--study", uid)
    assert written["left_out"] is None
    (case,) = open_archive([node.data_dir / "annotated"]).studies
    assert case.name == written["name"]
    truth = read_study(case).reference
    assert truth.positive and truth.grades is not None and truth.zones is not None
    assert np.flatnonzero(truth.grades.any(axis=(1, 2))).size == 2
    assert node.json("annotations", "list", "--state", "unusable") == []
    assert node.command("annotations", "show", "1.2.3", check=False).returncode == 1
    assert "Reader^Two" in node.command("annotations", "list").stdout
    assert "PHANTOM" not in node.log() and "Reader" not in node.log()
