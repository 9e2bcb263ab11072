"""Security profiles of PS3.15 that the node supports."""

from __future__ import annotations

from dicom_node.config import NodeConfig
from dicom_node.conformance.document import Table
from dicom_node.conformance.network import listeners


def profiles(config: NodeConfig) -> Table:
    """Return the kinds of profile with what is supported of each."""
    rows = (
        ("Secure use", "none"),
        ("Secure transport connection", _transport(config)),
        ("User identity", "none"),
        ("Media storage security", "none"),
        ("Attribute confidentiality", "none"),
        ("Digital signatures", "none; those of received instances stay valid, as their bytes do"),
        ("Audit trail messages", _audit(config)),
    )
    return Table("security_profiles", "Security profiles", ("kind", "support"), rows)


def _transport(config: NodeConfig) -> str:
    ports = ", ".join(f"{one.address}:{one.port}" for one in listeners(config) if one.open)
    return (
        "none: plain DICOM; keep the ports on a network segment that only the peers reach "
        f"(open: {ports})"
    )


def _audit(_config: NodeConfig) -> str:
    return "none; logs name studies by pseudonym only"
