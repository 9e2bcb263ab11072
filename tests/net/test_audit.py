"""What the port and the delivery put into the audit trail, and the way to the repository."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from dicom_node.clock import ManualClock, SystemClock
from dicom_node.config import AuditSection, NodeConfig, NodeSection
from dicom_node.errors import ConfigError, StoreError
from dicom_node.flow import audit as recording
from dicom_node.flow.audit import ALERT_EVERY_S, AuditTrail
from dicom_node.flow.deliver import DeliveryLoop
from dicom_node.flow.forward import SETTLE_S, Forwarder
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.peers import add_peer, remove_peer
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import Address, echo, outgoing, send
from dicom_node.store.store import Store
from tests.databases import open_store
from tests.net.conftest import NODE_AE, peer, wait_for, write_instance
from tests.net.test_deliver import OutboxWith, outbox  # noqa: F401


@dataclass
class Audited:
    """A port that records."""

    store: Store
    trail: AuditTrail
    port: int

    @property
    def address(self) -> Address:
        return Address(NODE_AE, "127.0.0.1", self.port)

    def events(self) -> list[str]:
        self.trail.flush()
        return [row.event for row in self.store.audit_list()]

    def last(self) -> Element:
        return fromstring(self.store.audit_list()[-1].message)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Audited]:
    section = NodeSection(ae_title=NODE_AE, port=0, data_dir=tmp_path / "node")
    section.data_dir.mkdir()
    config = NodeConfig(node=section, peers=(peer(),))
    clock = SystemClock()
    store = open_store(config.database_url, clock)
    trail = AuditTrail(store, config, clock)
    trail.start()
    ingest = Ingest(store, section.data_dir, clock)
    receiver = Receiver(config, store, ingest, clock, audit=trail)
    yield Audited(store, trail, receiver.start())
    receiver.stop(drain_s=0)
    trail.close()
    store.close()


def test_an_association_makes_one_record_for_each_study_and_none_for_each_image(
    node: Audited, tmp_path: Path
) -> None:
    files = [write_instance(tmp_path, study=f"1.2.{3 + n % 2}") for n in range(10)]
    send(node.address, [outgoing(file) for file in files], calling_ae="PACS")
    wait_for(lambda: node.events().count("instances_received") == 2)
    assert sorted(node.events()) == ["begin_transferring"] * 2 + ["instances_received"] * 2
    root = node.last()
    event = root.find("EventIdentification")
    assert event is not None and event.attrib["EventOutcomeIndicator"] == "0"
    classes = root.find(".//SOPClass")
    assert classes is not None and classes.attrib["NumberOfInstances"] == "5"
    objects = root.findall("ParticipantObjectIdentification")
    assert [one.attrib["ParticipantObjectID"] for one in objects][1] == "T1"
    assert "Test^Node" not in node.store.audit_list()[-1].message, "ids, never names"
    assert node.store.audit_verify().problem == ""


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_refused_instances_make_no_transfer(node: Audited, tmp_path: Path) -> None:
    file = write_instance(tmp_path, study="not a uid")
    (status,) = send(node.address, [outgoing(file)], calling_ae="PACS")
    assert status.code == 0xC000
    assert node.events() == []


def test_a_flood_of_rejections_makes_few_records(node: Audited) -> None:
    for _ in range(5):
        assert not echo(node.address, calling_ae="STRANGER").ok
    wait_for(lambda: node.events() == ["association_rejected"])
    assert node.store.audit_list()[0].subject == "STRANGER"
    wait_for(lambda: node.store.refusals()[0]["count"] == 5)


def config_of(folder: Path, **audit: object) -> NodeConfig:
    section = AuditSection.model_validate(audit)
    return NodeConfig(node=NodeSection(ae_title=NODE_AE, data_dir=folder), audit=section)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    config = config_of(tmp_path)
    made = open_store(config.database_url, ManualClock())
    yield made
    made.close()


def test_held_back_alerts_are_counted_in_the_next_record(store: Store, tmp_path: Path) -> None:
    clock = ManualClock()
    trail = AuditTrail(store, config_of(tmp_path), clock)
    for number in range(3000):
        trail.rejected("A", "B", "10.0.0.9", "calling_ae_unknown")
        trail.rejected(f"S{number}", "B", "10.0.0.9", "calling_ae_unknown")
    trail.flush()
    assert len(store.audit_list(limit=9999)) == recording.ALERT_KEYS
    clock.advance(ALERT_EVERY_S)
    trail.rejected("A", "B", "10.0.0.9", "calling_ae_unknown")
    trail.flush()
    details = fromstring(store.audit_list(recording.ALERT_KEYS)[0].message).findall(
        ".//ParticipantObjectDetail"
    )
    assert details[-1].attrib["type"] == "not recorded since the last record"


def test_records_wait_for_a_database_that_does_not_answer_and_lost_ones_are_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(store, config_of(tmp_path), ManualClock())
    monkeypatch.setattr(recording, "QUEUE_LIMIT", 3)

    def locked(*_: object) -> None:
        raise StoreError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(store, "audit_append", locked)
        for name in "abcde":
            trail.peer_changed("added", name, name)
        with pytest.raises(StoreError):
            trail.flush()
    trail.flush()
    assert [row.subject for row in store.audit_list()] == ["a", "b", "c", "audit"]
    assert store.audit_list()[-1].event == "records_lost"


def test_the_patient_is_left_out_where_the_site_wants_it(store: Store, tmp_path: Path) -> None:
    class Gone:
        is_released = True

        def is_alive(self) -> bool:
            return False

    for patient in ("id", "none"):
        trail = AuditTrail(store, config_of(tmp_path, patient=patient), ManualClock())
        trail.received(Gone(), ("PACS", "10.0.0.5"), "1.2", "1.2.3", "CANARY7")
        trail.close()
    named = ["CANARY7" in row.message for row in store.audit_list()]
    assert named == [True, True, False, False]


def test_start_stop_and_a_changed_configuration_are_recorded(store: Store, tmp_path: Path) -> None:
    for quiet_s in (10, 10, 20):
        config = config_of(tmp_path)
        study = config.study.model_copy(update={"quiet_s": quiet_s})
        trail = AuditTrail(store, config.model_copy(update={"study": study}), ManualClock())
        trail.started()
        trail.stopped()
        trail.flush()
    life = ["application_start", "software_configuration", "application_stop"]
    assert [row.event for row in store.audit_list()] == [*life, life[0], life[2], *life]


def test_a_changed_peer_is_recorded(store: Store, tmp_path: Path) -> None:
    add_peer(store, config_of(tmp_path), peer())
    remove_peer(store, config_of(tmp_path), "pacs")
    assert [(row.event, row.subject) for row in store.audit_list()] == [
        ("network_configuration", "pacs")
    ] * 2


def test_a_delivery_makes_one_record_for_what_was_taken(outbox: OutboxWith) -> None:  # noqa: F811
    box = outbox()
    trail = AuditTrail(box.store, box.config, box.clock)
    box.loop = DeliveryLoop(box.store, box.config, box.clock, box.pacs.send, audit=trail)
    box.finish_study()
    box.loop.deliver_once()
    trail.flush()
    (row,) = box.store.audit_list()
    root = fromstring(row.message)
    assert row.event == "instances_sent"
    assert len(root.findall(".//SOPClass")) == 2
    assert root.findall("ActiveParticipant")[1].attrib["UserID"] == "PACS"


# forwarding


@dataclass
class Repository:
    """An audit record repository on loopback: TLS, RFC 5425 frames. ``rude``: hangs up at once."""

    certificate: Path
    key: Path
    messages: list[str] = field(default_factory=list)
    rude: int = 0
    hung_up: int = 0
    port: int = 0
    _listener: socket.socket | None = None

    def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=[context, self._listener], daemon=True).start()

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _serve(self, context: ssl.SSLContext, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            rude = self.rude > 0
            with (
                plain,
                contextlib.suppress(OSError),
                context.wrap_socket(plain, server_side=True) as connection,
            ):
                self._read(connection)
            self.hung_up += rude

    def _read(self, connection: ssl.SSLSocket) -> None:
        if self.rude:
            self.rude -= 1
            connection.recv(10)
            return
        reader = connection.makefile("rb")
        while length := _length(reader.read):
            self.messages.append(reader.read(length).decode("utf-8"))


def _length(read: object) -> int:
    digits = b""
    while (one := read(1)) not in (b" ", b""):  # type: ignore[operator]
        digits += one
    return int(digits or b"0")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    made, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", made, "-days", "2", "-subj", "/CN=repository",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key


@pytest.fixture
def repository(certificate: tuple[Path, Path]) -> Iterator[Repository]:
    made = Repository(*certificate)
    made.start()
    yield made
    made.stop()


def fill(store: Store, config: NodeConfig, names: str) -> None:
    trail = AuditTrail(store, config, ManualClock())
    for name in names:
        trail.peer_changed("added", name, name)
    trail.flush()


def forwarder(
    store: Store, repository: Repository, folder: Path, **settings: object
) -> tuple[Forwarder, ManualClock, NodeConfig]:
    values = {
        "syslog_host": "127.0.0.1", "syslog_port": repository.port,
        "syslog_ca": str(repository.certificate), **settings,
    }  # fmt: skip
    config, clock = config_of(folder, **values), ManualClock()
    return Forwarder(store, config, clock), clock, config


def test_records_are_forwarded_as_rfc_5424_over_tls(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    forward, _, config = forwarder(store, repository, tmp_path)
    fill(store, config, "abc")
    assert forward.forward_due() == 3
    assert forward.forward_due() == 0
    wait_for(lambda: len(repository.messages) == 3)
    for line, row in zip(repository.messages, store.audit_list(), strict=True):
        head, xml = line.split("\ufeff")
        assert head.startswith("<85>1 2023-11-14T22:13:20.000Z ")
        assert head.endswith(" dicom-node - DICOM+RFC3881 - ")
        assert xml == row.message
    forward.close()


def test_a_repository_that_hangs_up_gets_everything_at_least_once(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    forward, clock, config = forwarder(store, repository, tmp_path)
    fill(store, config, "ab")
    repository.rude = 2
    for number in (1, 2):
        forward.forward_due()  # may see the end at once, or only later
        wait_for(lambda number=number: repository.hung_up == number)
        clock.advance(900)
        if forward._connection is not None:
            assert forward.forward_due() == 0
        assert store.audit_backlog() == 2, "sent is not arrived"
        clock.advance(900)
    assert forward.forward_due() == 2
    wait_for(lambda: len(repository.messages) == 2)
    clock.advance(SETTLE_S)
    forward.forward_due()
    assert store.audit_backlog() == 0
    forward.close()


def test_what_was_under_way_at_a_stop_is_sent_again(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    forward, _, config = forwarder(store, repository, tmp_path)
    fill(store, config, "ab")
    assert forward.forward_due() == 2
    forward.close()
    again, clock, _ = forwarder(store, repository, tmp_path)
    assert again.forward_due() == 2
    clock.advance(SETTLE_S)
    again.forward_due()
    wait_for(lambda: len(repository.messages) == 4)
    assert store.audit_backlog() == 0
    again.close()


def test_the_queue_waits_for_a_repository_that_is_down(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    forward, clock, config = forwarder(store, repository, tmp_path)
    repository.stop()
    fill(store, config, "ab")
    assert forward.forward_due() == 0
    assert store.audit_backlog() == 2
    repository.start()
    assert forward.forward_due() == 0, "it rests first"
    clock.advance(900)
    assert forward.forward_due() == 2
    forward.close()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"syslog_ca": ""}, "CERTIFICATE_VERIFY_FAILED"), ({"syslog_host": "localhost"}, "mismatch")],
)
def test_an_unproven_repository_gets_nothing(
    store: Store, repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    settings: dict[str, object], problem: str,
) -> None:  # fmt: skip
    forward, _, config = forwarder(store, repository, tmp_path, **settings)
    fill(store, config, "a")
    assert forward.forward_due() == 0
    assert repository.messages == [] and store.audit_backlog() == 1
    assert problem in str([record.__dict__.get("problem") for record in caplog.records])


def test_a_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    from dicom_node.net.syslog import tls_context

    with pytest.raises(ConfigError, match=r"audit\.syslog_ca"):
        tls_context(AuditSection(syslog_ca=str(tmp_path / "none.pem")))
