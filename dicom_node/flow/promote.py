"""Deciding what each study needs: wait, start, report that it cannot be analysed, close, hold."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.dicom.header import InstanceHeader
from dicom_node.dicom.select import Selection, select
from dicom_node.domain.identity import agree
from dicom_node.domain.policy import (
    Chosen,
    Decision,
    PlanKind,
    Situation,
    Step,
    decide,
    effective_key,
)
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.domain.states import FINAL_REVISION_STATES, RevisionState
from dicom_node.errors import NodeError
from dicom_node.flow.annotate import judge_annotations, without_strangers
from dicom_node.flow.judge import judge_copies
from dicom_node.flow.outbox import write_manifests
from dicom_node.store.rows import InstanceRow, Plan, StudyToEvaluate
from dicom_node.store.store import Store

log = logging.getLogger(__name__)


def evaluate_due(store: Store, data_dir: Path, clock: Clock, config: NodeConfig) -> int:
    """One round: judge second copies, look at studies that are due, write manifests, annotations.

    Returns how many studies were looked at.
    """
    judge_copies(store, data_dir)
    quiet_s = min(config.study.quiet_s, config.study.patience_s)
    due = store.studies_to_evaluate(clock.now_s(), quiet_s)
    for study in due:
        try:
            _evaluate(store, study, clock.now_s(), config)
        except NodeError:
            raise
        except Exception:  # one study that cannot be read must not stop the others (G2)
            log.exception("study cannot be evaluated")
            store.hold_study(study.study_uid, Reason.INTERNAL_ERROR)
            store.nothing_new(study)
    write_manifests(store, data_dir)
    judge_annotations(store, data_dir)
    return len(due)


def _evaluate(store: Store, study: StudyToEvaluate, now_s: float, config: NodeConfig) -> None:
    known = without_strangers(store.headers_of(study.study_uid))
    rows = [row for row in known if row.removed_at_s is None]
    if len(rows) < len(known) and _nothing_without(store, study, known, rows):
        store.nothing_new(study)
        return
    images = [row for row in rows if row.role == "image"]
    if not agree(row.identity for row in images):
        store.hold_study(study.study_uid, Reason.IDENTITY_CONFLICT)
        store.nothing_new(study)
        return
    selection = select([InstanceHeader.from_json(row.header_json) for row in rows])
    chosen = _chosen(selection, rows)
    situation = Situation(
        study.last_image_at_s, study.latest_state, study.latest_input_key, study.result_was_sent
    )
    decision = decide(situation, chosen, now_s, config.study.quiet_s, config.study.patience_s)
    _carry_out(store, study, decision, chosen, rows)


def _nothing_without(
    store: Store, study: StudyToEvaluate, known: list[InstanceRow], rows: list[InstanceRow]
) -> bool:
    """Whether a study whose images were removed in part stays as it ended.

    It does where what came changes nothing, or where what is left of it cannot be analysed: a
    result stands, and a report "not analysed" must not take its place. Sent again as a whole, the
    study is looked at like any other.
    """
    if study.latest_state not in FINAL_REVISION_STATES:
        return False
    whole = _chosen(select([InstanceHeader.from_json(row.header_json) for row in known]), known)
    if whole.input_key == study.latest_input_key:
        return True
    if not rows or select([InstanceHeader.from_json(row.header_json) for row in rows]).problem:
        detail = f"{len(known) - len(rows)} images are removed: to analyse it, send all of them"
        store.note_late_image(study.study_uid, detail)
        return True
    return False


def _carry_out(
    store: Store, study: StudyToEvaluate, decision: Decision, chosen: Chosen,
    rows: list[InstanceRow],
) -> None:  # fmt: skip
    step, reason = decision.step, chosen.reason
    if step is Step.NOTHING:
        store.nothing_new(study)
    elif step is Step.WAIT:
        store.wait_until(
            study, decision.at_s, chosen.message, new_revision=decision.new_revision,
            outdates=reason is None,
        )  # fmt: skip
    elif step is Step.CLOSE and reason is not None:
        store.close_silently(study, reason, chosen.input_key)
    else:
        through = max(row.id for row in rows)
        report = step is Step.REPORT
        plan = Plan(
            kind=PlanKind.REPORT if report else PlanKind.ANALYSE, input_key=chosen.input_key,
            selection_json=chosen.detail_json, through=through,
            state=RevisionState.NOT_ANALYSABLE if report else None, reason=reason,
            message=chosen.message,
        )  # fmt: skip
        store.set_plan(study, plan)


def _chosen(selection: Selection, rows: list[InstanceRow]) -> Chosen:
    """Reduce to what the policy needs of a selection."""
    reason = selection.problem
    used = set(selection.instances_used())
    demographics = {
        InstanceHeader.from_json(row.header_json).demographics_digest
        for row in rows
        if row.sop_instance_uid in used
    }
    message = ""
    if reason is not None:
        text = REASONS[reason]
        message = " ".join(part for part in (text.message, selection.detail, text.advice) if part)
    detail = {
        "inputs": selection.inputs(),
        "instances_used": len(used),
        "rejected": [
            {"series_uid": one.series_uid, "description": one.description, "reason": one.reason}
            for one in selection.rejected
        ],
        "notes": list(selection.notes),
    }
    return Chosen(
        effective_key(selection.input_key(), reason, demographics), reason, message,
        json.dumps(detail),
    )  # fmt: skip
