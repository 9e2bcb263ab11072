"""A node that speaks TLS alone, as an administrator runs it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dicom_node.net.sender import Address, echo
from tests.net.certificates import Authority
from tests.running import NodeUnderTest, pacs_peer, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def receiver_of(node: NodeUnderTest) -> int | None:
    """Process id of the receiver of a node."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"receiver" in words and str(node.config_file).encode() in words:
            return int(entry.name)
    return None


def test_tls_alone_and_the_same_port_after_the_receiver_died(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own, pacs = authority.issue("node", "127.0.0.1"), authority.issue("pacs", "127.0.0.1")
    table = (
        f'[tls]\nenabled = true\nport = 0\ncertificate = "{own.certificate}"\n'
        f'key = "{own.key}"\nca = "{authority.file}"\n'
    )
    peers = pacs_peer(9, receives=False)
    node = NodeUnderTest(tmp_path / "node", table + peers, web=False, node='plaintext = "off"\n')
    node.start()
    try:
        (line,) = [line for line in node.lines if "DICOM" in line]
        assert line.startswith("TLS DICOM PROSTATE_AI on 127.0.0.1:")
        to = Address("PROSTATE_AI", "127.0.0.1", int(line.rsplit(":", 1)[1]), tls=True)
        secure = authority.section(pacs)
        assert echo(to, calling_ae="PACS", tls=secure).ok
        first = receiver_of(node)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: receiver_of(node) not in (None, first), 90, "a new receiver")
        wait_until(lambda: echo(to, calling_ae="PACS", tls=secure).ok, 90, "the same port")
    finally:
        assert node.stop() == 0
