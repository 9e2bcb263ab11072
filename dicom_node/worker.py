"""The worker: decides which studies are complete, has them analysed, commits the outcome.

One thread looks at studies that changed; the main thread claims ready revisions and hands each to
the model process, with a heartbeat while it runs. This process never imports torch.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dicom_node.child import ChildDiedError, ChildTimeoutError, ModelChild
from dicom_node.clock import Clock, WallWatch
from dicom_node.config import NodeConfig
from dicom_node.crash_points import fault
from dicom_node.domain.canary import is_canary
from dicom_node.domain.policy import LEASE_S, PlanKind
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.domain.states import ReleaseState, RevisionState
from dicom_node.errors import NodeError, RegistryError
from dicom_node.flow.annotate import without_strangers
from dicom_node.flow.drift import watch
from dicom_node.flow.observe import KEY, fill_in, observation
from dicom_node.flow.outbox import results_folder
from dicom_node.flow.peers import destinations, encoding_wanted
from dicom_node.flow.promote import evaluate_due
from dicom_node.logs import pseudonym
from dicom_node.registry.choose import origins_of, release_for, shadow_for
from dicom_node.registry.shelf import RunnableRelease
from dicom_node.store.rows import Claim, Destination, InstanceRow, ResultRow, ShadowRow, StaleClaim
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

POLL_S = 0.2
_LOST_CLAIM_S = 30.0  # heartbeats that fail for longer: give the claim up


class Worker:
    """Works through the queue until it is told to stop."""

    def __init__(
        self, config: NodeConfig, store: Store, clock: Clock,
        turned: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Put it together; ``turned`` is called while the work goes on."""
        self._config = config
        self._store = store
        self._clock = clock
        self._turned = turned
        self._child = ModelChild()
        self._owner = "worker-0"  # the same after a restart: what it ran counts as an attempt

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set. A study in work is given back to the queue.

        An error that nothing here expects sets ``stop`` too: the process is to end, and to be
        started anew, rather than live on with one of its threads.
        """
        promoter = threading.Thread(target=self._promote, args=(stop,), name="promote")
        self._store.recover_worker(self._owner)
        promoter.start()
        try:
            self._child.start()
            while not stop.is_set():
                self._turned()
                if not self._work_once(stop):
                    stop.wait(POLL_S)
        finally:
            stop.set()
            self._child.stop()
            promoter.join()

    def _promote(self, stop: threading.Event) -> None:
        wall = WallWatch(self._clock)
        reap_from_s = times_at_s = self._clock.monotonic_s()
        self._fill_in()
        while not stop.wait(POLL_S):
            now_s = self._clock.monotonic_s()
            if wall.was_set():  # heartbeats look old or new now; let them come in again first
                log.warning("the clock was set")
                reap_from_s, times_at_s = now_s + LEASE_S, now_s
            try:
                if now_s >= times_at_s:
                    times_at_s = now_s + LEASE_S
                    self._store.pull_back_times(
                        self._config.study.patience_s,
                        self._config.delivery.commitment_wait_h * 3600,
                    )
                if now_s >= reap_from_s:
                    self._store.reap_stale()
                self._evaluate()
            except NodeError as error:
                log.error("evaluation failed", extra={"problem": error.message})
            except Exception:
                log.exception("evaluation failed")

    def _evaluate(self) -> None:
        """Look at what is due, where no other worker does."""
        with self._store.turn("evaluate") as mine:
            if mine:
                evaluate_due(self._store, self._config.node.data_dir, self._clock, self._config)

    def _fill_in(self) -> None:
        """Observe studies that were finished before there was something to observe them with."""
        try:
            with self._store.turn("fill in") as mine:
                if mine and (done := fill_in(self._store, self._config.node.data_dir)):
                    log.info("earlier studies observed", extra={"studies": done})
        except Exception:  # scanners are watched beside the work, never instead of it
            log.exception("earlier studies cannot be observed")

    def _count(self, answer: dict[str, Any]) -> None:
        """Count how long an analysis took; nothing waits for it."""
        if answer["outcome"] != "analysed":
            return
        try:
            self._store.analysed_in(sum(answer["timings_s"].values()))
        except NodeError as error:
            log.warning("an analysis is not counted", extra={"problem": error.message})

    def _watch(self, claim: Claim) -> None:
        """Compare the scanner of a finished study with what it was; nothing waits for it."""
        try:
            watch(self._store, self._config, self._clock, claim.study_uid)
        except Exception:  # whatever goes wrong here, the study is committed
            log.exception("drift cannot be judged")

    def _work_once(self, stop: threading.Event) -> bool:
        """Claim one revision and work on it; False where there is nothing to do."""
        try:
            claim = self._store.claim_ready(self._owner)
            if claim is None:
                return False
            self._work(claim, stop)
        except StaleClaim:
            log.warning("the claim was taken back; its outcome is thrown away")
        except NodeError as error:
            log.error("queue unavailable", extra={"problem": error.message})
            return False
        return True

    def _work(self, claim: Claim, stop: threading.Event) -> None:
        study = pseudonym(claim.study_uid)
        fault("claim-committed")
        log.info("claimed", extra={"study": study, "revision": claim.number})
        try:
            answer = self._ask(claim, stop)
        except RegistryError as error:
            log.error("no release may run", extra={"study": study, "problem": error.message})
            self._store.fail_attempt(claim, Reason.INTERNAL_ERROR, str(error))
            return
        except ChildTimeoutError:
            log.error("case limit exceeded", extra={"study": study})
            self._store.fail_attempt(claim, Reason.TIMEOUT, REASONS[Reason.TIMEOUT].message)
            return
        except ChildDiedError:
            if stop.is_set():
                self._store.release(claim)
                return
            log.error("the model process died", extra={"study": study})
            message = "The model process ended unexpectedly."
            self._store.fail_attempt(claim, Reason.INTERNAL_ERROR, message)
            return
        fault("case-analysed")
        test = is_canary(claim.study_uid)
        if answer.get(KEY) and not test:
            claim = replace(claim, seen=observation(answer[KEY]))
        state = self._commit(claim, answer)
        if test:  # it counts in no statistics
            return
        self._count(answer)
        self._watch(claim)
        if answer.get("kept") and state is not RevisionState.SUPERSEDED:
            self._shadow(claim, answer["sha256"], stop)

    def _shadow(self, claim: Claim, active_sha256: str, stop: threading.Event) -> None:
        """Let the shadow release look at a study whose results are committed.

        Nothing waits for it and nothing of it is sent; whatever goes wrong is written down alone.
        """
        try:
            shadow = shadow_for(self._config, self._store, active_sha256)
            if shadow is None or self._store.work_waits():
                return
            pair = self._shadow_pair(claim, shadow, stop)
            if pair is not None:
                run = ShadowRow(
                    claim.study_uid, claim.number, active_sha256, shadow.sha256, json.dumps(pair)
                )
                self._store.shadow_add(run)
        except NodeError as error:
            log.error("no shadow run", extra={"problem": error.message})

    def _shadow_pair(
        self, claim: Claim, shadow: RunnableRelease, stop: threading.Event
    ) -> dict[str, Any] | None:
        """Return what both releases said, or what went wrong; None: nothing ran."""
        job = {
            "study_uid": claim.study_uid,
            "revision": claim.number,
            "shadow": self._release_job(shadow),
        }
        limit_s = self._config.model.case_limit_s

        def goes_on() -> bool:
            self._turned()
            return not stop.is_set()

        try:
            answer = self._child.ask(job, limit_s, goes_on)
        except ChildTimeoutError:
            return {"error": "it took longer than model.case_limit_s"}
        except ChildDiedError:
            return None if stop.is_set() else {"error": "the model process died"}
        if answer["outcome"] == "error":
            return {"error": answer["message"]}
        pair: dict[str, Any] | None = answer.get("pair")
        return pair

    def _release_job(self, release: RunnableRelease) -> dict[str, str | bool]:
        return {
            "folder": str(release.folder),
            "sha256": release.sha256,
            "device": self._config.model.device,
            "precision": self._config.model.precision,
            "synthesis": self._config.model.synthesis,
        }

    def _ask(self, claim: Claim, stop: threading.Event) -> dict[str, Any]:
        last_beat_s = self._clock.monotonic_s()

        def beat() -> bool:
            nonlocal last_beat_s
            self._turned()
            try:
                self._store.heartbeat(claim)
                last_beat_s = self._clock.monotonic_s()
            except StaleClaim:
                return False
            except NodeError:
                if self._clock.monotonic_s() - last_beat_s > _LOST_CLAIM_S:
                    return False
            return not stop.is_set()

        return self._child.ask(self._job(claim), self._config.model.case_limit_s, beat)

    def _job(self, claim: Claim) -> dict[str, Any]:
        data_dir = self._config.node.data_dir
        rows = self._store.headers_of(claim.study_uid, through=claim.through)
        instances = without_strangers([row for row in rows if row.removed_at_s is None])
        verdict = None
        if claim.state is not None and claim.reason is not None:
            verdict = {
                "state": claim.state.value,
                "reason": claim.reason.value,
                "message": claim.message,
            }
        release = self._chosen(claim, instances)
        wanted, variants = encoding_wanted(self._destinations(claim))
        return {
            "study_uid": claim.study_uid,
            "revision": claim.number,
            "headers": [row.header_json for row in instances],
            "files": {
                row.sop_instance_uid: {
                    "path": str(data_dir / row.path),
                    "sha256": row.dataset_digest,
                }
                for row in instances
            },
            "content_time": claim.content_time.isoformat(),
            "config_digest": self._config.analysis_digest(),
            "installation_id": self._store.installation_id(),
            "earlier": [asdict(sent) for sent in claim.earlier],
            "kinds": sorted(wanted),
            "variants": variants,
            "verdict": verdict,
            "release": release and self._release_job(release),
            "keep": any(row.state is ReleaseState.SHADOW for row in self._store.releases()),
            "out": str(data_dir / results_folder(claim.study_uid, claim.number)),
        }

    def _destinations(self, claim: Claim) -> list[Destination]:
        """Return where the results of a study go: those of a canary to `canary.to` alone."""
        found = destinations(self._store, self._config)
        if is_canary(claim.study_uid):
            return [one for one in found if one.peer == self._config.canary.to]
        return found

    def _chosen(self, claim: Claim, instances: list[InstanceRow]) -> RunnableRelease | None:
        """Return the release for a study, asked anew for each; a report alone needs none."""
        if claim.kind is PlanKind.REPORT:
            return None
        return release_for(self._config, self._store, lambda: origins_of(instances))

    def _commit(self, claim: Claim, answer: dict[str, Any]) -> RevisionState:
        outcome = answer["outcome"]
        study = pseudonym(claim.study_uid)
        log.info(
            "finished", extra={"study": study, "outcome": outcome, "why": answer.get("reason")}
        )
        if outcome == "error":
            return self._store.fail_attempt(claim, Reason.INTERNAL_ERROR, answer["message"])
        if outcome == "held":
            return self._store.finish_silent(
                claim, RevisionState.HELD, Reason(answer["reason"]), answer["message"]
            )
        folder = results_folder(claim.study_uid, claim.number)
        results = [_result_row(folder, entry) for entry in answer["results"]]
        peers = self._destinations(claim)
        if outcome == "analysed":
            state = self._store.finish_analysed(claim, results, peers)
        elif results:
            state = self._store.finish_reported(
                claim, RevisionState(outcome), Reason(answer["reason"]), answer["message"],
                results, peers,
            )  # fmt: skip
        else:
            state = self._store.finish_silent(
                claim, RevisionState(outcome), Reason(answer["reason"]), answer["message"]
            )
        fault("finish-committed")
        log.info("committed", extra={"study": study, "state": state.value})
        return state


def _result_row(folder: Path | str, entry: dict[str, Any]) -> ResultRow:
    return ResultRow(
        kind=entry["kind"],
        sop_class_uid=entry["sop_class_uid"],
        sop_instance_uid=entry["sop_instance_uid"],
        series_uid=entry["series_uid"],
        path=str(Path(folder) / entry["file"]),
        sha256=entry["sha256"],
        size=entry["size"],
        variant=entry["variant"],
    )
