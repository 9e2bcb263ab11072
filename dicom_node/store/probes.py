"""What examinations of peers found out, and the storage commitments they asked for."""

from __future__ import annotations

import json

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.domain.probing import Profile
from dicom_node.store.base import Database
from dicom_node.store.probe_schema import probes
from dicom_node.store.schema import commitments


class ProbeStore(Database):
    """Transactions about examinations of peers."""

    def probe_keep(self, profile: Profile) -> None:
        """Keep the last examination of a peer, in place of the one before."""
        values = {
            "address": profile.address, "at": profile.at_s,
            "profile_json": json.dumps(profile.as_dict()),
        }  # fmt: skip
        again = update(probes).where(probes.c.peer == profile.peer).values(**values)
        with self._write() as db:
            if db.execute(again).rowcount:
                return
            try:
                with db.begin_nested():
                    db.execute(insert(probes).values(peer=profile.peer, **values))
            except IntegrityError:  # another process was first
                db.execute(again)

    def probe_of(self, peer: str, address: str) -> Profile | None:
        """Return the last examination of a peer at an address; None: there was none."""
        query = select(probes.c.profile_json).where(
            probes.c.peer == peer, probes.c.address == address
        )
        with self._read() as db:
            kept = db.execute(query).scalar_one_or_none()
        return None if kept is None else Profile.from_dict(json.loads(kept))

    def commitment_lost(self, transaction_uid: str) -> int | None:
        """Return how many instances a report on a transaction denied; None: no report yet."""
        query = select(commitments.c.lost).where(commitments.c.transaction_uid == transaction_uid)
        with self._read() as db:
            return db.execute(query).scalar_one_or_none()
