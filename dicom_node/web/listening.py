"""Where the console may be served: over HTTPS, or where nobody can read passwords on the way."""

from __future__ import annotations

import ssl

from dicom_node.config import NodeConfig, Plaintext
from dicom_node.errors import WrongUseError
from dicom_node.net.listening import is_loopback

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def check_listening(config: NodeConfig) -> None:
    """Check that the console may be served as configured.

    Raises:
        WrongUseError: it may not; says why and what to set.
    """
    web = config.web
    if web.certificate:
        web_context(config)
        return
    if web.plaintext is Plaintext.OFF:
        raise WrongUseError(
            "web.plaintext is off and there is no certificate", "set web.certificate and web.key"
        )
    if web.plaintext is Plaintext.LOOPBACK and not is_loopback(web.bind):
        raise WrongUseError(
            f"web.bind is {web.bind}, where passwords sent without TLS can be read on the way",
            'set web.certificate and web.key, or say web.plaintext = "network"',
        )


def web_context(config: NodeConfig) -> ssl.SSLContext:
    """Return the TLS of the console, from the files as they are now.

    Raises:
        WrongUseError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    try:
        context.load_cert_chain(config.web.certificate, config.web.key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise WrongUseError(
            f"web.certificate and web.key cannot be used: {error}",
            "check both files; the key has no passphrase",
        ) from None
    return context
