"""How long and how much the network may take. Every wait and every size has a bound."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of the port that receives."""

    pdu_bytes: int = 128 * 1024
    """maximum length of a P-DATA-TF PDU, told to the peer (PS3.8 D.1) and enforced"""
    pdu_slack_bytes: int = 4096
    """tolerated beyond it: some senders count the PDU header"""
    request_bytes: int = 256 * 1024
    """longest PDU before the association stands: an A-ASSOCIATE-RQ with 128 contexts fits"""
    command_bytes: int = 64 * 1024
    """longest command set"""
    instance_bytes: int = 512 * _MIB
    """longest data set of one instance"""
    held_bytes: int = 1024 * _MIB
    """data sets in memory, of all associations together"""
    waiting_messages: int = 2
    """requests of one association that wait for their answer; then nothing more is read from it"""
    connections: int = 128
    """TCP connections at a time"""
    connections_per_address: int = 64
    """TCP connections at a time from one address"""
    strangers: int = 16
    """TCP connections at a time from addresses of no peer; the rest is reserved for peers"""
    associations: int = 48
    """established associations at a time"""
    associations_per_peer: int = 32
    """of them with one calling AE title"""
    handshake_s: float = 5
    """for the TLS handshake"""
    associate_s: float = 10
    """from the connection (with TLS: from the handshake) to the end of negotiation"""
    pdu_s: float = 30
    """from the first to the last byte of a PDU"""
    message_s: float = 60
    """from the first to the last PDU of a message, beyond the time of its transfer"""
    least_bytes_per_s: int = 1024
    """a message that comes slower than this is given up"""
    idle_s: float = 60
    """silence on an established association"""
    backlog: int = 128
    """connections that wait in the kernel"""


@dataclass(frozen=True)
class SenderLimits:
    """Bounds of an association that sends."""

    connect_s: float = 10
    """for the TCP connection"""
    associate_s: float = 20
    """for the answer to the association request, and to the release"""
    answer_s: float = 60
    """for the answer to one C-STORE, beyond the time of the transfer"""
    stall_s: float = 30
    """without a byte taken by the peer"""
    least_bytes_per_s: int = 1024
    """a transfer slower than this is given up"""
    pdu_bytes: int = 128 * 1024
    """longest PDU taken from the peer"""

    def store_s(self, size_bytes: int) -> float:
        """Return how long one C-STORE of ``size_bytes`` may take, answer included."""
        return self.answer_s + size_bytes / self.least_bytes_per_s
