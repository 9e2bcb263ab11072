"""The API: tokens and roles, the same things as the pages, described by OpenAPI."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from dicom_node.clock import ManualClock
from dicom_node.domain.account import Role
from dicom_node.store.store import Store
from dicom_node.web.console import Console
from tests.store.life import live
from tests.web.conftest import Browser

Program = Callable[[Role], TestClient]
PEER = {"name": "pacs", "ae_title": "PACS", "host": "10.0.0.5"}


def test_only_a_token_opens_it(
    as_role: Callable[[Role], Browser], browser: Callable[[], Browser]
) -> None:
    admin = as_role(Role.ADMIN)
    for path in ("/status", "/studies", "/peers", "/models", "/audit", "/openapi.json"):
        for client in (admin.http, browser().http):
            answer = client.get(f"/api/v1{path}")
            assert answer.status_code == 401, "a cookie is no token"
            assert answer.headers["www-authenticate"] == "Bearer"
        wrong = {"Authorization": "Bearer " + "x" * 43}
        assert browser().http.get(f"/api/v1{path}", headers=wrong).status_code == 401


def test_a_token_ends_and_is_removed(console: Console, browser: Callable[[], Browser]) -> None:
    client, clock = browser().http, console.clock
    assert isinstance(clock, ManualClock)
    short = console.accounts.add_token("short", Role.VIEWER, "test", 1)
    lasting = console.accounts.add_token("lasting", Role.VIEWER, "test", None)

    def status(secret: str) -> int:
        sent = {"Authorization": f"Bearer {secret}"}
        return client.get("/api/v1/status", headers=sent).status_code

    assert (status(short), status(lasting)) == (200, 200)
    clock.advance(86_401)
    assert (status(short), status(lasting)) == (401, 200)
    console.accounts.remove_token("lasting")
    assert status(lasting) == 401


def test_roles_hold_here_too(program: Program) -> None:
    viewer, operator = program(Role.VIEWER), program(Role.OPERATOR)
    assert viewer.post("/api/v1/studies/1.2/retry").status_code == 403
    assert operator.post("/api/v1/studies/1.2/retry").status_code == 404
    for client in (viewer, operator):
        assert client.post("/api/v1/peers", json=PEER).status_code == 403
        assert client.get("/api/v1/audit").status_code == 403


def test_ae_titles(program: Program, store: Store) -> None:
    admin = program(Role.ADMIN)
    made = admin.post("/api/v1/peers", json=PEER)
    assert (made.status_code, made.json()["origin"]) == (201, "database")
    again = admin.post("/api/v1/peers", json=PEER)
    assert (again.status_code, set(again.json())) == (409, {"error", "advice"})
    change = {"ae_title": "PACS", "host": "10.0.0.6", "port": 104, "receives_results": True}
    assert admin.put("/api/v1/peers/pacs", json=change).json()["host"] == "10.0.0.6"
    assert admin.get("/api/v1/peers").json() == [admin.get("/api/v1/peers/pacs").json()]
    assert admin.put("/api/v1/peers/pacs", json={**change, "unknown": 1}).status_code == 422
    assert admin.put("/api/v1/peers/other", json=change).status_code == 404
    assert admin.delete("/api/v1/peers/pacs").json() == {"done": "removed pacs"}
    assert admin.delete("/api/v1/peers/pacs").status_code == 404
    told = [row.message for row in store.audit_list() if row.event == "network_configuration"]
    assert len(told) == 3 and all('UserID="token admin-token"' in one for one in told)


def test_studies_in_the_shape_of_the_contract(
    program: Program, store: Store, clock: ManualClock
) -> None:
    for _ in live(store, clock):
        pass
    viewer = program(Role.VIEWER)
    first = viewer.get("/api/v1/studies", params={"limit": 2}).json()
    assert len(first["studies"]) == 2
    following = viewer.get("/api/v1/studies", params={"limit": 2, "after": first["after"]}).json()
    assert following["studies"] and following["studies"] != first["studies"]
    (row, *_) = viewer.get("/api/v1/studies/1.2.1").json()
    assert {"study_uid", "revision", "state", "reason", "message", "instances", "received_at",
            "results"} <= set(row)  # fmt: skip
    assert viewer.get("/api/v1/studies/1.2.1/timeline").json()[0]["event"] == "opened"
    assert viewer.get("/api/v1/studies/1.2.1/deliveries").json()
    status = viewer.get("/api/v1/status").json()
    assert status["held"]["studies"] == len({line["study_uid"] for line in store.studies_list()})
    assert viewer.get("/api/v1/annotations").json()[0]["study_uid"] == "1.2.1"


def test_models_and_audit(program: Program) -> None:
    admin = program(Role.ADMIN)
    (release,) = admin.get("/api/v1/models").json()
    assert (release["state"], release["packaged"]) == ("active", True)
    assert admin.get("/api/v1/models/rules").json()[0]["release"] == release["sha256"]
    active = admin.post("/api/v1/models/rehearsals", json={"release": "packaged"})
    assert (active.status_code, "active" in active.json()["error"]) == (409, True)
    assert admin.post("/api/v1/models/rehearsals/x/confirm").status_code == 404
    assert admin.post("/api/v1/models/rollback", json={}).status_code == 409
    records = admin.get("/api/v1/audit").json()
    assert records[0]["event"] == "account_changed"


@pytest.mark.parametrize(
    "path", ["/studies/a b", "/studies?limit=0", "/studies?after=x", "/nowhere"]
)
def test_wrong_requests_are_told_apart(program: Program, path: str) -> None:
    assert program(Role.VIEWER).get(f"/api/v1{path}").status_code in (404, 422)


def test_openapi_describes_what_there_is(program: Program) -> None:
    document = program(Role.VIEWER).get("/api/v1/openapi.json").json()
    assert len(document["paths"]) > 15
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            assert told["security"], f"{method} {path}"
            assert {"401", "403"} <= set(told["responses"])
