"""Studies without annotation go out under keyed names, and a list of names finds them again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ai_core.picai import open_archive
from ai_core.picai.read import read_images
from dicom_node.errors import NodeError
from dicom_node.flow.annotate import judge_annotations
from dicom_node.flow.unannotated import export_unannotated, wanted_studies
from tests.annotations.make import Scene
from tests.flow.conftest import STUDY, Node
from tests.flow.test_annotate import analysed, lesion, scene

__all__ = ["scene"]


def _list(path: Path, *names: str) -> Path:
    rows = [{"rank": i, "name": name, "uncertainty": 0.5} for i, name in enumerate(names, 1)]
    path.write_text(json.dumps({"format": 1, "wanted": rows}))
    return path


def test_a_study_without_annotation_is_written_and_found_again(
    node: Node, scene: Scene, tmp_path: Path
) -> None:
    analysed(node, scene)
    before = set(tmp_path.rglob("*"))
    (one,) = export_unannotated(node.store, node.config, tmp_path / "set", 5)
    assert (one.study_uid, one.left_out) == (STUDY, "")
    outside = set(tmp_path.rglob("*")) - before - {*(tmp_path / "set").rglob("*"), tmp_path / "set"}
    assert not outside, "nothing is written beside the folder"
    (study,) = open_archive([tmp_path / "set"]).studies
    assert (study.name, dict(study.labels), study.row) == (one.name, {}, None)
    assert read_images(study).t2w.array.shape == scene.geometry.shape_zyx
    assert (tmp_path / "set").stat().st_mode & 0o007 == 0, "closed to others on the machine"
    for path in (tmp_path / "set").rglob("*"):
        assert STUDY not in path.name
        assert not path.is_file() or STUDY.encode() not in path.read_bytes()
    assert "export" in {row.event for row in node.store.audit_list()}
    file = _list(tmp_path / "list.json", "0_0", one.name)
    stranger, known = wanted_studies(node.store, node.config, file)
    assert (stranger.study_uid, stranger.patient_id) == (None, None)
    assert (known.study_uid, known.patient_id, known.annotated) == (STUDY, "P1", False)


def test_an_annotated_study_is_not_written_and_marked_in_the_list(
    node: Node, scene: Scene, tmp_path: Path
) -> None:
    analysed(node, scene)
    (one,) = export_unannotated(node.store, node.config, tmp_path / "set", 5)
    node.send(lesion(scene))
    judge_annotations(node.store, node.data_dir)
    assert export_unannotated(node.store, node.config, tmp_path / "set", 5) == []
    (known,) = wanted_studies(node.store, node.config, _list(tmp_path / "list.json", one.name))
    assert known.annotated


def test_none_are_written_unless_asked_for(node: Node, scene: Scene, tmp_path: Path) -> None:
    analysed(node, scene)
    assert export_unannotated(node.store, node.config, tmp_path / "set", 0) == []
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"wanted": [{"name": "a"}]}', '{"wanted": 3}'])
def test_what_is_no_list_is_refused(node: Node, tmp_path: Path, content: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(NodeError, match="not a list of studies to annotate"):
        wanted_studies(node.store, node.config, path)
