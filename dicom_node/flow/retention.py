"""Deleting what the rules of `[retention]` let go, in the background and in small steps.

The decision is `dicom_node.domain.retention`; the order that a crash cannot break is
`dicom_node.store.retention`. One process at a time does this, whatever the host.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.clock import Clock, WallWatch
from dicom_node.config import NodeConfig
from dicom_node.crash_points import fault
from dicom_node.domain.retention import DAY_S, GO_WORDS, Go, Rules, Sort, judge
from dicom_node.durable_trees import remove_files
from dicom_node.errors import NodeError
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.health import Disk, disk_of
from dicom_node.flow.peers import all_peers
from dicom_node.logs import pseudonym
from dicom_node.store.retention_rows import Kept, Removed, RetentionRules, StudyPlace
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

TURN = "retention"
"""Name of the turn; a backup takes it too, so that nothing goes while it copies."""
LEASE_S = 600.0
FIRST_S = 120.0
"""After a start, and after the clock was set, nothing goes for so long: see that it is right."""
CLOCK_SET_S = 3600.0
SWEEP_S = 900.0
"""From one look at everything to the next; while the disk is short of room it is the tick."""
TICK_S = 15.0
PAGE = 50
_GIB = 2**30


@dataclass(frozen=True)
class Pressure:
    """Whether the disk is short of room, by the floor or by the ceiling."""

    floor_bytes: int
    ceiling_bytes: int
    free_bytes: int
    stored_bytes: int

    @property
    def pressed(self) -> bool:
        """Whether the oldest images go earlier than their age."""
        over = 0 < self.ceiling_bytes < self.stored_bytes
        return over or self.free_bytes < self.floor_bytes

    @property
    def words(self) -> str:
        """What is short, in plain words; empty where nothing is."""
        if self.free_bytes < self.floor_bytes:
            return (
                f"{self.free_bytes / _GIB:.1f} GiB free, below the floor of "
                f"{self.floor_bytes / _GIB:.1f} GiB"
            )
        if self.pressed:
            return (
                f"{self.stored_bytes / _GIB:.1f} GiB of images, above the ceiling of "
                f"{self.ceiling_bytes / _GIB:.1f} GiB"
            )
        return ""


def rules_of(store: Store, config: NodeConfig) -> RetentionRules:
    """Return the configured rules, and the destinations that may still wait for a result."""
    section = config.retention
    days = {
        Sort.ANALYSED: section.images_days, Sort.UNANALYSED: section.unanalysed_days,
        Sort.NOT_OURS: section.not_ours_days, Sort.HELD: section.held_days,
        Sort.CANARY: section.canary_days,
    }  # fmt: skip
    peers = (entry.peer for entry in all_peers(store, config))
    awaited = frozenset(peer.name for peer in peers if peer.receives_results)
    return RetentionRules(Rules(days, section.results_days, section.least_days), awaited)


def pressure_of(store: Store, config: NodeConfig, disk: Disk) -> Pressure:
    """Compare the disk with floor and ceiling."""
    section = config.retention
    floor = min(section.floor_gib * _GIB, section.floor_percent / 100 * disk.total_bytes)
    return Pressure(
        int(floor), int(section.ceiling_gib * _GIB), disk.free_bytes, store.stored_bytes()
    )


@dataclass(frozen=True)
class Planned:
    """What would go of a study, and why in words."""

    kept: Kept
    sort: Sort | None
    images: bool
    results: bool
    why: str

    @property
    def freed_bytes(self) -> int:
        """How much room that makes."""
        return self.images * self.kept.image_bytes + self.results * self.kept.result_bytes


def plan(store: Store, config: NodeConfig, clock: Clock) -> Iterator[Planned]:
    """Yield what would go now, the oldest first; nothing is changed.

    Where the disk is short of room, as much goes early as makes up for it.
    """
    rules = rules_of(store, config)
    pressure = pressure_of(store, config, disk_of(config.node.data_dir))
    needed = _needed(pressure)
    now_s = clock.now_s()
    for page in _pages(store, rules, now_s, pressed=needed > 0):
        for kept in store.kept([place.study_id for place in page], rules.awaited):
            verdict = judge(kept.facts, rules.rules, now_s, pressed=needed > 0)
            goes = [one for one in (verdict.images, verdict.results) if isinstance(one, Go)]
            if goes:
                images, results = (isinstance(one, Go) for one in (verdict.images, verdict.results))
                found = Planned(kept, verdict.sort, images, results, GO_WORDS[goes[0]])
                needed -= found.freed_bytes
                yield found


def _needed(pressure: Pressure) -> int:
    over = pressure.stored_bytes - pressure.ceiling_bytes if pressure.ceiling_bytes else 0
    return max(pressure.floor_bytes - pressure.free_bytes, over, 0)


def _pages(
    store: Store, rules: RetentionRules, now_s: float, *, pressed: bool
) -> Iterator[list[StudyPlace]]:
    """Yield studies that may be old enough for something, oldest first: images, then results."""
    days = [one for one in rules.rules.images.values() if one > 0]
    if pressed:
        days.append(rules.rules.least)
    ages = {True: min(days, default=None), False: rules.rules.results or None}
    for images, age in ages.items():
        if age is None:
            continue
        after: StudyPlace | None = None
        while page := store.retention_page(
            images=images, before_s=now_s - age * DAY_S, after=after, limit=PAGE
        ):
            yield page
            after = page[-1]


class Retention:
    """Deletes what may go. ``run`` goes on until told to stop; ``sweep`` looks at everything once.

    Args:
        store: the database.
        config: data folder and rules.
        clock: the time.
        audit: takes a record of each study that goes.
        owner: who takes the turn; None: this process.
    """

    def __init__(
        self, store: Store, config: NodeConfig, clock: Clock, audit: AuditTrail,
        owner: str | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._config = config
        self._clock = clock
        self._audit = audit
        self._owner = owner or f"{platform.node()}:{os.getpid()}"
        self._wall = WallWatch(clock)
        self._next_s = clock.monotonic_s() + FIRST_S
        self._turn_until_s = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Delete what is due until ``stop`` is set."""
        if not self._config.retention.enabled:
            return
        while not stop.wait(TICK_S):
            try:
                self.round(stop)
            except Exception:  # nobody would start this thread again
                log.exception("retention failed; it is tried again")
        self.end()

    def round(self, stop: threading.Event) -> None:
        """Do what is due now, where it is this process's turn."""
        now_s = self._clock.monotonic_s()
        if self._wall.was_set():
            log.warning("the clock was set: nothing is deleted for a while")
            self._next_s = now_s + CLOCK_SET_S
        if now_s < self._next_s or not self.turn():
            return
        self.sweep(stop)
        self.end()
        self._next_s = self._clock.monotonic_s() + (TICK_S if self._pressed() else SWEEP_S)

    def turn(self) -> bool:
        """Take the turn, or keep it; False where another process has it."""
        now_s = self._clock.monotonic_s()
        if now_s < self._turn_until_s:
            return True
        if not self._store.lease(TURN, self._owner, LEASE_S):
            return False
        self._turn_until_s = now_s + LEASE_S / 2
        return True

    def end(self) -> None:
        """Let another process have the turn."""
        self._turn_until_s = float("-inf")
        try:
            self._store.end_lease(TURN, self._owner)
        except NodeError:
            log.exception("the turn ends by itself")

    def sweep(self, stop: threading.Event | None = None) -> list[Removed]:
        """Finish what was begun, then delete everything that may go; returns what went."""
        self.finish()
        rules = rules_of(self._store, self._config)
        gone: list[Removed] = []
        pressed = self._pressed()
        for page in _pages(self._store, rules, self._clock.now_s(), pressed=pressed):
            if not self.turn():
                break
            for study_id in self._due(page, rules, pressed=pressed):
                if stop is not None and stop.is_set():
                    return gone
                if (removed := self._remove(study_id, rules, pressed=pressed)) is not None:
                    gone.append(removed)
                    pressed = pressed and self._pressed()
        return gone

    def _due(
        self, page: Sequence[StudyPlace], rules: RetentionRules, *, pressed: bool
    ) -> list[int]:
        """Return the studies of a page of which something may go; decided anew under their lock."""
        now_s = self._clock.now_s()
        ids = [place.study_id for place in page]
        found = []
        for kept in self._store.kept(ids, rules.awaited, files=False):
            verdict = judge(kept.facts, rules.rules, now_s, pressed=pressed)
            if isinstance(verdict.images, Go) or isinstance(verdict.results, Go):
                found.append(kept.study_id)
        return found

    def _pressed(self) -> bool:
        disk = disk_of(self._config.node.data_dir)
        return pressure_of(self._store, self._config, disk).pressed

    def _remove(self, study_id: int, rules: RetentionRules, *, pressed: bool) -> Removed | None:
        removed = self._store.remove_due(study_id, rules, pressed=pressed)
        if removed is None:
            return None
        fault("removal-marked")
        counted = {**removed.images}
        for sop_class, number in removed.results.items():
            counted[sop_class] = counted.get(sop_class, 0) + number
        self._audit.deleted(removed.study_uid, counted, f"retention: {removed.why}")
        log.info(
            "removed",
            extra={
                "study": pseudonym(removed.study_uid), "images": sum(removed.images.values()),
                "results": sum(removed.results.values()), "bytes": removed.freed_bytes,
                "why": removed.why,
            },
        )  # fmt: skip
        self._delete(study_id)
        return removed

    def finish(self) -> int:
        """Delete files that were marked and not deleted; returns how many."""
        done = 0
        while found := self._store.studies_with_removals():
            for study_id in found:
                done += self._delete(study_id)
        return done

    def _delete(self, study_id: int) -> int:
        done = 0
        while deleted := self._store.delete_removed(study_id, self._unlink):
            fault("removal-forgotten")
            done += deleted
        return done

    def _unlink(self, paths: Sequence[str]) -> None:
        data_dir = self._config.node.data_dir
        remove_files([data_dir / Path(path) for path in paths])
        fault("files-removed")
