"""Folders in the public layout, written here, read by the product."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ai_core.errors import InputError
from ai_core.geometry import grid_around
from ai_core.labelled import GRADE_UNKNOWN
from ai_core.picai import open_archive, read_marksheet, read_study, split_patients
from ai_core.volume_io import write_volume

T2W = grid_around((1.0, 2.0, 3.0), (0.6, 0.6, 3.0), (40, 40, 8), np.eye(3))
DWI = grid_around((1.0, 2.0, 3.0), (2.0, 2.0, 3.0), (14, 14, 8), np.eye(3))
HEADER = (
    "patient_id,study_id,mri_date,patient_age,psa,psad,prostate_volume,histopath_type,"
    "lesion_PIRADS,lesion_GS,lesion_ISUP,case_ISUP,case_csPCa,center\n"
)
EXPERT = Path("labels/csPCa_lesion_delineations/human_expert/resampled")
AI = Path("labels/csPCa_lesion_delineations/AI/Bosma22a")
GLAND = Path("labels/anatomical_delineations/whole_gland/AI/Bosma22b")
ZONES = Path("labels/anatomical_delineations/zonal_pz_tz/AI/HeviAI23")


def _image(path: Path, value: float, coarse: bool = False) -> None:
    grid = DWI if coarse else T2W
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    array = (value + rng.random(grid.shape_zyx)).astype(np.float32)
    write_volume(array, grid, path)


def _label(path: Path, grade: int, coarse: bool = False) -> npt.NDArray[np.uint8]:
    grid = DWI if coarse else T2W
    array = np.zeros(grid.shape_zyx, np.uint8)
    z, y, x = (n // 2 for n in array.shape)
    array[z - 1 : z + 1, y - 2 : y + 2, x - 2 : x + 2] = grade
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(array, grid, path)
    return array


def _archive(root: Path) -> Path:
    for patient, study in (("10000", "1000000"), ("10001", "1000001"), ("10001", "1000009")):
        folder = root / "images" / patient
        for kind, value in (("t2w", 100.0), ("adc", 1200.0), ("hbv", 30.0)):
            _image(folder / f"{patient}_{study}_{kind}.mha", value, kind != "t2w")
        _image(folder / f"{patient}_{study}_cor.mha", 5.0)
    _image(root / "images" / "10002" / "10002_1000002_t2w.mha", 1.0)
    _label(root / EXPERT / "10000_1000000.nii.gz", 3)
    _label(root / AI / "10000_1000000.nii.gz", 1)
    _label(root / AI / "10001_1000001.nii.gz", 1, coarse=True)
    _label(root / GLAND / "10000_1000000.nii.gz", 1)
    _label(root / ZONES / "10000_1000000.nii.gz", 2)
    (root / "labels" / "clinical_information").mkdir()
    (root / "labels" / "clinical_information" / "marksheet.csv").write_text(
        HEADER
        + '10000,1000000,2019-07-02,73,7.7,,55,MRBx,"4,N/A","4+3,0+0","3,0",3,YES,PCNN\n'
        + "10001,1000001,2016-05-27,64,8.7,0.09,102,,,,,0,NO,ZGT\n"
        + "10001,1000009,2016-05-27,64,8.7,0.09,102,,,,,2,YES,RUMC\n"
    )
    return root


def test_the_archive_is_found_with_its_labels(tmp_path: Path) -> None:
    archive = open_archive((_archive(tmp_path),))
    assert [s.name for s in archive.studies] == [
        "10000_1000000", "10001_1000001", "10001_1000009",
    ]  # fmt: skip
    assert archive.left_out == ("10002_1000002",)
    first = archive.studies[0]
    assert set(first.images) == {"t2w", "adc", "hbv"}
    assert set(first.labels) == {"lesions_expert", "lesions_ai", "gland", "zones"}
    assert first.row is not None
    assert first.row.lesion_isup == (3, 0)
    assert first.row.lesion_pirads == (4, None)
    assert first.row.psa_ng_ml == 7.7


def test_images_and_labels_may_lie_apart(tmp_path: Path) -> None:
    root = _archive(tmp_path)
    archive = open_archive((root / "images", root / EXPERT))
    assert set(archive.studies[0].labels) == {"lesions_expert"}


def test_an_expert_is_believed_before_an_ai(tmp_path: Path) -> None:
    labelled = read_study(open_archive((_archive(tmp_path),)).studies[0])
    truth = labelled.reference
    assert labelled.site == "PCNN"
    assert truth.positive
    assert truth.grades is not None
    assert set(np.unique(truth.grades)) == {0, 3}
    assert truth.zones is not None
    assert set(np.unique(truth.zones)) == {0, 2}
    assert truth.highest_pirads == 4
    assert labelled.case.adc_to_um2_s is None


def test_an_ai_label_on_another_grid_is_moved_and_has_no_grade(tmp_path: Path) -> None:
    root = _archive(tmp_path)
    (root / "labels/clinical_information/marksheet.csv").unlink()
    truth = read_study(open_archive((root,)).studies[1]).reference
    assert truth.grades is not None
    assert truth.grades.shape == T2W.shape_zyx
    assert set(np.unique(truth.grades)) == {0, GRADE_UNKNOWN}


def test_the_table_decides_where_nobody_drew(tmp_path: Path) -> None:
    root = _archive(tmp_path)
    (root / AI / "10001_1000001.nii.gz").unlink()
    _, negative, positive = open_archive((root,)).studies
    no_cancer = read_study(negative).reference
    assert no_cancer.grades is not None
    assert not no_cancer.positive
    assert not no_cancer.grades.any()
    cancer = read_study(positive).reference
    assert cancer.positive
    assert cancer.grades is None


def test_a_case_without_any_truth_is_refused(tmp_path: Path) -> None:
    root = _archive(tmp_path)
    (root / "labels/clinical_information/marksheet.csv").unlink()
    with pytest.raises(InputError, match="nothing says whether"):
        read_study(open_archive((root,)).studies[2])


def test_impossible_labels_are_refused(tmp_path: Path) -> None:
    root = _archive(tmp_path)
    _label(root / EXPERT / "10000_1000000.nii.gz", 9)
    with pytest.raises(InputError, match="holds the label 9"):
        read_study(open_archive((root,)).studies[0])


@pytest.mark.parametrize("version", [0, 1, 2])
def test_nnunet_raw(tmp_path: Path, version: int) -> None:
    channels = {0: "T2W", 1: "ADC", 2: "HBV"} if version != 2 else {0: "ADC", 1: "T2W", 2: "HBV"}
    for number, name in channels.items():
        _image(tmp_path / "imagesTr" / f"10000_1000000_{number:04d}.nii.gz", 50.0, name != "T2W")
    _label(tmp_path / "labelsTr" / "10000_1000000.nii.gz", 2)
    if version:
        key = "modality" if version == 1 else "channel_names"
        named = {str(number): name for number, name in channels.items()}
        (tmp_path / "dataset.json").write_text(json.dumps({key: named}))
    study = open_archive((tmp_path,)).studies[0]
    assert study.images["t2w"].name.endswith("0001.nii.gz" if version == 2 else "0000.nii.gz")
    assert read_study(study).reference.positive


def test_folders_without_examinations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no examination with T2W and ADC"):
        open_archive((tmp_path,))
    with pytest.raises(InputError, match="not a folder"):
        open_archive((tmp_path / "no",))


def test_a_wrong_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "marksheet.csv"
    path.write_text("patient,psa\n1,2\n")
    with pytest.raises(InputError, match="no column patient_id"):
        read_marksheet(path)
    path.write_text(HEADER + "1,2,2019-01-01,old,,,,,,,,,YES,A\n")
    with pytest.raises(InputError, match=r"line 2, patient_age: 'old' is not a number"):
        read_marksheet(path)


def test_splits_keep_patients_whole_and_positives_even() -> None:
    positive = {f"p{i}": i % 4 == 0 for i in range(100)}
    folds = split_patients(positive, 5, 3)
    assert sorted(name for fold in folds for name in fold) == sorted(positive)
    assert [sum(positive[name] for name in fold) for fold in folds] == [5] * 5
    backwards = dict(reversed(list(positive.items())))
    assert split_patients(backwards, 5, 3) == folds
    assert split_patients(positive, 5, 4) != folds
    with pytest.raises(ValueError, match="cannot be split"):
        split_patients({"a": True}, 2, 1)
