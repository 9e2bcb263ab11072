"""Drift through the pages and the API: table, plot, a new reference."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from dicom_node.domain.account import Role
from dicom_node.store.store import Store
from tests.web.conftest import Browser
from tools.drift_example import fill

AsRole = Callable[[Role], Browser]


@pytest.fixture
def drifted(store: Store, tmp_path: Path) -> Store:
    fill(tmp_path / "data" / "node.sqlite3")
    return store


@pytest.mark.usefixtures("store")
def test_without_a_study_there_is_nothing_to_compare(as_role: AsRole) -> None:
    viewer = as_role(Role.VIEWER)
    assert "No study was measured yet" in viewer.get("/drift").text
    assert viewer.get("/drift/1").status_code == 404
    assert viewer.get("/drift/1/light.png").status_code == 404
    assert viewer.get("/drift/0").status_code == 400


@pytest.mark.usefixtures("drifted")
def test_a_changed_scanner_is_shown_and_begun_anew(as_role: AsRole, store: Store) -> None:
    viewer, admin = as_role(Role.VIEWER), as_role(Role.ADMIN)
    assert "MR-EXAMPLE, Made up, Example, 3 T" in viewer.get("/drift").text
    page = viewer.get("/drift/1").text
    assert page.count('<span class="chip failed">alarm</span>') == 3, "the scanner and two figures"
    assert "begin the reference anew" not in page
    sizes = set()
    for scheme in ("light", "dark"):
        picture = viewer.get(f"/drift/1/{scheme}.png")
        assert picture.headers["content-type"] == "image/png"
        image = Image.open(io.BytesIO(picture.content)).convert("L")
        sizes.add((image.size, image.getpixel((2, 2)) > 128))
    assert len(sizes) == 2, "one light, one dark"
    assert viewer.get("/drift/1/pink.png").status_code == 404
    assert viewer.post("/drift/1/restart").status_code == 403
    assert admin.post("/drift/1/restart").status_code == 303
    assert "begins with its next study" in admin.note("/drift")
    assert "collecting" in viewer.get("/drift/1").text
    assert [row.event for row in store.audit_list()][-1] == "drift"


@pytest.mark.usefixtures("drifted")
def test_programs_get_the_same_figures(program: Callable[[Role], TestClient]) -> None:
    client = program(Role.VIEWER)
    (told,) = client.get("/api/v1/drift").json()
    assert (told["state"], told["studies"]) == ("alarm", 320)
    assert told["alarms"] == ["snr_t2w", "t2w_spacing_mm"]
    figure = next(one for one in told["figures"] if one["name"] == "t2w_spacing_mm")
    assert figure["psi"] > figure["limit"] and figure["alarm"]
    assert client.get("/api/v1/drift/1").json() == told
    assert client.get("/api/v1/drift/2").status_code == 404
    assert client.get("/api/v1/drift/1/plot").content.startswith(b"\x89PNG")
