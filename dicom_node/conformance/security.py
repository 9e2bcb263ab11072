"""Security profiles of PS3.15 that the node supports."""

from __future__ import annotations

from dicom_node.config import NodeConfig
from dicom_node.conformance.document import Table
from dicom_node.conformance.network import listeners


def profiles(config: NodeConfig) -> Table:
    """Return the kinds of profile with what is supported of each."""
    ports = ", ".join(f"{one.address}:{one.port}" for one in listeners(config) if one.open)
    rows = (
        ("Secure use", "none"),
        ("Secure transport connection", "none: plain DICOM; keep the ports on a network segment "
         f"that only the peers reach (open: {ports})"),
        ("User identity", "none"),
        ("Media storage security", "none"),
        ("Attribute confidentiality", "none"),
        ("Digital signatures", "none; those of received instances stay valid, as their bytes do"),
        ("Audit trail messages", "none; logs name studies by pseudonym only"),
    )  # fmt: skip
    return Table("security_profiles", "Security profiles", ("kind", "support"), rows)
