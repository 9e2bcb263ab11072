"""DICOM over TLS with real sockets: who comes in, who does not, and what is recorded."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.config import NodeConfig, NodeSection, PeerConfig, Plaintext, TlsSection
from dicom_node.errors import WrongUseError
from dicom_node.net.access import PEERS_FRESH_S, Refusal
from dicom_node.net.limits import SenderLimits, ServerLimits
from dicom_node.net.listening import is_loopback, listeners
from dicom_node.net.negotiation import probe
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import EchoResult, echo, outgoing, send
from dicom_node.net.server import GuardedServer
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from dicom_node.net.tls import Certificate, client_context, own_certificate, server_context
from tests.net.certificates import Authority, Issued
from tests.net.conftest import MR, OpenPort, OpenPortWith, peer, wait_for, write_instance
from tests.net.wire import AT_LAST_S, SOON_S, Wire, associate_rq

QUICK = ServerLimits(handshake_s=0.6, associate_s=0.6, pdu_s=0.6, idle_s=0.6)
IMPATIENT = SenderLimits(connect_s=1, associate_s=1, answer_s=1, stall_s=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node_certificate(authority: Authority) -> Issued:
    return authority.issue("node", "127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def pacs_certificate(authority: Authority) -> Issued:
    return authority.issue("pacs", "127.0.0.1")


@pytest.fixture
def tls_port(
    open_port: OpenPortWith, authority: Authority, node_certificate: Issued
) -> Callable[..., OpenPort]:
    """A node with a TLS port beside the plain one."""

    def start(*peers: PeerConfig, limits: ServerLimits | None = None, **tls: object) -> OpenPort:
        section = authority.section(node_certificate, enabled=True, port=0, **tls)
        return open_port(peers, limits, section)

    return start


def echo_with(node: OpenPort, own: TlsSection, calling_ae: str = "PACS") -> EchoResult:
    return echo(node.tls_address, calling_ae=calling_ae, tls=own)


def refused(node: OpenPort) -> tuple[str, str, str, str]:
    wait_for(node.refusals)
    return node.refusals()[0]


# coming in


def test_echo_and_store_over_tls(
    tls_port: Callable[..., OpenPort],
    authority: Authority,
    pacs_certificate: Issued,
    tmp_path: Path,
) -> None:
    node, own = tls_port(peer()), authority.section(pacs_certificate)
    assert node.handle.tls_port != node.handle.plain_port
    assert echo_with(node, own).ok
    paths = [write_instance(tmp_path, kilobytes=kb) for kb in (8, 700)]
    statuses = send(node.tls_address, [outgoing(p) for p in paths], calling_ae="PACS", tls=own)
    assert [s.outcome for s in statuses] == [Outcome.SENT] * 2
    received = {item["sop_instance_uid"]: item["dataset_bytes"] for item in node.ingest.received}
    assert received == {path.stem: dataset_bytes(path) for path in paths}
    assert MR in probe(node.tls_address, [MR], calling_ae="PACS", tls=own).accepted
    assert node.refusals() == []


def test_the_certificate_must_be_of_the_calling_ae_title(
    tls_port: Callable[..., OpenPort], authority: Authority
) -> None:
    """Both have a good certificate; neither may come in as the other."""
    node = tls_port(peer("PACS", certificate=["pacs"]), peer("MR1", certificate=["scanner"]))
    pacs = authority.section(authority.issue("other", "pacs"))
    scanner = authority.section(authority.issue("scanner"))
    assert echo_with(node, pacs, "PACS").ok
    assert echo_with(node, scanner, "MR1").ok
    answer = echo_with(node, scanner, "PACS")
    assert not answer.ok
    assert "rejected" in answer.message
    reason = Refusal.CERTIFICATE_NOT_OF_PEER.value
    assert refused(node) == ("PACS", "PROSTATE_AI", "127.0.0.1", reason)


def test_a_fingerprint_binds_one_certificate(
    tls_port: Callable[..., OpenPort], authority: Authority
) -> None:
    right, renewed = authority.issue("pacs"), authority.issue("pacs")
    node = tls_port(peer(certificate=[f"SHA256:{right.sha256.upper()}"]))
    assert echo_with(node, authority.section(right)).ok
    assert not echo_with(node, authority.section(renewed)).ok


def test_without_a_word_the_certificate_must_name_the_host(
    tls_port: Callable[..., OpenPort], authority: Authority
) -> None:
    node = tls_port(peer(host="localhost"))
    assert echo_with(node, authority.section(authority.issue("x", "localhost"))).ok
    # where there are alternative names, the common name is none
    assert not echo_with(node, authority.section(authority.issue("localhost", "y"))).ok


def test_a_peer_with_tls_is_refused_on_the_plain_port(
    tls_port: Callable[..., OpenPort], authority: Authority, pacs_certificate: Issued
) -> None:
    node = tls_port(peer(tls=True))
    assert echo_with(node, authority.section(pacs_certificate)).ok
    assert not echo(node.address, calling_ae="PACS").ok
    assert refused(node) == ("PACS", "PROSTATE_AI", "127.0.0.1", Refusal.TLS_REQUIRED.value)


@pytest.mark.parametrize(
    ("case", "detail"),
    [
        ("authority", "certificate not accepted: unable to get local issuer certificate"),
        ("expired", "certificate not accepted: certificate has expired"),
        ("early", "certificate not accepted: certificate is not yet valid"),
        ("purpose", "certificate not accepted: unsuitable certificate purpose"),
        ("revoked", "certificate not accepted: certificate revoked"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused_and_recorded(
    tls_port: Callable[..., OpenPort], authority: Authority, tmp_path: Path, case: str, detail: str
) -> None:
    made = {
        "authority": lambda: Authority(tmp_path, "Other CA").issue("pacs", "127.0.0.1"),
        "expired": lambda: authority.issue("pacs", "127.0.0.1", days=(-3, -1)),
        "early": lambda: authority.issue("pacs", "127.0.0.1", days=(1, 3)),
        "purpose": lambda: authority.issue("pacs", "127.0.0.1", uses=(ssl_purpose_of_a_server(),)),
        "revoked": lambda: authority.issue("pacs", "127.0.0.1"),
    }[case]()
    tls = {"crl": str(authority.revoke(made))} if case == "revoked" else {}
    node = tls_port(peer(), **tls)
    answer = echo_with(node, authority.section(made))
    assert not answer.ok
    assert "no TLS connection" in answer.message
    assert refused(node) == ("", "", "127.0.0.1", f"{Refusal.TLS_FAILED}: {detail}")


def ssl_purpose_of_a_server() -> object:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    return ExtendedKeyUsageOID.SERVER_AUTH


def test_a_list_of_revoked_certificates_leaves_the_others_alone(
    tls_port: Callable[..., OpenPort], authority: Authority, pacs_certificate: Issued
) -> None:
    node = tls_port(peer(), crl=str(authority.revoke(authority.issue("gone"))))
    assert echo_with(node, authority.section(pacs_certificate)).ok


def raw_client(authority: Authority, own: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


def refused_by_alert(context: ssl.SSLContext, port: int) -> bool:
    """Whether the server ends the connection; with TLS 1.3 it does so after our handshake."""
    with socket.create_connection(("127.0.0.1", port), timeout=AT_LAST_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(associate_rq())
                return connection.recv(1) == b""
        except (ssl.SSLError, ConnectionError):
            return True


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nobody_comes_in_without_a_certificate(
    tls_port: Callable[..., OpenPort], authority: Authority, newest: ssl.TLSVersion
) -> None:
    node, context = tls_port(peer()), raw_client(authority)
    context.maximum_version = newest
    assert refused_by_alert(context, node.tls_address.port)
    assert refused(node)[3] == f"{Refusal.TLS_FAILED}: no certificate"


@pytest.mark.parametrize(
    ("suite", "taken"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", True),
        ("ECDHE-ECDSA-AES256-SHA384", False),  # CBC
        ("AES128-GCM-SHA256", False),  # no forward secrecy
    ],
)
def test_suites_are_those_of_bcp_195(
    tls_port: Callable[..., OpenPort],
    authority: Authority,
    pacs_certificate: Issued,
    suite: str,
    taken: bool,
) -> None:
    node, context = tls_port(peer()), raw_client(authority, pacs_certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    assert refused_by_alert(context, node.tls_address.port) is not taken


def test_a_resumed_session_is_held_to_its_certificate(
    tls_port: Callable[..., OpenPort], authority: Authority, pacs_certificate: Issued
) -> None:
    """TLS 1.2 may resume a session: what it may ask for is still what its certificate may."""
    node = tls_port(peer(), peer("MR1", certificate=["scanner"]))
    context = raw_client(authority, pacs_certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session, answers = None, []
    for calling_ae in ("PACS", "PACS", "MR1"):
        wire = Wire(node.tls_address.port)
        wire.socket = context.wrap_socket(wire.socket, server_hostname="127.0.0.1", session=session)
        with wire:
            wire.send(associate_rq(calling_ae))
            answers.append(wire.read_pdu()[0])
            session = wire.socket.session
    assert answers == [2, 2, 3]  # accepted, accepted, rejected
    assert refused(node)[3] == Refusal.CERTIFICATE_NOT_OF_PEER.value


# attacks


def test_f1_silent_clients_hold_up_no_other_handshake(
    tls_port: Callable[..., OpenPort], authority: Authority, pacs_certificate: Issued
) -> None:
    """The plain library shakes hands where it accepts: one silent client stops everyone."""
    node = tls_port(peer(), limits=ServerLimits(handshake_s=4.0))
    silent = [Wire(node.tls_address.port) for _ in range(10)]
    half = Wire(node.tls_address.port)
    half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    answer = echo_with(node, authority.section(pacs_certificate))
    assert answer.ok, answer.message
    assert not half.closed_within(0.01), "the echo came before the silent ones were dropped"
    assert all(wire.closed_within(AT_LAST_S) for wire in [*silent, half])
    for wire in [*silent, half]:
        wire.socket.close()
    wait_for(lambda: not node.handle._connections.living())
    assert refused(node)[3] == f"{Refusal.TLS_FAILED}: no answer in time"


def test_r7_a_handshake_that_drips_is_cut_at_its_deadline(
    tls_port: Callable[..., OpenPort],
) -> None:
    node = tls_port(peer(), limits=QUICK)
    with Wire(node.tls_address.port) as wire:
        started = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300):
                wire.send(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - started < SOON_S


def test_r8_handshakes_are_capped_and_the_oldest_gives_way(
    tls_port: Callable[..., OpenPort], authority: Authority, pacs_certificate: Issued
) -> None:
    node = tls_port(peer(), limits=ServerLimits(connections=6, connections_per_address=6))
    silent = [Wire(node.tls_address.port) for _ in range(12)]
    assert echo_with(node, authority.section(pacs_certificate)).ok
    assert silent[0].closed_within(4)  # before its handshake has taken too long
    assert len(node.handle._connections.living()) <= 6
    for wire in silent:
        wire.socket.close()


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", associate_rq(), bytes(64)])
def test_what_is_not_tls_is_dropped_and_recorded(
    tls_port: Callable[..., OpenPort], junk: bytes
) -> None:
    node = tls_port(peer(), limits=QUICK)
    with Wire(node.tls_address.port) as wire:
        wire.send(junk)
        assert wire.closed_within(AT_LAST_S)
    assert refused(node)[3] == f"{Refusal.TLS_FAILED}: not TLS"
    wait_for(lambda: not node.handle._connections.living())


def test_r20_probes_of_the_port_are_no_news(tls_port: Callable[..., OpenPort]) -> None:
    node = tls_port(peer(), limits=QUICK)
    for _ in range(20):
        Wire(node.tls_address.port).socket.close()
    wait_for(lambda: not node.handle._connections.living())
    time.sleep(PEERS_FRESH_S)
    assert node.refusals() == []


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_that_cannot_be_set_up_is_closed_and_takes_no_room(
    tls_port: Callable[..., OpenPort],
    authority: Authority,
    pacs_certificate: Issued,
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
) -> None:
    node, own = tls_port(peer()), authority.section(pacs_certificate)

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    to = node.tls_address if tls else node.address
    with monkeypatch.context() as broken:
        broken.setattr(GuardedServer, "finish_request", fail)
        assert not echo(to, calling_ae="PACS", limits=IMPATIENT, tls=own).ok
    wait_for(lambda: not node.handle._connections.living())  # the thread of TLS may still end
    assert echo(to, calling_ae="PACS", tls=own).ok


def secured(node: OpenPort, authority: Authority, own: Issued) -> Wire:
    """An association over TLS, byte by byte."""
    wire = Wire(node.tls_address.port)
    context = raw_client(authority, own)
    wire.socket = context.wrap_socket(wire.socket, server_hostname="127.0.0.1")
    return wire.associate()


def test_a_silent_association_and_half_a_record_are_ended(
    tls_port: Callable[..., OpenPort], authority: Authority, pacs_certificate: Issued
) -> None:
    node = tls_port(peer(), limits=QUICK)
    with secured(node, authority, pacs_certificate) as wire:
        assert wire.closed_within(AT_LAST_S)
    with secured(node, authority, pacs_certificate) as wire:
        socket.socket.send(wire.socket, b"\x17\x03\x03\x40\x00half")
        assert wire.closed_within(AT_LAST_S)
    wait_for(lambda: not node.handle._connections.living())


def test_a_forged_record_ends_the_association(
    tls_port: Callable[..., OpenPort], authority: Authority, pacs_certificate: Issued
) -> None:
    node = tls_port(peer())
    with secured(node, authority, pacs_certificate) as wire:
        socket.socket.send(wire.socket, b"\x17\x03\x03\x00\x20" + bytes(32))
        assert wire.closed_within(AT_LAST_S)
    wait_for(lambda: not node.handle._connections.living())


# going out


@pytest.fixture
def standin(
    authority: Authority, pacs_certificate: Issued, open_port: OpenPortWith
) -> Callable[..., OpenPort]:
    """A peer that takes TLS, as seen from a node that sends."""

    def start(own: Issued | None = None) -> OpenPort:
        section = authority.section(own or pacs_certificate, enabled=True, port=0)
        return open_port([peer("NODE")], None, section)

    return start


def test_the_certificate_of_the_peer_must_be_its_own(
    standin: Callable[..., OpenPort], authority: Authority, node_certificate: Issued
) -> None:
    own = authority.section(node_certificate)
    other = authority.issue("other", "elsewhere.example")
    to = standin(other).tls_address
    answer = echo(to, calling_ae="NODE", tls=own)
    assert not answer.ok
    assert "the certificate shown is not of this peer (wanted: 127.0.0.1)" in answer.message
    known = peer("PROSTATE_AI", port=to.port, tls=True, certificate=["elsewhere.example"])
    assert echo(known, calling_ae="NODE", tls=own).ok
    pinned = known.model_copy(update={"certificate": (f"sha256:{other.sha256}",)})
    assert echo(pinned, calling_ae="NODE", tls=own).ok


def test_a_peer_of_another_authority_is_not_sent_to(
    standin: Callable[..., OpenPort], tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "ca", "Other CA")
    own = stranger.section(stranger.issue("node"))
    item = outgoing(write_instance(tmp_path))
    to = standin()
    (status,) = send(to.tls_address, [item], calling_ae="NODE", tls=own)
    assert status.outcome is Outcome.TRANSIENT
    assert "no TLS connection: certificate not accepted" in status.detail
    assert to.ingest.received == []


def test_without_a_certificate_nothing_goes_out_in_the_clear(tmp_path: Path) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        known = peer(port=pacs.port, tls=True)
        item = outgoing(write_instance(tmp_path))
        for own in (None, TlsSection()):
            (status,) = send(known, [item], calling_ae="NODE", tls=own)
            assert status.outcome is Outcome.TRANSIENT
            assert "the node has no certificate" in status.detail
        assert pacs.associations == 0


def test_a_peer_that_speaks_no_tls_is_told_plainly(
    authority: Authority, node_certificate: Issued, tmp_path: Path
) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        own = authority.section(node_certificate)
        answer = echo(peer(port=pacs.port, tls=True), calling_ae="NODE", limits=IMPATIENT, tls=own)
    assert not answer.ok
    assert "no TLS connection" in answer.message


def test_f10_a_peer_that_accepts_and_says_nothing_is_given_up(
    authority: Authority, node_certificate: Issued
) -> None:
    own = authority.section(node_certificate)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = peer(port=silent.getsockname()[1], tls=True)
        started = time.monotonic()
        answer = echo(to, calling_ae="NODE", limits=IMPATIENT, tls=own)
    assert not answer.ok
    assert "no TLS connection: no answer in time" in answer.message
    assert time.monotonic() - started < SOON_S


# the configuration


def config(tls: TlsSection | None = None, **node: object) -> NodeConfig:
    return NodeConfig(node=NodeSection.model_validate(node), tls=tls or TlsSection())


@pytest.mark.parametrize("bind", ["10.0.0.20", "0.0.0.0", "::", ""])
def test_plain_dicom_beyond_loopback_must_be_said(bind: str) -> None:
    with pytest.raises(WrongUseError, match="can be read on the way"):
        listeners(config(bind=bind))
    (one,) = listeners(config(bind=bind, plaintext="network"))
    assert one.context is None


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_loopback_is_plain_without_a_word(bind: str) -> None:
    assert is_loopback(bind)
    assert [one.address for one in listeners(config(bind=bind))] == [bind]


def test_plain_can_be_off_and_tls_have_its_own_address(
    authority: Authority, node_certificate: Issued
) -> None:
    tls = authority.section(node_certificate, enabled=True, port=0, bind="10.0.0.20")
    assert [(one.address, one.context is None) for one in listeners(config(tls))] == [
        ("127.0.0.1", True), ("10.0.0.20", False),
    ]  # fmt: skip
    (one,) = listeners(config(tls, plaintext=Plaintext.OFF))
    assert one.context is not None
    with pytest.raises(WrongUseError, match="no DICOM port is open"):
        listeners(config(plaintext="off"))


def test_files_that_do_not_fit_are_said_plainly(
    authority: Authority, node_certificate: Issued, pacs_certificate: Issued, tmp_path: Path
) -> None:
    good = authority.section(node_certificate)
    (tmp_path / "empty.pem").write_text("")
    for update, said in (
        ({"key": str(pacs_certificate.key)}, "tls.key does not belong to tls.certificate"),
        ({"certificate": str(tmp_path / "absent.pem")}, "tls.certificate: cannot read"),
        ({"certificate": str(tmp_path / "empty.pem")}, "not a usable PEM file"),
        ({"ca": str(tmp_path / "empty.pem")}, "tls.ca: .* holds nothing"),
    ):
        with pytest.raises(WrongUseError, match=said):
            server_context(good.model_copy(update=update))
    with pytest.raises(WrongUseError, match="no certificate"):
        client_context(TlsSection())


def test_an_encrypted_key_asks_nobody(
    authority: Authority, node_certificate: Issued, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key(node_certificate.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"secret")
        )
    )
    with pytest.raises(WrongUseError, match=r"tls\.key is encrypted"):
        server_context(authority.section(node_certificate, key=str(locked)))


def test_the_own_certificate_is_looked_at(authority: Authority, node_certificate: Issued) -> None:
    shown = own_certificate(authority.section(node_certificate))
    assert ("IP Address", "127.0.0.1") in shown["subjectAltName"]
    with pytest.raises(WrongUseError, match="certificate has expired"):
        own_certificate(authority.section(authority.issue("old", days=(-3, -1))))


@pytest.mark.parametrize(
    ("names", "identity", "belongs"),
    [
        ({"pacs.example"}, "PACS.example", True),
        ({"pacs.example"}, "example", False),
        ({"*.example"}, "pacs.example", False),  # a wildcard is not one peer's
        ({"::1"}, "0:0:0:0:0:0:0:1", True),
        ({"10.0.0.5"}, "10.0.0.50", False),
        (set(), "sha256:" + "ab" * 32, True),
        (set(), "sha256:" + "cd" * 32, False),
        ({"sha256:" + "cd" * 32}, "x", False),
    ],
)
def test_what_belongs_to_a_peer(names: set[str], identity: str, belongs: bool) -> None:
    assert Certificate(frozenset(names), "ab" * 32).belongs_to([identity]) is belongs
