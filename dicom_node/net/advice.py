"""Why a peer does not answer, in words that say where to look: name, address, port, AE title."""

from __future__ import annotations

import errno
import socket

_CONNECT_S = 3.0
# beginnings of A-ASSOCIATE-RJ reasons (PS3.8 9.3.4) as the library words them
_CALLED, _CALLING = "Called AE title not recogni", "Calling AE title not recogni"
_BUSY = ("Temporary congestion", "Local limit exceeded")


def advice(problem: str, host: str, port: int | None, ae_title: str, calling_ae: str) -> str:
    """Return what to check after an association did not come about; empty: nothing is known.

    Where nothing could be connected, the port is tried once more, to tell apart why.
    """
    if _CALLED in problem:
        return f"the peer is not {ae_title}: correct its AE title here, upper and lower case differ"
    if _CALLING in problem:
        return f"the peer does not know {calling_ae}: have this AE title and address added there"
    if any(words in problem for words in _BUSY):
        return "the peer is busy: try again later"
    if problem.startswith("cannot connect") and port:
        return _reach(host, port)
    return ""


def _reach(host: str, port: int) -> str:
    """Try a TCP connection and say what stands in the way."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return (
                f"port {port} is open, but what listens there does not speak DICOM in the way "
                "asked: check the port, and whether it wants TLS"
            )
    except socket.gaierror:
        return f"the name {host} is not known: check it, or give the address"
    except ConnectionRefusedError:
        return f"{host} is there, but nothing listens on port {port}: check the port"
    except TimeoutError:
        return f"{host} does not answer on port {port}: check address, port and firewall"
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return f"there is no way to {host}: check address and network"
        return f"{host} cannot be reached ({error.strerror or type(error).__name__})"
