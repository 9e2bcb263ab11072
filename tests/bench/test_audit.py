"""What recording costs: CPU time per image, per record, and of a check of the chain."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection
from dicom_node.flow.audit import AuditTrail
from dicom_node.store.store import Store

pytestmark = pytest.mark.bench


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of this process while it works."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Association(threading.Thread):
    """Stands for an association that goes on."""

    is_released = True

    def is_alive(self) -> bool:
        return True


def test_cost_of_the_audit_trail(tmp_path: Path) -> None:
    config = NodeConfig(node=NodeSection(data_dir=tmp_path))
    store = Store(config.database_url, clock=SystemClock(), create=True)
    trail = AuditTrail(store, config, SystemClock())
    association, images, records = Association(), 100_000, 2000

    def receive() -> None:
        for _ in range(images):
            trail.received(association, ("PACS", "10.0.0.5"), "1.2.840", "1.2.3", "P1")

    def record() -> None:
        for _ in range(records):
            trail.peer_changed("added", "pacs", "PACS@10.0.0.5:104")
        trail.flush()

    per_image_us = cpu_s(receive) / images * 1e6
    per_record_ms = cpu_s(record) / records * 1e3
    per_check_us = cpu_s(store.audit_verify) / records * 1e6
    print(
        f"\naudit, CPU time: {per_image_us:.2f} us per image, {per_record_ms:.2f} ms per record in "
        f"batches, {per_check_us:.0f} us per record verified"
    )
    store.close()
