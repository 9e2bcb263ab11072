"""The store: one object through which everything else reads and changes the database."""

from __future__ import annotations

from dicom_node.clock import Clock
from dicom_node.errors import StoreError
from dicom_node.store.acceptance import AcceptanceStore
from dicom_node.store.accounts import AccountStore
from dicom_node.store.alarms import AlarmStore
from dicom_node.store.annotations import AnnotationStore
from dicom_node.store.audit import AuditStore
from dicom_node.store.canaries import CanaryStore
from dicom_node.store.claims import ClaimStore
from dicom_node.store.confirmations import ConfirmationStore
from dicom_node.store.deliveries import DeliveryStore
from dicom_node.store.engine import HEAD, migrate, open_engine, schema_version
from dicom_node.store.instances import InstanceStore
from dicom_node.store.observations import ObservationStore
from dicom_node.store.overview import OverviewStore
from dicom_node.store.peers import PeerStore
from dicom_node.store.pledges import PledgeStore
from dicom_node.store.probes import ProbeStore
from dicom_node.store.processes import ProcessStore
from dicom_node.store.rebuild import RebuildStore
from dicom_node.store.releases import ReleaseStore
from dicom_node.store.reports import ReportStore
from dicom_node.store.retention import RetentionStore
from dicom_node.store.revisions import RevisionStore
from dicom_node.store.schedule import ScheduleStore
from dicom_node.store.snapshot import SnapshotStore
from dicom_node.store.turns import TurnStore
from dicom_node.store.watching import WatchStore

__all__ = ["Store"]


class Store(
    InstanceStore,
    RevisionStore,
    ClaimStore,
    DeliveryStore,
    AcceptanceStore,
    ConfirmationStore,
    PledgeStore,
    AuditStore,
    PeerStore,
    ReleaseStore,
    ReportStore,
    RebuildStore,
    ScheduleStore,
    AnnotationStore,
    ObservationStore,
    AccountStore,
    OverviewStore,
    TurnStore,
    ProbeStore,
    ProcessStore,
    AlarmStore,
    CanaryStore,
    WatchStore,
    RetentionStore,
    SnapshotStore,
):
    """The database of a node; safe for many threads, and for many processes beside each other.

    Args:
        url: SQLAlchemy URL (SQLite file or PostgreSQL).
        clock: the time.
        create: make or migrate the schema; without it a database of another version is refused.
        host: name of this part of the node; None: `dicom_node.instance`.

    Raises:
        StoreError: the database cannot be used.
    """

    def __init__(
        self, url: str, *, clock: Clock, create: bool = False, host: str | None = None
    ) -> None:
        super().__init__(open_engine(url), clock, host)
        try:
            if create:
                migrate(self._engine)
            elif (found := schema_version(self._engine)) != HEAD:
                raise StoreError(
                    f"the database has schema {found or 'none'}, this program needs {HEAD}",
                    "bring it up to date: dicom-node migrate",
                )
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def version_of(url: str) -> str | None:
    """Return the version of the schema of a database; None where there is none.

    Raises:
        StoreError: the database cannot be used.
    """
    engine = open_engine(url)
    try:
        return schema_version(engine)
    finally:
        engine.dispose()
