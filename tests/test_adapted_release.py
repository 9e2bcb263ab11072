"""What `ai-core adapt` writes is what `dicom-node models` takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ai_core.adapt.gate import SITE, Check
from ai_core.adapt.package import Adapted, write_site_release
from ai_core.release import load_release
from ai_core.site_profile import SiteProfile
from ai_core.train.fit import HeldOut
from tests.ai_core.conftest import tiny_release
from tests.test_models_command import Models, models

__all__ = ["models", "tiny_release"]


@pytest.fixture
def adapted(tiny_release: Path, tmp_path: Path) -> tuple[Path, str, str]:
    """A release as an adaptation writes it, its digest, and that of its parent."""
    parent = load_release(tiny_release, "cpu")
    outcome = Adapted(
        parent=parent,
        release=replace(parent, profile=SiteProfile(studies=12, adc_scale=1.05)),
        names=["Miller_1", "Smith_2"],
        holdout=6,
        checks=[Check("AUROC by case", SITE, 6, 0.7, 0.8, -0.01, True)],
        stages={"parent": {"auroc": 0.7, "average_precision": 0.4, "log_loss": 0.6}},
        embeddings=HeldOut(),
    )
    folder = tmp_path / "adapted"
    digest = write_site_release(folder, outcome, "skyra", 1, b"k" * 16)
    return folder, digest, parent.info.sha256


def test_an_adapted_release_is_signed_added_and_shown(
    models: Models, adapted: tuple[Path, str, str]
) -> None:
    folder, digest, parent = adapted
    models.ok("keys", "make", "physics")
    models.ok("sign", folder, "--key", "physics")
    added = models.json("add", folder)
    assert (added["sha256"], added["state"], added["parent"]) == (digest, "candidate", parent)
    shown = models.json("show", "skyra")
    assert "AUROC by case | site hold-out (6) | 0.700 | 0.800" in shown["model_card"]
    (row,) = [row for row in models.json("verify") if row["state"] == "candidate"]
    assert (row["signed_by"], row["problem"]) == ("physics", None)
    assert [row["state"] for row in models.json("list") if row["packaged"]] == ["active"]
    for path in folder.iterdir():
        assert b"Miller" not in path.read_bytes()
        assert b"Smith" not in path.read_bytes()


def test_a_changed_profile_is_refused(models: Models, adapted: tuple[Path, str, str]) -> None:
    folder, _, _ = adapted
    models.ok("keys", "make", "physics")
    models.ok("sign", folder, "--key", "physics")
    profile = folder / "site_profile.json"
    profile.write_text(profile.read_text().replace("1.05", "1.15"))
    status, _, err = models.run("add", folder)
    assert status == 1
    assert "site_profile.json is not the file of this release" in err
