"""AE titles through the pages: live, audited, and refused senders allowed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.domain.account import Role
from dicom_node.domain.probing import Step
from dicom_node.flow.peers import senders
from dicom_node.net.access import AccessList, Refusal, Requester
from dicom_node.net.standin import PacsStandIn
from dicom_node.store.store import Store
from dicom_node.web.console import Console
from dicom_node.web.neighbours import AT_ONCE
from tests.net.listeners import port_that
from tests.web.conftest import Browser

AsRole = Callable[[Role], Browser]
FORM = {"name": "pacs", "ae_title": "PACS", "host": "10.0.0.5", "may_send": "on"}


@pytest.fixture
def access(store: Store, config: NodeConfig) -> Callable[[str, str], Refusal | None]:
    """What the receiver answers to an AE title from an address, now."""

    def ask(calling_ae: str, address: str) -> Refusal | None:
        rules = AccessList("PROSTATE_AI", lambda: senders(store, config), ManualClock())
        return rules.check(Requester(calling_ae, "PROSTATE_AI", address))

    return ask


def test_a_change_is_live_and_recorded(
    as_role: AsRole, access: Callable[[str, str], Refusal | None], store: Store
) -> None:
    admin = as_role(Role.ADMIN)
    assert access("PACS", "10.0.0.5") is Refusal.CALLING_AE_UNKNOWN
    assert admin.post("/peers/new", **FORM).status_code == 303
    assert admin.note("/peers") == "good: Added pacs. It counts from now on."
    assert access("PACS", "10.0.0.5") is None
    taken = admin.post("/peers/new", **FORM)
    assert (taken.status_code, "already" in taken.text, 'value="10.0.0.5"' in taken.text) == (
        400, True, True,
    )  # fmt: skip
    changed = {**FORM, "host": "10.0.0.6", "port": "104", "receives_results": "on",
               "objects": ["sr", "key-images"], "from": "10.1.0.0/16, 10.0.0.6"}  # fmt: skip
    assert admin.post("/peers/pacs/edit", **changed).status_code == 303
    assert access("PACS", "10.0.0.5") is Refusal.ADDRESS_NOT_ALLOWED
    assert access("PACS", "10.1.2.3") is None
    (peer,) = store.peers()
    assert (peer.port, peer.from_, peer.objects) == (
        104, ("10.1.0.0/16", "10.0.0.6"), ("sr", "key-images"),
    )  # fmt: skip
    form = admin.get("/peers/pacs/edit").text
    assert 'value="10.1.0.0/16 10.0.0.6"' in form
    assert admin.post("/peers/pacs/remove").status_code == 303
    assert access("PACS", "10.1.2.3") is Refusal.CALLING_AE_UNKNOWN
    told = [row.message for row in store.audit_list() if row.event == "network_configuration"]
    assert len(told) == 3
    assert all('UserID="admin-person"' in one and 'NetworkAccessPointID="testclient"' in one
               for one in told)  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"port": "x"}, "the port is a number"), ({"host": ""}, "give a host name"),
     ({"name": "a b"}, "1 to 64 letters"), ({"from": "10.0.0.300"}, "CIDR"),
     ({"receives_results": "on"}, "give its port"), ({"ae_title": "a\\b"}, "no backslash"),
     ({"tls": "on"}, "no certificate")],
)  # fmt: skip
def test_wrong_input_is_explained_and_kept(
    as_role: AsRole, store: Store, wrong: dict[str, str], said: str
) -> None:
    answer = as_role(Role.ADMIN).post("/peers/new", **{**FORM, **wrong})
    assert answer.status_code == 400
    assert said in answer.text.replace("&#39;", "'")
    assert store.peers() == []


@pytest.mark.parametrize(
    "settings", [{"peers": [{"name": "fixed", "ae_title": "FIXED", "host": "10.0.0.7"}]}]
)
def test_peers_of_the_file_are_read_only(as_role: AsRole) -> None:
    admin = as_role(Role.ADMIN)
    page = admin.get("/peers").text
    assert "configuration file" in page and "/peers/fixed/remove" not in page
    assert admin.post("/peers/fixed/remove").status_code == 400
    assert admin.post("/peers/fixed/edit", **{**FORM, "name": "fixed"}).status_code == 400


def test_a_refused_sender_is_allowed_from_its_card(
    as_role: AsRole, store: Store, access: Callable[[str, str], Refusal | None]
) -> None:
    admin = as_role(Role.ADMIN)
    store.record_refusal("MR <b>1", "PROSTATE_AI", "10.0.0.9", "calling_ae_unknown", 3)
    (refused,) = store.refusals()
    page = admin.get("/peers").text
    assert "MR &lt;b&gt;1" in page and "<b>1" not in page
    form = admin.get(f"/peers/new?refusal={refused['id']}").text
    assert 'value="mr-b-1"' in form and 'value="10.0.0.9"' in form
    fields = {"name": "mr1", "ae_title": "MR <b>1", "host": "10.0.0.9", "may_send": "on",
              "refusal": refused["id"]}  # fmt: skip
    assert admin.post("/peers/new", **fields).status_code == 303
    assert access("MR <b>1", "10.0.0.9") is None
    assert store.refusals() == []


def test_another_address_of_a_known_sender_is_allowed(
    as_role: AsRole, store: Store, access: Callable[[str, str], Refusal | None]
) -> None:
    admin = as_role(Role.ADMIN)
    admin.post("/peers/new", **FORM)
    store.record_refusal("PACS", "PROSTATE_AI", "10.0.0.99", "address_not_allowed")
    (refused,) = store.refusals()
    assert "Allow this address" in admin.get("/peers").text
    assert admin.post(f"/peers/refusals/{refused['id']}/allow").status_code == 303
    assert access("PACS", "10.0.0.99") is None
    assert access("PACS", "10.0.0.5") is None
    assert admin.post(f"/peers/refusals/{refused['id']}/allow").status_code == 404
    store.record_refusal("PACS", "OTHER", "10.0.0.5", "called_ae_unknown")
    (refused,) = store.refusals()
    assert admin.post(f"/peers/refusals/{refused['id']}/allow").status_code == 400
    admin.post(f"/peers/refusals/{refused['id']}/forget")
    assert store.refusals() == []


def test_an_echo_says_in_plain_words_what_came_back(as_role: AsRole, tmp_path: Path) -> None:
    admin = as_role(Role.ADMIN)
    operator = as_role(Role.OPERATOR)
    with socket.socket() as free, PacsStandIn("REAL", tmp_path / "pacs") as pacs:
        free.bind(("127.0.0.1", 0))
        for name, port in (("real", pacs.port), ("silent", free.getsockname()[1])):
            fields = {"name": name, "ae_title": "REAL", "host": "127.0.0.1", "port": port}
            assert admin.post("/peers/new", **fields).status_code == 303
        operator.post("/peers/real/echo")
        assert operator.note("/peers").startswith("good: real: ")
        asked = operator.http.post("/peers/silent/echo", data={"csrf": operator.csrf()},
                                   headers={"HX-Request": "true"})  # fmt: skip
        assert "note-line bad" in asked.text and "<html" not in asked.text


def test_a_connection_is_examined_beside_the_requests(
    as_role: AsRole, store: Store, console: Console, program: Callable[[Role], TestClient],
    tmp_path: Path,
) -> None:  # fmt: skip
    admin, operator, viewer = as_role(Role.ADMIN), as_role(Role.OPERATOR), as_role(Role.VIEWER)
    with PacsStandIn("REAL", tmp_path / "pacs") as pacs:
        fields = {"name": "real", "ae_title": "REAL", "host": "127.0.0.1", "port": pacs.port}
        assert admin.post("/peers/new", **fields, receives_results="on").status_code == 303
        page = viewer.get("/peers/real/probe").text
        assert "was not examined yet" in page and "<form method" not in page
        begun = operator.post("/peers/real/probe", send="on")
        assert (begun.status_code, begun.headers["location"]) == (303, "/peers/real/probe")
        (peer,) = store.peers()
        run = console.neighbours.find(peer)
        assert run is not None and run.thread is not None
        run.thread.join(60)
        page = viewer.get("/peers/real/probe").text
        assert "No step failed" in page and "PROSTATE-AI-TEST" in page
        assert "Explicit VR Little Endian" in page
        assert store.acceptances("real", f"REAL@127.0.0.1:{pacs.port}")
        told = [row.message for row in store.audit_list() if row.event == "instances_sent"]
        assert len(told) == 1
        asked = program(Role.OPERATOR).post("/api/v1/peers/real/probe")
        assert asked.status_code == 202 and asked.json()["ok"] is None
        again = console.neighbours.find(peer)
        assert again is not None and again.thread is not None and again is not run
        again.thread.join(60)
    reader = program(Role.VIEWER)
    got = reader.get("/api/v1/peers/real/probe").json()
    assert (got["running"], got["ok"], got["problem"]) == (False, True, "")
    assert [one["step"] for one in got["steps"]] == list(Step)
    assert got["test_study"] is None, "the last one sent none"
    assert reader.get("/api/v1/peers/nobody/probe").status_code == 404
    edited = {**fields, "port": 9, "receives_results": "on"}
    assert admin.post("/peers/real/edit", **edited).status_code == 303
    assert "was not examined yet" in viewer.get("/peers/real/probe").text, "another address"


def test_few_peers_are_examined_at_once_and_all_end_with_the_process(
    as_role: AsRole, store: Store, console: Console
) -> None:
    admin, enough = as_role(Role.ADMIN), threading.Event()

    def hold(_connection: socket.socket) -> None:
        enough.wait(60)

    with port_that(hold) as port:
        for number in range(AT_ONCE + 1):
            fields = {"name": f"p{number}", "ae_title": "X", "host": "127.0.0.1", "port": port}
            assert admin.post("/peers/new", **fields).status_code == 303
        for number in range(AT_ONCE):
            admin.post(f"/peers/p{number}/probe")
        admin.post("/peers/p0/probe")
        assert "p0 is being examined" in admin.note("/peers")
        admin.post(f"/peers/p{AT_ONCE}/probe")
        assert "other peers are asked at this moment" in admin.note("/peers")
        assert "Examining" in admin.get("/peers/p0/probe").text
        enough.set()
    for peer in store.peers()[:AT_ONCE]:
        run = console.neighbours.find(peer)
        assert run is not None and run.thread is not None
        run.thread.join(60)
        assert not run.running
    console.neighbours.close()
