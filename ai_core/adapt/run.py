"""One adaptation from beginning to end, in one folder in which it goes on after a stop.

Nothing is written outside that folder, and nothing of a patient stands in the release.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ai_core.adapt.cases import SiteCase, open_site, source_of
from ai_core.adapt.console import bar
from ai_core.adapt.gate import GENERAL, SITE, Check, GateRefused, Pair, demand, enough, judge
from ai_core.adapt.keep import (
    REPORT_FILE,
    ROLES_FILE,
    claim,
    rated,
    read_roles,
    site_key,
)
from ai_core.adapt.order import Wanted, diverse_order, uncertainties, write_wanted
from ai_core.adapt.package import Adapted, write_site_release
from ai_core.adapt.plan import AdaptPlan
from ai_core.adapt.roles import Role, deal
from ai_core.adapt.score import sheet_of
from ai_core.adapt.stages import Annotated, calibrated, finetuned, profiled
from ai_core.errors import InputError
from ai_core.manifest import MANIFEST
from ai_core.picai.layout import open_archive
from ai_core.release import Release, load_release
from ai_core.resume import write_json
from ai_core.sim.dataset import build_cache
from ai_core.train.archive_source import ArchiveSource
from ai_core.train.fit import HeldOut
from ai_core.train.source import Source

logger = logging.getLogger(__name__)
#: Of the simulated cases every second one is measured and never rehearsed.
EVERY = 2
#: Anatomies of the general set and of the rehearsal: training draws from other seeds.
SIMULATED_SEED = 41_004_012


@dataclass(frozen=True)
class Request:
    """One adaptation. ``release`` None: the packaged one. ``simulated``: anatomies made before.

    ``roles``: file of an earlier adaptation at this site, so that its hold-out stays one.
    """

    release: Path | None
    data: Path
    out: Path
    plan: AdaptPlan = field(default_factory=AdaptPlan)
    device: str = "auto"
    name: str = "site"
    simulated: Path | None = None
    roles: Path | None = None


def adapt(request: Request) -> dict[str, Any]:
    """Adapt a release to a site; returns the report, which is written too.

    Its ``state``: ``accepted`` (a release was written) or ``annotate`` (too few annotations: only
    the list of the studies to annotate was).

    Raises:
        GateRefused: the adapted release is not good enough; the report says ``refused``.
        InputError: the data cannot be used, or the folder belongs to another adaptation.
        ReleaseError: the release cannot be used.
    """
    torch.set_num_threads(request.plan.threads)
    start = time.monotonic()
    parent = load_release(request.release, request.device)
    open_archive((request.data,))  # a slip of the pen claims no folder
    if request.roles is not None:
        read_roles(request.roles)
    # prepared images are in it: like the data folder of the node, not for others on the machine
    request.out.mkdir(mode=0o750, parents=True, exist_ok=True)
    claim(request.out, parent.info.sha256, request.data, request.plan)
    finished = _finished(request.out)
    if finished is not None:
        return finished
    logger.info("1 of 6: studies of the site")
    cases = open_site(request.data, parent, request.out / "cases")
    site = Site(request, parent, cases)
    report: dict[str, Any] = {"parent": parent.info.sha256, **site.counts()}
    try:
        report |= site.run()
    except GateRefused as refusal:
        report |= {"state": "refused", "message": str(refusal), **site.measured()}
        raise
    finally:
        if "state" in report:
            report["seconds"] = round(time.monotonic() - start, 1)
            write_json(request.out / REPORT_FILE, report)
    return report


def _finished(out: Path) -> dict[str, Any] | None:
    """Return the report of an adaptation whose release stands there, perhaps signed by now."""
    if not ((out / "release" / MANIFEST).exists() and (out / REPORT_FILE).exists()):
        return None  # also where it was stopped between the two
    report: dict[str, Any] = json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
    return report if report.get("state") == "accepted" else None


@dataclass(eq=False)
class Site:
    """A site in the middle of its adaptation."""

    request: Request
    parent: Release
    cases: Sequence[SiteCase]
    checks: tuple[Check, ...] = ()
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    @cached_property
    def usable(self) -> list[SiteCase]:
        """Studies that were prepared."""
        found = [case for case in self.cases if not case.problem]
        if not found:
            raise InputError(
                f"no study of {self.request.data} can be used: {self.cases[0].problem}",
                "Look at the first one.",
            )
        return found

    @property
    def work(self) -> Path:
        """Folder of intermediate results."""
        return self.request.out / "work"

    def counts(self) -> dict[str, Any]:
        """How many studies there are, and why some cannot be used."""
        return {
            "studies": len(self.usable),
            "annotated": sum(case.annotated for case in self.usable),
            "left_out": {case.name: case.problem for case in self.cases if case.problem},
        }

    def measured(self) -> dict[str, Any]:
        """Return figures so far."""
        return {"checks": [asdict(check) for check in self.checks], "stages": self.stages}

    def run(self) -> dict[str, Any]:
        """Go through the stages."""
        logger.info("2 of 6: what the release is unsure about")
        parent_rated = self._rate("studies-before", self.parent, self.usable)
        unsure = [one.uncertainty for one in uncertainties(parent_rated, self.parent)]
        self._want(parent_rated)
        lacking = self._lacking()
        if lacking:
            return {"state": "annotate", "message": f"no release was made: {lacking}"}
        adapted = self._adapted(unsure)
        logger.info("6 of 6: gate")
        demand(self.checks)
        folder = self.request.out / "release"
        key = site_key(self.request.out)
        digest = write_site_release(folder, adapted, self.request.name, self.request.plan.seed, key)
        return {"state": "accepted", "release": str(folder), "sha256": digest, **self.measured()}

    def _adapted(self, unsure: Sequence[float]) -> Adapted:
        plan, rehearsed, general = self.request.plan, self._simulated(False), self._simulated(True)
        holdout = self._of(Role.HOLDOUT)
        site_before = sheet_of(self._rate("holdout-before", self.parent, holdout), self.parent)
        logger.info("3 of 6: profile of the site")
        rest = [case for case in self.usable if case not in holdout]
        profile = profiled(
            self.parent, self._source(rest), rest, rehearsed, plan, self.work / "profile"
        )
        logger.info("4 of 6: calibration and operating point")
        fitted = self._of(Role.TRAIN, Role.VALIDATION)
        adjusted = calibrated(profile, self._rate("fit-profile", profile, fitted), plan)
        final = adjusted
        if plan.finetune.phase.steps > 0:
            logger.info("5 of 6: fine-tuning")
            final = finetuned(
                adjusted, self._annotated(unsure), rehearsed, plan, self.work / "finetune"
            )
        seen = self._rate("holdout-profile", profile, holdout)
        after = sheet_of(self._rate("holdout-after", final, holdout), final)
        sheets = {
            "parent": site_before,
            "profile": sheet_of(seen, profile),
            "calibration": sheet_of(seen, adjusted),
            "fine-tuning": after,
        }
        self.stages = {stage: sheet.figures() for stage, sheet in sheets.items()}
        count = min(len(general), plan.simulated_cases // EVERY)
        both = [
            rated(self.work / f"general-{when}.json", release, general, count)
            for when, release in (("before", self.parent), ("after", final))
        ]
        self.checks = judge(
            Pair(SITE, site_before, after),
            Pair(GENERAL, sheet_of(both[0], self.parent), sheet_of(both[1], final)),
            plan,
        )
        known = self._rate("fit-after", final, fitted)
        known.embeddings += both[1].embeddings
        names = [case.name for case in fitted]
        return Adapted(self.parent, final, names, len(holdout), self.checks, self.stages, known)

    def _want(self, parent_rated: HeldOut) -> None:
        """Write which studies to annotate next."""
        all_unsure = uncertainties(parent_rated, self.parent)
        places = [i for i, case in enumerate(self.usable) if not case.annotated]
        order = diverse_order(
            [all_unsure[i].uncertainty for i in places],
            [parent_rated.embeddings[i] for i in places],
        )
        wanted = [
            Wanted(rank, self.usable[places[i]].name, **asdict(all_unsure[places[i]]))
            for rank, i in enumerate(order, start=1)
        ]
        write_wanted(wanted, self.request.out)

    def _lacking(self) -> str:
        """Say what annotations are missing; empty where there are enough."""
        plan, annotated = self.request.plan, [case for case in self.usable if case.annotated]
        if len(annotated) < plan.fewest_annotated:
            return f"{len(annotated)} studies are annotated, {plan.fewest_annotated} are needed"
        holdout = self._of(Role.HOLDOUT)
        return enough([bool(case.positive) for case in holdout], plan)

    @cached_property
    def _roles(self) -> dict[str, Role]:
        file = self.request.out / ROLES_FILE
        earlier = file if file.exists() else self.request.roles
        roles = deal(self.usable, self.request.plan, read_roles(earlier) if earlier else {})
        write_json(file, {name: role.value for name, role in roles.items()})
        return roles

    def _of(self, *roles: Role) -> list[SiteCase]:
        return [c for c in self.usable if c.annotated and self._roles[c.patient] in roles]

    def _annotated(self, unsure: Sequence[float]) -> Annotated:
        trained, watched = self._of(Role.TRAIN), self._of(Role.VALIDATION)
        by_name = {case.name: value for case, value in zip(self.usable, unsure, strict=True)}
        return Annotated(
            self._source(trained), self._source(watched), [by_name[c.name] for c in trained]
        )

    def _source(self, cases: Sequence[SiteCase]) -> ArchiveSource:
        source = source_of(cases, self.request.out / "cases")
        return replace(source, real=not any(case.simulated for case in cases))

    def _rate(self, name: str, release: Release, cases: Sequence[SiteCase]) -> HeldOut:
        return rated(self.work / f"{name}.json", release, self._source(cases), len(cases))

    def _simulated(self, held_out: bool) -> Source:
        folder = self.request.simulated or self.request.out / "simulated"
        if self.request.simulated is None:
            with bar("anatomies") as step:
                count = self.request.plan.simulated_cases
                build_cache(folder, count, SIMULATED_SEED, progress=step)
        return Source((folder,), EVERY, held_out)
