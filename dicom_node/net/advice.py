"""Why a peer does not answer, in words that say where to look: name, address, port, AE title."""

from __future__ import annotations

from dicom_node.net.reach import Listener, connect, listener

# beginnings of A-ASSOCIATE-RJ reasons (PS3.8 9.3.4) as the library words them; what to do
_REJECTED = (
    ("Called AE title not recogni",
     "the peer is not {called}: correct its AE title here, upper and lower case differ"),
    ("Calling AE title not recogni",
     "the peer does not know {calling}: have this AE title and address added there"),
    ("Temporary congestion", "the peer is busy: try again later"),
    ("Local limit exceeded",
     "the peer is busy, it has as many associations as it allows: try again later, or have its "
     "limit for {calling} raised"),
    ("Application context name not supported",
     "what listens there is no DICOM application of today: check the port"),
    ("Protocol version not supported",
     "what listens there speaks another version of the protocol: check the port"),
    ("No reason given",
     "the peer gives no reason: see its log; most often it does not know {calling} or this "
     "address, or is not {called}"),
)  # fmt: skip
_LISTENS = {
    Listener.TLS: "the port speaks TLS: tick TLS for this peer, or give the port without TLS",
    Listener.WEB: "a web server listens on port {port}: give the DICOM port of the peer",
    Listener.OTHER: "what listens on port {port} speaks neither DICOM nor TLS: check the port",
    Listener.DICOM: (
        "the peer speaks DICOM but ends what this node asks: see its log; most often it does not "
        "know {calling} or this address"
    ),
}
_OPEN = (
    "port {port} is open, but what listens there does not speak DICOM in the way asked: check the "
    "port, and whether it wants TLS"
)


def advice(problem: str, host: str, port: int | None, ae_title: str, calling_ae: str) -> str:
    """Return what to check after an association did not come about; empty: nothing is known.

    Where nothing could be connected, the port is tried once more, to tell apart why.
    """
    words = {"called": ae_title, "calling": calling_ae, "port": port}
    for beginning, told in _REJECTED:
        if beginning in problem:
            return told.format_map(words)
    if problem.startswith("cannot connect") and port:
        reached = connect(host, port)
        if not reached.ok:
            return f"{reached.found}: {reached.advice}"
        return _LISTENS.get(listener(host, port), _OPEN).format_map(words)
    return ""
