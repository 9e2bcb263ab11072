"""Every way in which a connection may fail, with real sockets: each in its own words."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path

import pytest

from dicom_node.config import TlsSection
from dicom_node.net import reach
from dicom_node.net.advice import advice
from dicom_node.net.reach import Listener, listener, resolve, secure
from dicom_node.net.sender import Address, echo
from dicom_node.net.standin import PacsStandIn
from tests.net.certificates import Authority, Issued
from tests.net.conftest import OpenPortWith, peer
from tests.net.listeners import Talk, over_tls, port_that, says, silent

A_ABORT = bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 1])
OWN = "PROSTATE_AI"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> TlsSection:
    return authority.section(authority.issue("node", "127.0.0.1"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "LISTEN_S", 0.3)
    monkeypatch.setattr(reach, "CONNECT_S", 1.0)


def rejected(source: int, reason: int, result: int = 1) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason])


def test_names_are_looked_up() -> None:
    assert resolve("127.0.0.1").found == "127.0.0.1 is an address"
    assert "127.0.0.1" in resolve("localhost").found
    wrong = resolve("no-such-host.invalid")
    assert not wrong.ok and "not known" in wrong.found and "address" in wrong.advice
    assert not resolve("a" * 300).ok


def test_refused_unreachable_and_unanswered_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as bound:  # bound and not listening: refused
        bound.bind(("127.0.0.1", 0))
        told = reach.connect("127.0.0.1", bound.getsockname()[1])
        assert not told.ok and "nothing listens on port" in told.found
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        held = []
        port = full.getsockname()[1]
        for _ in range(3):  # a full queue drops what comes, as a firewall does
            held.append(socket.socket())
            held[-1].setblocking(False)
            held[-1].connect_ex(("127.0.0.1", port))
        told = reach.connect("127.0.0.1", port, limit_s=0.3)
        for one in held:
            one.close()
    assert not told.ok and "does not answer" in told.found and "firewall" in told.advice

    def no_route(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(socket, "create_connection", no_route)
    told = reach.connect("203.0.113.7", 104)
    assert not told.ok and "no way to 203.0.113.7" in told.found


@pytest.mark.parametrize(
    ("talk", "expected"),
    [(says(A_ABORT), Listener.DICOM), (says(rejected(1, 1)), Listener.DICOM),
     (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Listener.WEB),
     (says(b"SSH-2.0-OpenSSH_9.2\r\n"), Listener.OTHER), (says(b""), Listener.CLOSES),
     (says(b"\x15\x03\x03\x00\x02\x02\x28"), Listener.TLS), (silent, Listener.SILENT)],
)  # fmt: skip
def test_a_listener_is_known_by_its_first_words(talk: Talk, expected: Listener) -> None:
    with port_that(talk) as port:
        assert listener("127.0.0.1", port, limit_s=0.5) is expected


def test_a_dicom_port_without_tls_is_known(open_port: OpenPortWith, tmp_path: Path) -> None:
    node = open_port([peer()])
    assert listener("127.0.0.1", node.port) in (Listener.DICOM, Listener.CLOSES)
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        assert listener("127.0.0.1", pacs.port) in (Listener.DICOM, Listener.CLOSES)


# TLS


def server_side(authority: Authority, issued: Issued, *, ask: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    return context


def seen(context: ssl.SSLContext, own: TlsSection, *identities: str) -> reach.Reached:
    with port_that(over_tls(context)) as port:
        return secure("127.0.0.1", port, identities or ("127.0.0.1",), own)


def test_tls_that_works(authority: Authority, own: TlsSection) -> None:
    told = seen(server_side(authority, authority.issue("pacs", "127.0.0.1")), own)
    assert told.ok and told.found == "TLSv1.3, both certificates accepted"


@pytest.mark.parametrize(
    ("days", "words", "advice"),
    [((-30, -1), "has expired", "renewed"), ((1, 30), "is not valid yet", "clocks")],
)
def test_a_certificate_out_of_its_time(
    authority: Authority, own: TlsSection, days: tuple[int, int], words: str, advice: str
) -> None:
    told = seen(server_side(authority, authority.issue("pacs", "127.0.0.1", days=days)), own)
    assert not told.ok and words in told.found and advice in told.advice


def test_a_certificate_of_an_unknown_authority(
    authority: Authority, own: TlsSection, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "Other CA")
    told = seen(server_side(authority, other.issue("pacs", "127.0.0.1")), own)
    assert not told.ok and "does not trust" in told.found and "tls.ca" in told.advice


def test_a_certificate_of_another_name_and_its_mending(
    authority: Authority, own: TlsSection
) -> None:
    issued = authority.issue("pacs", "pacs.hospital.example")
    told = seen(server_side(authority, issued), own)
    assert not told.ok
    assert told.found == "its certificate is for pacs.hospital.example, not for 127.0.0.1"
    assert f"sha256:{issued.sha256}" in told.advice
    context = server_side(authority, issued)
    assert seen(context, own, "pacs.hospital.example").ok
    assert seen(context, own, f"sha256:{issued.sha256}").ok


def test_our_certificate_is_not_trusted_there(
    authority: Authority, own: TlsSection, tmp_path: Path
) -> None:
    strict = server_side(Authority(tmp_path, "Other CA"), authority.issue("pacs", "127.0.0.1"))
    told = seen(strict, own)
    assert not told.ok and "authority of our certificate" in told.found
    assert "trusted at the peer" in told.advice


def test_an_old_version_of_tls(authority: Authority, own: TlsSection) -> None:
    old = server_side(authority, authority.issue("pacs", "127.0.0.1"))
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.minimum_version = ssl.TLSVersion.TLSv1
    old.set_ciphers("ALL:@SECLEVEL=0")
    told = seen(old, own)
    assert not told.ok and "TLS 1.2" in told.advice


def test_a_node_without_certificate_says_what_to_set() -> None:
    told = secure("127.0.0.1", 1, ("127.0.0.1",), TlsSection())
    assert not told.ok and "no certificate" in told.found and "tls.certificate" in told.advice


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("talk", "words"),
    [(says(A_ABORT), "speaks DICOM without TLS"), (says(b"HTTP/1.0 400\r\n"), "web server"),
     (says(b""), "closes the connection"), (silent, "does not answer when greeted in TLS")],
)  # fmt: skip
def test_tls_is_set_and_the_peer_speaks_without(own: TlsSection, talk: Talk, words: str) -> None:
    with port_that(talk) as port:
        told = secure("127.0.0.1", port, ("127.0.0.1",), own)
    assert not told.ok and words in told.found, told


# the association


@pytest.mark.parametrize(
    ("source", "reason", "result", "words"),
    [(1, 7, 1, "the peer is not PACS: correct its AE title here"),
     (1, 3, 1, f"the peer does not know {OWN}"), (1, 1, 1, "the peer gives no reason"),
     (1, 2, 1, "no DICOM application of today"), (2, 2, 1, "another version of the protocol"),
     (2, 1, 1, "the peer gives no reason"), (3, 1, 2, "the peer is busy"),
     (3, 2, 2, "as many associations as it allows")],
)  # fmt: skip
def test_each_rejection_of_an_association_is_explained(
    source: int, reason: int, result: int, words: str
) -> None:
    with port_that(says(rejected(source, reason, result))) as port:
        told = echo(Address("PACS", "127.0.0.1", port), calling_ae=OWN)
    assert not told.ok and not told.associated
    assert told.advice.startswith(words) or words in told.advice, told


@pytest.mark.parametrize(
    ("talk", "words"),
    [(says(b"\x15\x03\x03\x00\x02\x02\x28"), "the port speaks TLS: tick TLS"),
     (says(b"HTTP/1.0 400\r\n"), "a web server listens"),
     (says(b"SSH-2.0-x\r\n"), "neither DICOM nor TLS"), (says(b""), "does not speak DICOM"),
     (says(A_ABORT), "ends what this node asks")],
)  # fmt: skip
def test_what_listens_instead_of_the_peer_is_named(talk: Talk, words: str) -> None:
    with port_that(talk) as port:
        told = advice("cannot connect", "127.0.0.1", port, "PACS", OWN)
    assert words in told


def test_a_tls_port_spoken_to_in_the_clear(authority: Authority) -> None:
    context = server_side(authority, authority.issue("pacs", "127.0.0.1"))
    with port_that(over_tls(context)) as port:
        told = echo(Address("PACS", "127.0.0.1", port), calling_ae=OWN)
    assert "the port speaks TLS: tick TLS for this peer" in told.advice, told
