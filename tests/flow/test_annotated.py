"""The annotated set as files: what `ai-core train` reads is what was drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ai_core.config import CoreConfig
from ai_core.labelled import LabelledCase
from ai_core.picai import open_archive, read_study
from ai_core.train.archive_source import _prepare
from ai_core.types import Case
from dicom_node.commands.annotations import _release
from dicom_node.config import NodeConfig, NodeSection
from dicom_node.config_sections import ModelSection
from dicom_node.errors import RegistryError
from dicom_node.flow.annotate import judge_annotations
from dicom_node.flow.annotated import Exported, export_annotated, fill_zones
from tests.annotations.make import Drawn, Scene, copied, drawn, verified
from tests.flow.conftest import STUDY, Node
from tests.flow.test_annotate import analysed, lesion, scene
from tests.releases import light

__all__ = ["scene"]


def never(case: Case) -> tuple[np.ndarray, np.ndarray]:
    raise AssertionError("gland and zones are known")


def exported(node: Node, out: Path, analyse: object = never) -> list[Exported]:
    judge_annotations(node.store, node.data_dir)
    return export_annotated(node.store, node.config, out, analyse)  # type: ignore[arg-type]


def read_back(out: Path) -> LabelledCase:
    (study,) = open_archive([out]).studies
    return read_study(study)


def test_what_was_drawn_is_what_training_reads(node: Node, scene: Scene, tmp_path: Path) -> None:
    analysed(node, scene)
    mask = np.roll(scene.lesion(1), 2, axis=2)
    node.send(drawn(scene, [Drawn(mask, "Lesion 1"), Drawn(scene.gland, "Prostate")]))
    (one,) = exported(node, tmp_path / "set")
    assert one.left_out == ""
    case = read_back(tmp_path / "set")
    truth = case.reference
    assert case.name == one.name
    assert truth.positive and truth.grades is not None and truth.gland is not None
    assert np.array_equal(truth.grades > 0, mask)
    assert np.array_equal(truth.gland > 0, scene.gland)
    assert truth.zones is not None
    assert np.array_equal(truth.zones, scene.result.zones)
    assert case.case.t2w.array.shape == scene.geometry.shape_zyx
    assert case.case.adc is not None
    (study,) = open_archive([tmp_path / "set"]).studies
    assert _prepare(study, tmp_path / "prepared.npz", CoreConfig(name="test", version="0"))
    assert (tmp_path / "prepared.npz").is_file()


def test_nothing_in_the_set_names_the_patient(node: Node, scene: Scene, tmp_path: Path) -> None:
    analysed(node, scene)
    node.send(lesion(scene))
    (one,) = exported(node, tmp_path)
    words = [str(scene.slices[0].PatientName), STUDY, "Reader"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("latin-1") + path.name
            for word in words:
                assert word not in text, path
    assert one.name.count("_") == 1
    assert "export" in {row.event for row in node.store.audit_list()}


def test_a_verified_report_without_finding_is_a_negative_case(node: Node, tmp_path: Path) -> None:
    empty = Scene(lesions=())
    analysed(node, empty)
    node.send(verified(empty.object("sr")))
    exported(node, tmp_path)
    truth = read_back(tmp_path).reference
    assert not truth.positive
    assert truth.grades is not None and not truth.grades.any()


def test_zones_nobody_drew_or_sent_are_found(node: Node, tmp_path: Path) -> None:
    scene = Scene()
    object.__setattr__(scene, "sent", [one for one in scene.sent if one.kind != "seg-zones"])
    analysed(node, scene)
    node.send(lesion(scene))
    asked: list[Case] = []

    def analyse(case: Case) -> tuple[np.ndarray, np.ndarray]:
        asked.append(case)
        return scene.result.gland_mask, scene.result.zones

    exported(node, tmp_path, analyse)
    assert len(asked) == 1
    zones = read_back(tmp_path).reference.zones
    assert zones is not None and np.array_equal(zones, scene.result.zones)


def test_an_unsigned_release_draws_nothing(tmp_path: Path) -> None:
    light(tmp_path / "unsigned", "unsigned")
    model = ModelSection(release=str(tmp_path / "unsigned"))
    node = NodeSection(data_dir=tmp_path / "data")
    with pytest.raises(RegistryError, match="is not signed"):
        _release(NodeConfig(node=node, model=model))


def test_an_export_again_replaces_and_others_stay(node: Node, scene: Scene, tmp_path: Path) -> None:
    analysed(node, scene)
    node.send(copied(lesion(scene), ContentTime="080000"))
    (first,) = exported(node, tmp_path)
    node.send(copied(lesion(scene, rank=2), ContentTime="090000"))
    (second,) = exported(node, tmp_path)
    assert first == second
    grades = read_back(tmp_path).reference.grades
    assert grades is not None and np.array_equal(grades > 0, scene.lesion(2))
    rows = (tmp_path / "marksheet.csv").read_text().splitlines()
    assert len(rows) == 2


def test_what_says_nothing_about_lesions_is_left_out_and_says_why(
    node: Node, scene: Scene, tmp_path: Path
) -> None:
    analysed(node, scene)
    node.send(drawn(scene, [Drawn(scene.gland, "Prostate")]))
    (one,) = exported(node, tmp_path)
    assert one.left_out == "nobody said which lesions there are"
    (unknown,) = export_annotated(node.store, node.config, tmp_path, never, ["1.2.3"])
    assert unknown.left_out == "no annotation of it is used"
    assert not (tmp_path / "images").exists()


def test_zones_fill_a_gland_that_was_drawn_larger(scene: Scene) -> None:
    zones, gland = scene.result.zones, np.zeros_like(scene.gland)
    gland[:, 10:90, 10:90] = True
    filled = fill_zones(zones, gland, scene.geometry)
    assert np.array_equal(filled > 0, gland)
    both = gland & (zones > 0)
    assert np.array_equal(filled[both], zones[both])


@pytest.mark.parametrize("state", ["used", "unusable"])
def test_the_listing_tells_each_annotation(node: Node, scene: Scene, state: str) -> None:
    from dicom_node.flow.annotated import annotation_json

    analysed(node, scene)
    sent = lesion(scene)
    if state == "unusable":
        sent.FrameOfReferenceUID = "1.2.3"
    node.send(sent)
    judge_annotations(node.store, node.data_dir)
    (told,) = [annotation_json(row) for row in node.store.annotations_of()]
    assert (told["state"], told["study_uid"], told["from"]) == (state, STUDY, "MR1")
    assert bool(told["findings"]) is (state == "used")
    assert bool(told["message"]) is (state == "unusable")
    assert told["made_at"] == ("2026-02-03T10:11:12" if state == "used" else told["made_at"])
    json.dumps(told)
