"""What the statement says of SOP classes, syntaxes and roles is what associations agree on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID_dictionary
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from typer.testing import CliRunner

from dicom_node.cli import app
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig
from dicom_node.conformance.document import Document
from dicom_node.conformance.services import SEPARATE
from dicom_node.flow.deliver import DeliveryLoop
from dicom_node.net.contexts import supported_contexts
from dicom_node.net.sender import outgoing
from tests.databases import open_store
from tests.net.conftest import NODE_AE, OpenPort, OpenPortWith, peer, write_instance

Contexts = set[tuple[str, tuple[str, ...]]]
VERIFICATION = "1.2.840.10008.1.1"
OF_ONE_REQUEST = 127


@contextmanager
def association(node: OpenPort, contexts: list[PresentationContext], **more: object) -> Iterator:
    entity = AE(ae_title="PACS")
    assoc = entity.associate(
        "127.0.0.1", node.port, contexts=contexts, ae_title=NODE_AE, **more
    )  # fmt: skip
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def agreed(node: OpenPort, asked: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """(class, syntax) that the port accepts, each asked for in a context of its own."""
    wanted, found = list(asked), set()
    for start in range(0, len(wanted), OF_ONE_REQUEST):
        part = wanted[start : start + OF_ONE_REQUEST]
        # one that is accepted always, so that the association stands
        contexts = [build_context(VERIFICATION), *(build_context(c, [ts]) for c, ts in part)]
        with association(node, contexts) as assoc:
            assert assoc.is_established
            found |= {
                (str(cx.abstract_syntax), str(cx.transfer_syntax[0]))
                for cx in assoc.accepted_contexts
                if cx.context_id != 1
            }
    return found


def syntax_uids(document: Document) -> dict[str, str]:
    rows = document.table("transfer_syntaxes").as_dicts()
    return {row["called here"]: row["UID"] for row in rows}


def stated(document: Document) -> set[tuple[str, str]]:
    called = syntax_uids(document)
    return {
        (row["UID"], called[name])
        for row in document.table("accepted_contexts").as_dicts()
        for name in row["transfer syntaxes"].split("; ")
    }


def of_kind(kind: str) -> list[str]:
    return [uid for uid, entry in UID_dictionary.items() if entry[1] == kind]


def test_of_every_sop_class_of_the_standard_those_stated_are_accepted(
    open_port: OpenPortWith, document: Document
) -> None:
    node = open_port()
    # the dictionary of the library lacks the newest classes
    classes = sorted({*of_kind("SOP Class"), *(uid for uid, _ in stated(document))})
    assert len(classes) > 250
    found = agreed(node, [(uid, ImplicitVRLittleEndian) for uid in classes])
    assert {uid for uid, _ in found} == {uid for uid, _ in stated(document)}
    overview = document.table("network_services").as_dicts()
    assert {uid for uid, _ in found} == {row["UID"] for row in overview if row["SCP"]}


def test_of_every_transfer_syntax_those_stated_are_accepted(
    open_port: OpenPortWith, document: Document
) -> None:
    classes = {uid for uid, _ in stated(document)}
    syntaxes = of_kind("Transfer Syntax")
    assert len(syntaxes) > 40
    asked = [(sop, syntax) for sop in sorted(classes) for syntax in syntaxes]
    assert agreed(open_port(), asked) == stated(document)


def test_the_syntax_that_stands_first_in_the_table_is_taken(
    open_port: OpenPortWith, document: Document
) -> None:
    node = open_port()
    rows = {row["UID"]: row for row in document.table("accepted_contexts").as_dicts()}
    first = syntax_uids(document)[rows[VERIFICATION]["transfer syntaxes"].split("; ")[0]]
    for order in (
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian],
        [ExplicitVRLittleEndian, ImplicitVRLittleEndian],
    ):
        with association(node, [build_context(VERIFICATION, order)]) as assoc:
            assert assoc.accepted_contexts[0].transfer_syntax == [first]


def test_roles_are_those_stated(open_port: OpenPortWith, document: Document) -> None:
    rows = document.table("accepted_contexts").as_dicts()
    classes = [row["UID"] for row in rows]
    roles = [build_role(uid, scu_role=True, scp_role=True) for uid in classes]
    contexts = [build_context(uid) for uid in classes]
    with association(open_port(), contexts, ext_neg=roles) as assoc:
        # of the requestor: what it may be SCP of, the node is SCU of
        found = {
            str(cx.abstract_syntax): {"SCP": bool(cx.as_scu), "SCU": bool(cx.as_scp)}
            for cx in assoc.accepted_contexts
        }
    for row in rows:
        plays = {role for role, yes in found[row["UID"]].items() if yes}
        assert plays == set(row["role of the node"].split(", ")), row


def test_parameters_are_those_of_the_association(
    open_port: OpenPortWith, document: Document
) -> None:
    values = {
        row["name"]: row["value"] for row in document.table("association_parameters").as_dicts()
    }
    with association(open_port(), [build_context(VERIFICATION)]) as assoc:
        answer = assoc.acceptor
        assert answer.implementation_class_uid == values["Implementation Class UID"]
        assert answer.implementation_version_name == values["Implementation Version Name"]
        length = f"{answer.maximum_length} bytes"
        assert length == values["Maximum PDU length received, as acceptor"]
        assert answer.asynchronous_operations == (1, 1)
        assert answer.primitive.application_context_name == values["Application Context Name"]


@pytest.mark.parametrize(
    ("calling", "called", "refusal"),
    [
        ("PACS", "OTHER", "called_ae_unknown"),
        ("NOBODY", NODE_AE, "calling_ae_unknown"),
        ("MUTE", NODE_AE, "may_not_send"),
        ("FAR", NODE_AE, "address_not_allowed"),
    ],
)
def test_rejections_are_those_stated(
    open_port: OpenPortWith, document: Document, calling: str, called: str, refusal: str
) -> None:
    peers = [peer("PACS"), peer("MUTE", may_send=False), peer("FAR", host="192.0.2.1")]
    assoc = AE(ae_title=calling).associate(
        "127.0.0.1", open_port(peers).port, contexts=[build_context(VERIFICATION)], ae_title=called
    )  # fmt: skip
    assert assoc.is_rejected
    answer = assoc.acceptor.primitive
    rows = {row["recorded as"]: row for row in document.table("rejections").as_dicts()}
    row = rows[refusal]
    stated_numbers = [int(row[name].split()[0]) for name in ("result", "source", "reason")]
    assert stated_numbers == [answer.result, answer.result_source, answer.diagnostic]


# --- what the node proposes --------------------------------------------------------------------


@pytest.fixture
def asked() -> Iterator[tuple[int, list[Contexts]]]:
    """A port that takes everything, and what each association request proposed."""
    requests: list[Contexts] = []

    def on_request(event: evt.Event) -> None:
        requests.append(_proposed(event.assoc))

    entity = AE(ae_title="PACS")
    for context in supported_contexts():
        entity.add_supported_context(context.abstract_syntax, context.transfer_syntax)
    handlers = [(evt.EVT_REQUESTED, on_request), (evt.EVT_C_STORE, lambda _: 0)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    yield server.server_address[1], requests
    server.shutdown()


def _proposed(assoc: Association) -> Contexts:
    primitive = assoc.requestor.primitive
    return {
        (str(cx.abstract_syntax), tuple(map(str, cx.transfer_syntax)))
        for cx in primitive.presentation_context_definition_list
    }


def proposed(document: Document, activity: str) -> Contexts:
    called = syntax_uids(document)
    return {
        (row["UID"], tuple(called[name] for name in context.split("; ")))
        for row in document.table("proposed_contexts").as_dicts()
        if row["activity"] == activity
        for context in row["transfer syntaxes"].split(SEPARATE)
    }


@pytest.mark.parametrize("count", [1, 3, None])
def test_a_delivery_proposes_what_is_stated(
    asked: tuple[int, list[Contexts]], tmp_path: Path, document: Document, count: int | None
) -> None:
    port, requests = asked
    send = proposed(document, "Send results")
    classes = sorted({uid for uid, _ in send})[:count]
    config = NodeConfig(node=NodeSection(data_dir=tmp_path))
    store = open_store(config.database_url, SystemClock())
    loop = DeliveryLoop(store, config, SystemClock())
    to = PeerConfig(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
    items = [outgoing(write_instance(tmp_path, sop_class=sop)) for sop in classes]
    statuses = list(loop._c_store(to, items))
    store.close()
    assert {status.outcome for status in statuses} == {"sent"}
    ask = proposed(document, "Ask what a peer takes")
    expected = {cx for cx in send if cx[0] in classes} | {cx for cx in ask if cx[0] not in classes}
    assert requests == [expected]


@pytest.mark.parametrize(
    ("command", "activities"),
    [("probe", ["Verify a peer", "Examine a peer"]), ("echo", ["Verify a peer"])],
)
def test_the_commands_propose_what_is_stated(
    asked: tuple[int, list[Contexts]], tmp_path: Path, document: Document, command: str,
    activities: list[str],
) -> None:  # fmt: skip
    port, requests = asked
    file = tmp_path / "node.toml"
    file.write_text(
        f'[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
    )
    done = CliRunner().invoke(app, ["peers", command, "pacs", "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert requests == [proposed(document, activity) for activity in activities]


def test_the_roles_of_the_overview_follow_from_both_directions(document: Document) -> None:
    scu = {uid for uid, _ in stated(document) if _role(document, uid) >= {"SCU"}}
    scu |= {row["UID"] for row in document.table("proposed_contexts").as_dicts()}
    overview = document.table("network_services").as_dicts()
    assert {row["UID"] for row in overview if row["SCU"]} == scu


def _role(document: Document, uid: str) -> set[str]:
    rows = document.table("accepted_contexts").as_dicts()
    return {
        role for row in rows if row["UID"] == uid for role in row["role of the node"].split(", ")
    }
