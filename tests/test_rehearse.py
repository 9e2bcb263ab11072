"""The rehearsal: a release that cannot serve is found before a patient's study meets it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai_core.manifest import packaged_release
from ai_core.types import CaseResult
from dicom_node import rehearse as module
from dicom_node.config import NodeConfig
from dicom_node.errors import RegistryError
from dicom_node.flow import study
from dicom_node.registry.shelf import CheckedRelease
from dicom_node.rehearse import rehearse
from tests.releases import repackage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CONFIG = NodeConfig.model_validate({"model": {"device": "cpu"}})


def checked(folder: Path, sha256: str) -> CheckedRelease:
    return CheckedRelease(folder, "x", "1", sha256, "site", None)


def test_the_packaged_release_passes_and_says_what_it_found() -> None:
    found = rehearse(CONFIG, checked(*packaged_release()))
    assert found.gland_ml > 5
    assert 0 <= found.likelihood <= 1
    assert found.objects >= 3
    assert dict(found.words())["phantom result objects"] == str(found.objects)


def test_a_release_that_does_not_load_or_is_another_is_refused(tmp_path: Path) -> None:
    digest = repackage(tmp_path / "broken", "broken", significance=b"{}")
    with pytest.raises(RegistryError, match=r"significance\.json of the release is not valid"):
        rehearse(CONFIG, checked(tmp_path / "broken", digest))
    with pytest.raises(RegistryError, match="holds release"):
        rehearse(CONFIG, checked(tmp_path / "broken", "0" * 64))


def test_a_release_that_finds_no_prostate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(case: object, release: object) -> CaseResult:
        result = analyse(case, release)
        return replace(result, gland=replace(result.gland, credible=False))

    analyse = study.analyse
    monkeypatch.setattr(study, "analyse", blind)
    with pytest.raises(RegistryError, match="the phantom came back as not_analysable"):
        rehearse(CONFIG, checked(*packaged_release()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"case_likelihood": float("nan")}, "a likelihood leaves"),
        ({"likelihood": np.full((1, 1, 1), np.nan, np.float32)}, "the likelihood leaves"),
        ({"relevance": np.full((1, 1, 1), 1.5, np.float32)}, "the relevance leaves"),
        ({"modality_maps": {"adc": np.full((1, 1, 1), -0.1, np.float32)}}, "the map of adc"),
    ],
)
def test_values_that_no_release_may_give(changes: dict[str, object], words: str) -> None:
    grid = np.zeros((1, 1, 1), np.float32)
    sound: dict[str, object] = {
        "likelihood": grid, "relevance": grid, "modality_maps": {"t2w": grid}, "findings": (),
        "case_likelihood": 0.5,
    }  # fmt: skip

    class Result:
        def __init__(self, **values: object) -> None:
            self.__dict__.update(values)

    assert list(module._problems(Result(**sound))) == []  # type: ignore[arg-type]
    found = list(module._problems(Result(**{**sound, **changes})))  # type: ignore[arg-type]
    assert len(found) == 1
    assert words in found[0]
