"""The text of a configuration that ``init`` writes, from the descriptions of the settings."""

from __future__ import annotations

from dicom_node.config import NodeConfig
from dicom_node.domain.profile import ResultKind

_PEER_EXAMPLE = """
# A peer: one block for each DICOM application. Peers can also be added with
# `dicom-node peers add`; those live in the database and change without a restart.
# [[peers]]
# name = "pacs"
# ae_title = "PACS"
# host = "127.0.0.1"
# port = 4242                      # needed only where it receives
# may_send = true                  # its C-STORE and C-ECHO are accepted
# receives_results = true          # results go there
# from = []                        # addresses it sends from (CIDR); empty: host
# objects = []                     # empty: the default set; else of %s
# tls = false                      # TLS alone, in both directions
# certificate = []                 # names or sha256:FINGERPRINT of its certificate; empty: host
# verify = "auto"                  # how it confirms that it keeps results: auto (as it offers),
#                                  # commitment, query, off
"""


def commented_default() -> str:
    """Return every setting with its default and meaning, as TOML."""
    lines = ["# Configuration of the prostate MRI DICOM node. Unknown keys are errors.", ""]
    default = NodeConfig()
    for name in NodeConfig.model_fields:
        if name == "peers":
            continue
        lines.append(f"[{name}]")
        for key, info in type(getattr(default, name)).model_fields.items():
            setting = f"{key} = {_toml(info.get_default(call_default_factory=True))}"
            lines.append(f"{setting:<32} # {info.description}")
        lines.append("")
    return "\n".join(lines) + _PEER_EXAMPLE.lstrip("\n") % ", ".join(ResultKind)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"'
