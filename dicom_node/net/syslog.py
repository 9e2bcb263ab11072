"""Audit records over TLS syslog: RFC 5424 messages in RFC 5425 frames, as PS3.15 A.6 asks."""

from __future__ import annotations

import fcntl
import platform
import socket
import ssl
import struct
import termios
from dataclasses import dataclass
from datetime import UTC, datetime

from dicom_node.clock import SystemClock
from dicom_node.config import AuditSection
from dicom_node.errors import ConfigError

# facility 10 (security), severity 5 (notice): PS3.15 A.6, RFC 5424 6.2.1
_PRIORITY = 10 * 8 + 5
_APP_NAME = "dicom-node"
_MESSAGE_ID = "DICOM+RFC3881"
_BOM = b"\xef\xbb\xbf"
_CONNECT_S = 10.0
_DRAIN_S = 10.0
_POLL_S = 0.01
_CLOCK = SystemClock()  # the kernel's queue empties in real time


@dataclass(frozen=True)
class Record:
    """What is forwarded: when it happened (epoch seconds), and its XML."""

    at_s: float
    xml: str


def frame(record: Record, host: str) -> bytes:
    """Return a record as one frame: length, space, syslog message (RFC 5425 4.3)."""
    at = datetime.fromtimestamp(record.at_s, UTC).isoformat(timespec="milliseconds")
    head = f"<{_PRIORITY}>1 {at.replace('+00:00', 'Z')} {host} {_APP_NAME} - {_MESSAGE_ID} - "
    message = head.encode() + _BOM + record.xml.encode()
    return str(len(message)).encode() + b" " + message


def tls_context(settings: AuditSection) -> ssl.SSLContext:
    """Return a context that checks the repository's certificate and name (BCP 195).

    Raises:
        ConfigError: a certificate or key cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=settings.syslog_ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.syslog_certificate:
            key = settings.syslog_key or None
            context.load_cert_chain(settings.syslog_certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"a certificate for forwarding the audit trail cannot be read: {error}",
            "check audit.syslog_ca, audit.syslog_certificate and audit.syslog_key",
        ) from None
    return context


class SyslogConnection:
    """One TLS connection to an audit record repository.

    Raises:
        OSError: no connection, or the certificate is not accepted (ssl.SSLError is one).
    """

    def __init__(self, settings: AuditSection) -> None:
        self._host = platform.node() or "-"
        plain = socket.create_connection(
            (settings.syslog_host, settings.syslog_port), timeout=_CONNECT_S
        )
        try:
            context = tls_context(settings)
            self._socket = context.wrap_socket(plain, server_hostname=settings.syslog_host)
        except BaseException:
            plain.close()
            raise

    def send(self, records: list[Record]) -> None:
        """Send records and wait until the other machine has all of their bytes.

        That its program read them cannot be known: syslog has no answer.

        Raises:
            OSError: the connection broke, or did not empty in time.
        """
        self.check()
        self._socket.settimeout(_DRAIN_S)
        self._socket.sendall(b"".join(frame(record, self._host) for record in records))
        deadline_s = _CLOCK.monotonic_s() + _DRAIN_S
        while self._unsent():
            if _CLOCK.monotonic_s() > deadline_s:
                raise TimeoutError("the audit record repository takes nothing")
            _CLOCK.sleep(_POLL_S)
        self.check()

    def _unsent(self) -> int:
        """Bytes that the other machine has not acknowledged (SIOCOUTQ)."""
        answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])

    def check(self) -> None:
        """See that the repository did not close the connection; it has nothing else to say.

        Raises:
            OSError: it did.
        """
        self._socket.settimeout(0)
        try:
            if not self._socket.recv(1):
                raise ConnectionError("the audit record repository closed the connection")
        except (ssl.SSLWantReadError, BlockingIOError):
            return

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
