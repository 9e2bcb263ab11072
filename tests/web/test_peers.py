"""AE titles through the pages: live, audited, and refused senders allowed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.domain.account import Role
from dicom_node.flow.peers import senders
from dicom_node.net.access import AccessList, Refusal, Requester
from dicom_node.net.standin import PacsStandIn
from dicom_node.store.store import Store
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


def test_an_echo_says_in_plain_words_what_came_back(
    as_role: AsRole, store: Store, tmp_path: Path
) -> None:
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
        taken = operator.post("/peers/real/probe")
        assert taken.status_code == 200 and "Segmentation" in taken.text
        assert store.acceptances("real", f"REAL@127.0.0.1:{pacs.port}")
