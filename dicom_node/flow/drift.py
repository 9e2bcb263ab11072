"""Watching scanners: judge after each study, tell log and audit trail what began and what ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.domain.drift import (
    FIGURES,
    DriftRule,
    Figure,
    Group,
    Values,
    agreement_values,
    alarms_after,
    compare_all,
    names_of,
)
from dicom_node.flow.audit import AuditTrail
from dicom_node.store.observation_rows import ObservedStudy, ScannerRow
from dicom_node.store.store import Store
from dicom_node.store.times import iso

Both = tuple[Sequence[ObservedStudy], Sequence[ObservedStudy]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScannerReport:
    """A scanner with its figures; ``alarms`` as they stand after this look.

    ``windows``: studies of reference and current window by group, for the plot.
    """

    row: ScannerRow
    release: str
    figures: tuple[Figure, ...]
    alarms: frozenset[str]
    windows: Mapping[Group, Both]

    @property
    def state(self) -> str:
        """``alarm``, ``steady``, or ``collecting`` while nothing can be judged."""
        if self.alarms:
            return "alarm"
        return "steady" if any(f.psi is not None for f in self.figures) else "collecting"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as the commands print them."""
        scanner = self.row.scanner
        return {
            "scanner": {
                "station": scanner.station, "manufacturer": scanner.manufacturer,
                "model": scanner.model, "field_strength_t": scanner.field_strength_t or None,
            },
            "state": self.state, "studies": self.row.studies, "release": self.release or None,
            "alarms": sorted(self.alarms),
            "windows": {group.value: _span(*both) for group, both in self.windows.items()},
            "figures": [
                {
                    "name": figure.name, "group": figure.group.value,
                    "words": FIGURES[figure.name][1],
                    "psi": _rounded(figure.psi), "limit": _rounded(figure.limit),
                    "alarm": figure.name in self.alarms,
                    "reference": {"count": figure.counts[0], **figure.before},
                    "current": {"count": figure.counts[1], **figure.now},
                }
                for figure in self.figures
            ],
        }  # fmt: skip


def rule_of(config: NodeConfig) -> DriftRule:
    """Return how this node judges drift."""
    drift = config.drift
    return DriftRule(
        drift.reference_studies, drift.current_studies, drift.least_studies, drift.psi,
        drift.significance,
    )  # fmt: skip


def look(store: Store, config: NodeConfig, row: ScannerRow) -> ScannerReport:
    """Compare the latest studies of a scanner with its reference.

    Outputs and agreement are compared between studies that one release analysed: the one that
    runs now. Another release begins their reference anew.
    """
    rule = rule_of(config)
    release = store.running_release(row)
    every = store.observed(row, rule.reference, rule.current)
    of_release = store.observed(row, rule.reference, rule.current, release)
    drawn = store.annotated(row, rule.reference, rule.current, release)
    of_release_too = ("out_of_distribution",)  # a distance to what this release was trained on
    by_scanner = [n for n in names_of(Group.INPUT, Group.OUTCOME) if n not in of_release_too]
    by_release = [*of_release_too, *names_of(Group.OUTPUT)]
    figures = (
        *compare_all(by_scanner, _values(every), rule),
        *compare_all(by_release, _values(of_release), rule),
        *compare_all(names_of(Group.AGREEMENT), _agreements(drawn), rule),
    )
    windows: dict[Group, Both] = {
        Group.INPUT: every, Group.OUTPUT: of_release, Group.OUTCOME: every, Group.AGREEMENT: drawn,
    }  # fmt: skip
    order = list(FIGURES)
    return ScannerReport(
        row, release, tuple(sorted(figures, key=lambda f: order.index(f.name))),
        alarms_after(figures, row.alarms), windows,
    )  # fmt: skip


def look_at_all(store: Store, config: NodeConfig) -> list[ScannerReport]:
    """Compare every scanner; nothing is written."""
    return [look(store, config, row) for row in store.scanners()]


def watch(store: Store, config: NodeConfig, clock: Clock, study_uid: str) -> None:
    """Look at the scanner of a study that was just finished; tell what changed.

    Raises:
        StoreError: the database refused.
    """
    row = store.scanner_of(study_uid)
    if row is None:
        return
    report = look(store, config, row)
    if report.alarms == row.alarms or not store.set_alarms(row, report.alarms):
        return
    trail = AuditTrail(store, config, clock)
    by_name = {figure.name: figure for figure in report.figures}
    for name in sorted(report.alarms ^ row.alarms):
        begins = name in report.alarms
        details = _details(by_name[name])
        scanner = str(row.scanner)
        log.warning(
            "drift alarm" if begins else "drift alarm ended",
            extra={"scanner": scanner, "figure": name, **details},
        )
        told = [(what, str(value)) for what, value in details.items()]
        trail.drift("alarm" if begins else "alarm ended", scanner, [("figure", name), *told])
    trail.flush()


def restart(store: Store, config: NodeConfig, clock: Clock, rows: Iterable[ScannerRow]) -> None:
    """Begin the references of scanners anew: what they send was changed on purpose."""
    trail = AuditTrail(store, config, clock)
    for row in rows:
        store.restart_reference(row)
        ended = " ".join(sorted(row.alarms)) or "none"
        trail.drift("reference restarted", str(row.scanner), [("alarms ended", ended)])
    trail.flush()


def _details(figure: Figure) -> dict[str, str]:
    return {
        "psi": f"{figure.psi:.3f}" if figure.psi is not None else "unknown",
        "limit": f"{figure.limit:.3f}" if figure.limit is not None else "unknown",
        "studies": "{} before, {} now".format(*figure.counts),
        "before": _told(figure.before), "now": _told(figure.now),
    }  # fmt: skip


def _told(summary: Any) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in summary.items())


def _values(both: Both) -> list[list[Values]]:
    return [[study.values for study in window] for window in both]


def _agreements(both: Both) -> list[list[Values]]:
    return [[agreement_values(study.findings) for study in window] for window in both]


def _span(reference: Sequence[ObservedStudy], current: Sequence[ObservedStudy]) -> dict[str, Any]:
    return {
        name: {
            "studies": len(window),
            "from": iso(window[0].at_s) if window else None,
            "to": iso(window[-1].at_s) if window else None,
        }
        for name, window in (("reference", reference), ("current", current))
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
