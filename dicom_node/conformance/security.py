"""Security profiles of PS3.15 that the node supports."""

from __future__ import annotations

from dicom_node.config import NodeConfig
from dicom_node.conformance.document import Table
from dicom_node.conformance.network import DICOM_PORTS, listeners
from dicom_node.net.tls import TLS12_SUITES


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


def secure_transport(config: NodeConfig) -> Table:
    """Return how TLS is spoken and whose certificates count."""
    suites = [suite for suite in TLS12_SUITES.split(":") if not suite.startswith("@")]
    rows = (
        ("Versions", "TLS 1.2, TLS 1.3"),
        ("Cipher suites of TLS 1.2", ", ".join(suites)),
        ("Certificates", "both sides show one; signed by an authority of `tls.ca`"),
        ("Binding", "it must bear a name of the peer, or have the fingerprint set for it"),
        ("Revocation", "list in `tls.crl`" if config.tls.crl else "not looked up: `tls.crl` empty"),
        ("Resumption, renegotiation", "none"),
        ("Plain DICOM", config.node.plaintext.value),
    )
    return Table("secure_transport", "Secure transport connection", ("item", "value"), rows)


def _transport(config: NodeConfig) -> str:
    found = [
        f"{'TLS' if one.section == 'tls' else 'plain'} on {one.address}:{one.port}"
        for one in listeners(config)
        if one.open and one.section in DICOM_PORTS
    ]
    return (
        "BCP 195 RFC 8996, 9325 (PS3.15 B.12), as acceptor and as requestor; in this "
        f"configuration: {', '.join(found) or 'no port'}"
    )


def _audit(config: NodeConfig) -> str:
    host = config.audit.syslog_host
    where = f"to {host}:{config.audit.syslog_port}" if host else "once `audit.syslog_host` is set"
    return f"PS3.15 A.5, kept as a chain; forwarded by syslog over TLS (RFC 5425) {where}"
