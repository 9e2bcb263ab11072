"""The sample configuration of `deploy/` is one that the node takes."""

from __future__ import annotations

from dicom_node.config import Plaintext, load_config
from tests.conftest import ROOT


def test_the_sample_configuration_is_valid() -> None:
    config = load_config(ROOT / "deploy" / "sample.toml")
    assert [peer.name for peer in config.peers] == ["pacs"]
    assert config.peers[0].receives_results
    assert config.peers[0].tls and config.tls.enabled
    assert config.node.plaintext is Plaintext.OFF
