"""Telling people: a signed POST to a webhook, or a mail. Bounded in time; TLS is verified."""

from __future__ import annotations

import hmac
import http.client
import platform
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlsplit

from dicom_node.config import AlarmsSection, MailSecurity
from dicom_node.errors import DeliveryError, WrongUseError
from dicom_node.net.pem import verifying_context

TIMEOUT_S = 10.0
"""For a connection, and for each answer on it."""
DEADLINE_S = 30.0
"""For all of it: who answers byte by byte is cut off."""
SIGNATURE = "X-Node-Signature"
TIMESTAMP = "X-Node-Timestamp"
_SECRET_BYTES = 4096
_HOST = "".join(c for c in platform.node() if c.isalnum() or c in ".-") or "localhost"


def signature(secret: bytes, at_s: int, body: bytes) -> str:
    """Return what the header says: HMAC-SHA256 over the time, a point and the body."""
    return "sha256=" + hmac.new(secret, f"{at_s}.".encode() + body, "sha256").hexdigest()


def post(settings: AlarmsSection, body: bytes, at_s: float) -> None:
    """POST a message to the webhook. Redirects are not followed.

    Raises:
        WrongUseError: the secret or the authorities cannot be read.
        DeliveryError: it was not taken, and why.
    """
    url = urlsplit(settings.webhook_url)
    secret = read_secret(settings.webhook_secret_file, "alarms.webhook_secret_file")
    headers = {
        "Content-Type": "application/json", "User-Agent": "prostate-dicom-node",
        TIMESTAMP: str(int(at_s)), SIGNATURE: signature(secret, int(at_s), body),
    }  # fmt: skip
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(
            url.hostname or "", url.port, timeout=TIMEOUT_S, context=verifying_context(settings.ca)
        )
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_S)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    with _bounded("the webhook", lambda: connection.sock):
        try:
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
    if not 200 <= status < 300:
        told = "; redirects are not followed" if 300 <= status < 400 else ""
        raise DeliveryError(f"the webhook answered {status}{told}", "see alarms.webhook_url")


def send_mail(settings: AlarmsSection, message: EmailMessage) -> None:
    """Send a mail to everybody in ``alarms.mail_to``.

    Raises:
        WrongUseError: the password or the authorities cannot be read.
        DeliveryError: it was not taken, and why.
    """
    password = ""
    if settings.mail_user:
        secret = read_secret(settings.mail_password_file, "alarms.mail_password_file")
        password = secret.decode(errors="replace")
    security = settings.mail_security
    context = None if security is MailSecurity.OFF else verifying_context(settings.ca)
    server: smtplib.SMTP
    if security is MailSecurity.TLS:
        server = smtplib.SMTP_SSL(local_hostname=_HOST, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(local_hostname=_HOST, timeout=TIMEOUT_S)
    server._host = settings.mail_host  # type: ignore[attr-defined]  # the name that TLS checks
    with _bounded("the mail server", lambda: server.sock):
        try:
            server.connect(settings.mail_host, settings.mail_port)
            if security is MailSecurity.STARTTLS:
                server.starttls(context=context)  # fails where it is not offered
            if settings.mail_user:
                server.login(settings.mail_user, password)
            server.send_message(message, settings.mail_from, list(settings.mail_to))
        finally:
            server.close()


def read_secret(file: str, setting: str) -> bytes:
    """Return the secret in a file, without the line break at its end.

    Raises:
        WrongUseError: it cannot be read, or is empty.
    """
    try:
        found = Path(file).read_bytes()[:_SECRET_BYTES].strip()
    except OSError as error:
        raise WrongUseError(
            f"{setting}: cannot read {file} ({error.strerror})", "check the path and its rights"
        ) from None
    if not found:
        raise WrongUseError(f"{setting}: {file} is empty", "put the secret there")
    return found


@contextmanager
def _bounded(what: str, of: Callable[[], socket.socket | None]) -> Iterator[None]:
    """End a conversation that lasts too long, and say in plain words what went wrong."""
    cut = threading.Event()

    def end() -> None:
        cut.set()
        connection = of()
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it ended by itself

    timer = threading.Timer(DEADLINE_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, smtplib.SMTPException, http.client.HTTPException) as error:
        if isinstance(error, WrongUseError):
            raise
        told = "it did not answer in time" if cut.is_set() else _words(error)
        raise DeliveryError(f"{what}: {told}", "see docs/monitoring.md") from None
    finally:
        timer.cancel()
        timer.join()


def _words(error: Exception) -> str:
    """Say what went wrong; nothing in it that the other side wrote but its number."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return "it refused the login"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "it hung up"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "it offers no STARTTLS, or no login"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answered {error.smtp_code}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "it refused every recipient"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"no TLS ({error.reason or type(error).__name__})"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
