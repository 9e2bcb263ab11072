"""Peers of the database, refused senders, and who this node is."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.config import PeerConfig
from dicom_node.errors import ConfigError
from dicom_node.store.base import Database
from dicom_node.store.counters import REFUSED
from dicom_node.store.counters import count as add_to
from dicom_node.store.probe_schema import probes
from dicom_node.store.schema import acceptances, node, peers, refusals
from dicom_node.store.times import iso

MAX_REFUSALS = 1000
_TEXT = 64
_REASON = re.compile(r"^[a-z_]{1,40}$")


class PeerStore(Database):
    """Transactions about the neighbours of the node."""

    def peers(self) -> list[PeerConfig]:
        """Return the peers made by command line or console, by name."""
        with self._read() as db:
            rows = db.execute(select(peers).order_by(peers.c.name)).all()
        return [
            PeerConfig.model_validate(
                {
                    "name": row.name, "ae_title": row.ae_title, "host": row.host,
                    "port": row.port, "may_send": row.may_send,
                    "receives_results": row.receives_results,
                    "from": json.loads(row.sources_json), "objects": json.loads(row.objects_json),
                    "tls": row.tls, "certificate": json.loads(row.certificates_json),
                    "verify": row.verify,
                }
            )
            for row in rows
        ]  # fmt: skip

    def peer_add(self, peer: PeerConfig) -> None:
        """Add a peer.

        Raises:
            ConfigError: the name is taken.
        """
        values = {"name": peer.name, "created_at": self._clock.now_s(), **_columns(peer)}
        try:
            with self._engine.begin() as db:
                db.execute(insert(peers).values(**values))
        except IntegrityError:
            raise ConfigError(
                f"there is a peer '{peer.name}' already",
                "change it (peers edit), remove it, or choose another name",
            ) from None

    def peer_change(self, peer: PeerConfig) -> bool:
        """Change the peer of this name; False where there is none.

        What it takes is asked anew where it answers at another address from now on.
        """
        mine = peers.c.name == peer.name
        with self._write() as db:
            return db.execute(update(peers).where(mine).values(**_columns(peer))).rowcount == 1

    def peer_remove(self, name: str) -> bool:
        """Remove a peer; False where there is none of that name."""
        with self._write() as db:
            for known in (acceptances, probes):
                db.execute(delete(known).where(known.c.peer == name))
            return db.execute(delete(peers).where(peers.c.name == name)).rowcount == 1

    def record_refusal(
        self, calling_ae: str, called_ae: str, address: str, reason: str, count: int = 1
    ) -> None:
        """Count a refused requester; only the last thousand different ones are kept (G5)."""
        who = {
            "calling_ae": _printable(calling_ae, _TEXT), "called_ae": _printable(called_ae, _TEXT),
            "address": _printable(address, _TEXT), "reason": _printable(reason, 255),
        }  # fmt: skip
        now_s = self._clock.now_s()
        same = [refusals.c[name] == value for name, value in who.items()]
        again = update(refusals).where(*same).values(count=refusals.c.count + count, last_at=now_s)
        with self._write() as db:
            add_to(db, REFUSED, _kind(reason), count)
            if db.execute(again).rowcount:
                return
            try:
                with db.begin_nested():
                    first = insert(refusals).values(count=count, first_at=now_s, last_at=now_s)
                    db.execute(first.values(**who))
            except IntegrityError:
                db.execute(again)
            kept = select(func.count()).select_from(refusals)
            surplus = db.execute(kept).scalar_one() - MAX_REFUSALS
            if surplus > 0:
                oldest = select(refusals.c.id).order_by(refusals.c.last_at, refusals.c.id)
                gone = list(db.execute(oldest.limit(surplus)).scalars())
                db.execute(delete(refusals).where(refusals.c.id.in_(gone)))

    def refusals(self, limit: int = 100) -> list[dict[str, Any]]:
        """Refused requesters, the latest first."""
        newest = select(refusals).order_by(refusals.c.last_at.desc(), refusals.c.id.desc())
        with self._read() as db:
            rows = db.execute(newest.limit(limit)).all()
        return [_refusal(row) for row in rows]

    def refusal(self, refusal_id: int) -> dict[str, Any] | None:
        """Return one refused requester."""
        with self._read() as db:
            row = db.execute(select(refusals).where(refusals.c.id == refusal_id)).one_or_none()
        return None if row is None else _refusal(row)

    def refusal_forget(self, refusal_id: int) -> bool:
        """Forget a refused requester; False where it is not known."""
        with self._write() as db:
            mine = delete(refusals).where(refusals.c.id == refusal_id)
            return db.execute(mine).rowcount == 1

    def installation_id(self) -> str:
        """Return the name of this installation, made once; it stands in every result object."""
        with self._read() as db:
            known = db.execute(select(node.c.installation_id)).scalar_one_or_none()
        if known is not None:
            return str(known)
        return self.set_installation_id(uuid.uuid4().hex)

    def set_installation_id(self, wanted: str) -> str:
        """Name the installation unless it has a name; returns the name it has."""
        with self._write() as db:
            try:
                with db.begin_nested():
                    db.execute(
                        insert(node).values(
                            id=1, installation_id=wanted, created_at=self._clock.now_s()
                        )
                    )
            except IntegrityError:
                pass  # another process was first
            return str(db.execute(select(node.c.installation_id)).scalar_one())


def _columns(peer: PeerConfig) -> dict[str, Any]:
    return {
        "ae_title": peer.ae_title, "host": peer.host, "port": peer.port,
        "may_send": peer.may_send, "receives_results": peer.receives_results,
        "sources_json": json.dumps(peer.from_), "objects_json": json.dumps(peer.objects),
        "tls": peer.tls, "certificates_json": json.dumps(peer.certificate),
        "verify": peer.verify,
    }  # fmt: skip


def _refusal(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id, "calling_ae": row.calling_ae, "called_ae": row.called_ae,
        "address": row.address, "reason": row.reason, "count": row.count,
        "first_at": iso(row.first_at), "last_at": iso(row.last_at),
    }  # fmt: skip


def _kind(reason: str) -> str:
    """Return the word that a reason begins with; there are a dozen of them."""
    word = reason.partition(":")[0].strip()
    return word if _REASON.match(word) else "other"


def _printable(text: str, length: int) -> str:
    """Make what a stranger sent safe to store and show."""
    return "".join(c if c.isprintable() else "?" for c in text)[:length]
