"""TLS with programs of others: DCMTK as sender and destination, OpenSSL as everything else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig, Plaintext
from dicom_node.flow.ingest import Ingest
from dicom_node.net.limits import ServerLimits
from dicom_node.net.outcomes import Outcome
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import echo, outgoing, send
from dicom_node.net.standin import dataset_bytes
from dicom_node.store.store import Store
from tests.interop.conftest import NODE_AE
from tests.interop.peers import StoreScp, require, run
from tests.net.certificates import Authority, Issued
from tests.net.conftest import wait_for, write_instance

pytestmark = pytest.mark.interop


@dataclass
class TlsNode:
    """A node with a TLS port alone, and certificates for it and a peer."""

    port: int
    data_dir: Path
    store: Store
    ingest: Ingest
    authority: Authority
    own: Issued
    modality: Issued

    def options(
        self, issued: Issued | None = None, authority: Authority | None = None
    ) -> list[str]:
        """DCMTK's options for a client that shows a certificate."""
        issued, authority = issued or self.modality, authority or self.authority
        return ["+tls", str(issued.key), str(issued.certificate), "+cf", str(authority.file)]

    def s_client(self, *options: object, say: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """openssl s_client against the port."""
        command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{self.port}"]
        return subprocess.run(
            [*command, "-CAfile", str(self.authority.file), *map(str, options)],
            input=say, capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    def refusal(self) -> str:
        wait_for(self.store.refusals)
        return str(self.store.refusals()[0]["reason"])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TlsNode]:
    authority = Authority(tmp_path / "ca")
    own, modality = authority.issue("node", "127.0.0.1"), authority.issue("mr1", "mr1.example")
    peers = tuple(
        PeerConfig.model_validate(
            {"name": ae.lower(), "ae_title": ae, "host": "127.0.0.1", "tls": True,
             "certificate": [name]}
        )
        for ae, name in (("MR1", "mr1.example"), ("MR2", "mr2.example"))
    )  # fmt: skip
    section = NodeSection(ae_title=NODE_AE, plaintext=Plaintext.OFF, data_dir=tmp_path / "node")
    section.data_dir.mkdir()
    tls = authority.section(own, enabled=True, port=0)
    config = NodeConfig(node=section, peers=peers, tls=tls)
    clock = SystemClock()
    store = Store(config.database_url, clock=clock, create=True)
    ingest = Ingest(store, section.data_dir, clock)
    ingest.start()
    receiver = Receiver(config, store, ingest, clock, ServerLimits(handshake_s=1.0))
    yield TlsNode(receiver.start(), section.data_dir, store, ingest, authority, own, modality)
    receiver.stop(drain_s=2)
    ingest.stop()
    store.close()


def test_echoscu(node: TlsNode) -> None:
    done = run("echoscu", *node.options(), "-aet", "MR1", "-aec", NODE_AE, "127.0.0.1", node.port)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_storescu_in_each_profile(node: TlsNode, tmp_path: Path, profile: str) -> None:
    require("storescu")
    files = [write_instance(tmp_path, kilobytes=kb) for kb in (8, 900)]
    done = run(
        "storescu", *node.options(), profile, "-xe", "-aet", "MR1", "-aec", NODE_AE,
        "127.0.0.1", node.port, *files,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    node.ingest.file_pending()
    rows = {row.sop_instance_uid: row for row in node.store.headers_of("1.2.3.4")}
    assert set(rows) == {file.stem for file in files}
    for file in files:
        assert dataset_bytes(node.data_dir / rows[file.stem].path) == dataset_bytes(file)


def test_echoscu_as_another(node: TlsNode) -> None:
    done = run(
        "echoscu", "-v", *node.options(), "-aet", "MR2", "-aec", NODE_AE, "127.0.0.1", node.port
    )
    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stdout + done.stderr
    assert node.refusal() == "certificate_not_of_peer"


def test_echoscu_without_tls_and_without_a_certificate(node: TlsNode) -> None:
    to = ("-aet", "MR1", "-aec", NODE_AE, "127.0.0.1", node.port)
    assert run("echoscu", *to).returncode != 0
    wait_for(lambda: node.refusal() == "tls_failed: not TLS")
    anonymous = ("+tla", "+cf", node.authority.file)
    assert run("echoscu", *anonymous, *to).returncode != 0
    wait_for(lambda: node.refusal() == "tls_failed: no certificate")


def test_echoscu_of_another_authority(node: TlsNode, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "Other CA").issue("mr1", "mr1.example")
    options = node.options(other)
    done = run("echoscu", *options, "-aet", "MR1", "-aec", NODE_AE, "127.0.0.1", node.port)
    assert done.returncode != 0
    assert node.refusal().startswith("tls_failed: certificate not accepted")


# OpenSSL


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_with_a_certificate(node: TlsNode, version: str) -> None:
    shown = ("-cert", node.modality.certificate, "-key", node.modality.key)
    done = node.s_client(version, *shown, "-verify_return_error")
    assert done.returncode == 0, done.stderr
    assert b"Verify return code: 0 (ok)" in done.stdout


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_s_client_with_an_old_version(node: TlsNode, version: str) -> None:
    shown = ("-cert", node.modality.certificate, "-key", node.modality.key)
    done = node.s_client(version, *shown, "-cipher", "ALL:@SECLEVEL=0")
    assert done.returncode != 0
    assert b"alert protocol version" in done.stderr
    assert node.refusal() == "tls_failed: TLS version too old"


@pytest.mark.parametrize("suite", ["AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA", "NULL-SHA256"])
def test_s_client_with_a_weak_suite(node: TlsNode, suite: str) -> None:
    done = node.s_client("-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
    assert done.returncode != 0
    assert node.refusal() == "tls_failed: no cipher suite in common"


def test_s_client_without_a_certificate(node: TlsNode) -> None:
    done = node.s_client("-tls1_2")
    assert done.returncode != 0
    assert node.refusal() == "tls_failed: no certificate"


def test_s_client_may_not_renegotiate(node: TlsNode) -> None:
    shown = ("-cert", node.modality.certificate, "-key", node.modality.key)
    done = node.s_client("-tls1_2", *shown, say=b"R\n")
    assert b"no renegotiation" in done.stderr or b"RENEGOTIATING" in done.stdout + done.stderr
    assert done.stdout.count(b"SSL handshake has read") == 1


def test_hanging_handshakes_hold_up_nobody(node: TlsNode) -> None:
    hanging = [
        subprocess.Popen(
            [require("openssl"), "s_client", "-connect", f"127.0.0.1:{node.port}", "-starttls",
             "ftp"],  # waits for a greeting that never comes, and sends nothing
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for _ in range(5)
    ]  # fmt: skip
    try:
        started = time.monotonic()
        to = ("-aet", "MR1", "-aec", NODE_AE, "127.0.0.1", node.port)
        assert run("echoscu", *node.options(), *to).returncode == 0
        assert time.monotonic() - started < 15, "a handshake may take 5 s, and there are five"
        for one in hanging:
            one.wait(60)  # the node has ended the connection
    finally:
        for one in hanging:
            one.kill()
            one.communicate()


# going out


@pytest.fixture
def secure_scp(tmp_path: Path) -> Iterator[tuple[StoreScp, Authority]]:
    """storescp with TLS that wants a certificate."""
    authority = Authority(tmp_path / "scp-ca")
    own = authority.issue("storescp", "127.0.0.1")
    scp = StoreScp(
        tmp_path / "storescp",
        "+tls", str(own.key), str(own.certificate), "+cf", str(authority.file), "-rc",
    )  # fmt: skip
    scp.tls = True
    yield scp, authority
    scp.stop()


def test_storescp_gets_the_stored_bytes(
    secure_scp: tuple[StoreScp, Authority], tmp_path: Path
) -> None:
    scp, authority = secure_scp
    own = authority.section(authority.issue("node", "node.example"))
    answer = echo(scp, calling_ae=NODE_AE, tls=own)
    assert answer.ok, answer.message
    file = write_instance(tmp_path, kilobytes=900)
    (status,) = send(scp, [outgoing(file)], calling_ae=NODE_AE, tls=own)
    assert status.outcome is Outcome.SENT, status.detail
    (stored,) = scp.stored().values()
    assert dataset_bytes(stored) == dataset_bytes(file)


def test_storescp_refuses_a_certificate_of_another_authority(
    secure_scp: tuple[StoreScp, Authority], tmp_path: Path
) -> None:
    """With TLS 1.3 the refusal comes after our handshake; it is told all the same."""
    scp, authority = secure_scp
    other = Authority(tmp_path / "other", "Other CA")
    own = other.section(other.issue("node"), ca=str(authority.file))
    answer = echo(scp, calling_ae=NODE_AE, tls=own)
    assert not answer.ok
    assert "no TLS connection" in answer.message
