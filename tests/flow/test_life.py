"""The life of a study under random events: images, copies, crashes, late workers, broken PACS."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dicom_node.clock import ManualClock
from dicom_node.domain.identity import Difference, Identity, agree
from dicom_node.domain.policy import (
    MAX_ATTEMPTS,
    PlanKind,
    Situation,
    Step,
    decide,
)
from dicom_node.domain.policy import Chosen as Inputs
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import RevisionState
from dicom_node.store.rows import (
    Claim,
    DeliveryClaim,
    Destination,
    IngestOutcome,
    InstanceRow,
    Plan,
    ResultRow,
    StaleClaim,
)
from dicom_node.store.store import Store
from tests.databases import fast_folder, migrated
from tests.store.life import counted, told

STUDY = "1.2.3"
QUIET_S, PATIENCE_S, GIVE_UP_S = 10.0, 1800.0, 72 * 3600.0
NEEDED = {1, 2, 3}
PACS = [Destination("pacs", ("sr", "seg-lesions"))]
FINAL = {"delivered", "not_analysable", "failed", "held", "superseded"}


def header(number: int, digest: str) -> str:
    """What the row of an image says of its header."""
    return json.dumps({"number": number, "demographics_digest": digest})


def number_of(header_json: str) -> int:
    return int(json.loads(header_json)["number"])


class Life(RuleBasedStateMachine):
    """The store, driven as the processes of the node drive it; the model is a few sets."""

    folder: Path

    @initialize(begun=st.booleans())
    def start(self, begun: bool) -> None:
        """Begin with nothing, or in the middle: a study is being worked on."""
        self.folder = Path(tempfile.mkdtemp(dir=fast_folder()))
        (self.folder / "t.sqlite3").write_bytes(migrated())
        self.clock = ManualClock()
        self.acknowledged: set[int] = set()
        self.copies: set[int] = set()
        self.sent: dict[str, str] = {}
        self.claims: list[tuple[Claim, bool]] = []
        self.sending: list[DeliveryClaim] = []
        self.encoded = 0
        self.causes = 0
        self.store = self.opened()
        self.boot = self.store.start_boot()
        if begun:
            for number in sorted(NEEDED):
                self.receive(number, "P1")
            self.clock.advance(QUIET_S + 1)
            self.evaluate()
            self.claim()

    def opened(self) -> Store:
        return Store(f"sqlite:///{self.folder}/t.sqlite3", clock=self.clock, host="here")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.settle()
            assert told(self.store) == counted(self.store)
            self.store.close()
            shutil.rmtree(self.folder)

    # the network

    @rule(number=st.integers(1, 6), patient=st.sampled_from(["P1"] * 12 + ["P2"]))
    def receive(self, number: int, patient: str) -> None:
        row = self.image(number, "a", patient)
        outcome = self.store.add_instance(row)
        known = number in self.acknowledged
        assert outcome is (IngestOutcome.DUPLICATE if known else IngestOutcome.STORED)
        self.acknowledged.add(number)
        self.causes += 1

    @rule(number=st.integers(4, 6))
    def receive_late_image(self, number: int) -> None:
        self.receive(number, "P1")
        self.clock.advance(QUIET_S + 1)
        self.evaluate()

    @precondition(lambda self: self.acknowledged)
    @rule(data=st.data())
    def receive_other_bytes(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.acknowledged)))
        outcome = self.store.add_instance(self.image(number, "b", "P1"))
        assert outcome in (IngestOutcome.CONFLICT, IngestOutcome.DUPLICATE)
        self.copies.add(number)

    @rule(verdict=st.sampled_from(list(Difference)))
    def judge(self, verdict: Difference) -> None:
        for conflict in self.store.conflicts_to_judge()[:1]:
            self.store.begin_judging(conflict.id)
            self.store.judge(conflict, verdict, "words")
            self.causes += 1
            if verdict is Difference.DEMOGRAPHICS:
                self.store.adopt_demographics(STUDY)

    def image(self, number: int, digest: str, patient: str) -> InstanceRow:
        return InstanceRow(
            study_uid=STUDY, series_uid="1.2.3.1", sop_class_uid="1.2", role="image",
            sop_instance_uid=f"1.2.3.1.{number}", transfer_syntax_uid="1.2.1",
            identity=Identity(patient), header_json=header(number, digest),
            dataset_digest=digest * 64,
            path=f"{number}{digest}", size=1, received_at_s=self.clock.now_s(),
        )  # fmt: skip

    # the evaluation loop, with a selection of its own

    @rule()
    def evaluate(self) -> None:
        now_s = self.clock.now_s()
        for study in self.store.studies_to_evaluate(now_s, QUIET_S):
            rows = self.store.headers_of(STUDY)
            if not agree(row.identity for row in rows):
                self.store.hold_study(STUDY, Reason.IDENTITY_CONFLICT)
                self.store.nothing_new(study)
                continue
            present = {number_of(row.header_json) for row in rows}
            reason = None if present >= NEEDED else Reason.NO_DIFFUSION
            chosen = Inputs(f"{sorted(present)} {reason}", reason, "words")
            decision = decide(
                Situation(study.last_image_at_s, study.latest_state, study.latest_input_key,
                          study.result_was_sent),
                chosen, now_s, QUIET_S, PATIENCE_S,
            )  # fmt: skip
            if decision.step is Step.NOTHING:
                self.store.nothing_new(study)
            elif decision.step is Step.WAIT:
                self.store.wait_until(
                    study, decision.at_s, "", new_revision=decision.new_revision,
                    outdates=reason is None,
                )  # fmt: skip
            else:
                kind = PlanKind.ANALYSE if reason is None else PlanKind.REPORT
                state = None if reason is None else RevisionState.NOT_ANALYSABLE
                through = max(row.id for row in rows)
                self.store.set_plan(
                    study, Plan(kind, chosen.input_key, "{}", through, state, reason, "words")
                )

    # the worker

    @rule()
    def claim(self) -> None:
        claim = self.store.claim_ready("worker-0")
        if claim is not None:
            assert not any(alive for _, alive in self.claims), "two claims of one study at once"
            assert claim.attempts <= MAX_ATTEMPTS
            self.claims.append((claim, True))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), how=st.sampled_from(["finish", "finish", "fail", "silent", "release"]))
    def end_claim(self, data: st.DataObject, how: str) -> None:
        claim, _ = self.claims.pop(data.draw(st.integers(0, len(self.claims) - 1)))
        alive = self.is_running(claim)
        try:
            self.end(claim, how)
            assert alive, "a stale claim was accepted"
        except StaleClaim:
            assert not alive

    def is_running(self, claim: Claim) -> bool:
        try:
            self.store.heartbeat(claim)
        except StaleClaim:
            return False
        return True

    def end(self, claim: Claim, how: str) -> None:
        self.encoded += 1
        made = [
            ResultRow("sr", "1.3", f"9.{self.encoded}.1", "8", "x", "b" * 64, 6),
            ResultRow("seg-lesions", "1.2", f"9.{self.encoded}.2", "9", "x", "a" * 64, 5),
        ]
        if how == "fail":
            self.store.fail_attempt(claim, Reason.INTERNAL_ERROR, "boom")
        elif how == "release":
            self.store.release(claim)
        elif how == "silent":
            self.store.finish_silent(claim, RevisionState.HELD, Reason.OUTPUT_GATE, "words")
        elif claim.kind is PlanKind.ANALYSE:
            inputs = self.store.headers_of(STUDY, through=claim.through)
            self.store.finish_analysed(claim, made, PACS)
            assert agree(row.identity for row in inputs), "G4: a result from two patients"
        else:
            assert claim.state is not None
            assert claim.reason is not None
            self.store.finish_reported(claim, claim.state, claim.reason, "words", made[:1], PACS)

    # the destination

    @rule()
    def take_deliveries(self) -> None:
        self.sending += self.store.claim_deliveries("pacs", "d")

    @precondition(lambda self: self.sending)
    @rule(how=st.sampled_from(["sent", "sent", "sent", "later", "refused", "hang"]))
    def send_one(self, how: str) -> None:
        one = self.sending.pop(0)
        uid, digest = one.result.sop_instance_uid, one.result.sha256
        if how not in {"refused", "hang"}:
            # the PACS has it, whether or not we get to write that down
            assert self.sent.setdefault(uid, digest) == digest
        try:
            if how == "sent":
                self.store.delivery_sent(one)
            elif how == "later":
                self.store.delivery_retry_later(one, self.clock.now_s() + 60, "busy")
            elif how == "refused":
                self.store.delivery_failed(one, "never")
        except StaleClaim:
            pass

    # time, crashes, the operator

    @rule(seconds=st.sampled_from([1.0, 11.0, 70.0, 1900.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-3600.0, -1.0, 3600.0]))
    def set_the_clock(self, seconds: float) -> None:
        """The wall clock is set; what looked at it then is told, as the worker tells it."""
        self.clock.step_wall(seconds)
        self.store.pull_back_times(PATIENCE_S, 24 * 3600.0)

    @rule()
    def keep_house(self) -> None:
        self.store.reap_stale()
        self.store.reap_stale_deliveries()
        self.store.expire_deliveries(GIVE_UP_S)
        self.claims = [(claim, alive and self.is_running(claim)) for claim, alive in self.claims]

    @rule()
    def crash(self) -> None:
        """The whole node dies and starts again; old claims may still be presented."""
        self.store.close()
        self.store = self.opened()
        self.boot = self.store.start_boot()
        self.store.recover_after_node_death(self.boot)
        self.store.recover_deliveries()
        self.claims = [(claim, False) for claim, _ in self.claims]

    @rule()
    def worker_dies(self) -> None:
        self.store.recover_worker("worker-0")
        self.claims = [(claim, False) for claim, _ in self.claims]

    @rule()
    def retry(self) -> None:
        from dicom_node.errors import NodeError

        with contextlib.suppress(NodeError):
            self.store.retry(STUDY)
            self.causes += 1

    # what holds always

    @invariant()
    def G1_everything_acknowledged_is_there(self) -> None:
        if hasattr(self, "store"):
            kept = {number_of(row.header_json) for row in self.store.headers_of(STUDY)}
            assert kept == self.acknowledged
            copies = {c.sop_instance_uid for c in self.store.conflicts_of(STUDY)}
            assert {f"1.2.3.1.{number}" for number in self.copies} >= copies

    @invariant()
    def G3_a_revision_has_one_set_of_results_from_one_claim(self) -> None:
        if not hasattr(self, "store"):
            return
        seen: set[str] = set()
        for one in self.store.studies_show(STUDY):
            uids = [result["sop_instance_uid"] for result in one["results"]]
            assert len({uid.split(".")[1] for uid in uids}) <= 1
            assert len(uids) == len(set(uids)) <= 2
            assert not seen & set(uids)
            seen.update(uids)
            for result in one["results"]:
                sent = self.sent.get(result["sop_instance_uid"], result["sha256"])
                assert sent == result["sha256"]
        assert self.sent.keys() <= seen, "what was sent is known"

    @invariant()
    def G5_nothing_grows_without_a_cause(self) -> None:
        if hasattr(self, "store"):
            revisions: list[dict[str, Any]] = self.store.studies_show(STUDY)
            assert len(revisions) <= 1 + self.causes
            deliveries = [d for one in revisions for r in one["results"] for d in r["deliveries"]]
            assert len(deliveries) <= 2 * len(revisions)

    @invariant()
    def the_states_make_sense(self) -> None:
        if not hasattr(self, "store"):
            return
        revisions: list[dict[str, Any]] = self.store.studies_show(STUDY)
        states = [one["state"] for one in revisions]
        assert sum(state in ("receiving", "ready") for state in states) <= 1
        assert states.count("running") <= 1
        for one in revisions:
            assert one["state"] not in ("failed", "held", "not_analysable") or one["reason"]
            deliveries = [d["state"] for r in one["results"] for d in r["deliveries"]]
            if one["state"] == "delivered":
                assert set(deliveries) <= {"sent", "verified"}
            if one["state"] == "held":
                assert "pending" not in deliveries
        self.claims = [(claim, alive and self.is_running(claim)) for claim, alive in self.claims]

    def settle(self) -> None:
        """G2: left alone, everything ends."""
        for _ in range(60):
            if all(self.is_over(one) for one in self.store.studies_show(STUDY)):
                break
            self.clock.advance(PATIENCE_S + 61)
            self.keep_house()
            while self.store.conflicts_to_judge():
                self.judge(Difference.METADATA)
            self.evaluate()
            claim = self.store.claim_ready("worker-0")
            if claim is not None:
                self.end(claim, "finish")
            for one in self.store.claim_deliveries("pacs", "d"):
                self.store.delivery_sent(one)
        assert all(self.is_over(one) for one in self.store.studies_show(STUDY))

    @staticmethod
    def is_over(one: dict[str, Any]) -> bool:
        states = {d["state"] for r in one["results"] for d in r["deliveries"]}
        return one["state"] in FINAL and states <= {"sent", "verified", "failed"}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
