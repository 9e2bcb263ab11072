"""What a destination takes, on SQLite and PostgreSQL, and the queue that follows from it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dicom_node.domain.profile import (
    COMPREHENSIVE_3D_SR,
    COMPREHENSIVE_SR,
    DEFAULT_KINDS,
    SEGMENTATION,
)
from dicom_node.store.rows import Destination, ResultRow, StaleClaim
from dicom_node.store.store import Store
from tests.domain.test_profile import PR, SC
from tests.store.test_store import STUDY, claimed

HERE = "PACS@127.0.0.1:104"
PACS = Destination("pacs", tuple(DEFAULT_KINDS))


def row(kind: str, sop_class: str, uid: str, variant: str = "") -> ResultRow:
    return ResultRow(kind, sop_class, uid, "9", f"results/x/{uid}", "f" * 64, 10, variant)


SET = [
    row("seg-gland", SEGMENTATION, "9.1"), row("key-images", SC, "9.2"),
    row("presentation-state", PR, "9.3"), row("sr", COMPREHENSIVE_3D_SR, "9.4"),
    row("sr", COMPREHENSIVE_SR, "9.5", "comprehensive"),
    row("sr", COMPREHENSIVE_3D_SR, "9.6", "no-seg"),
    row("sr", COMPREHENSIVE_SR, "9.7", "comprehensive-no-seg"),
]  # fmt: skip


def queued(store: Store) -> set[str]:
    """UIDs that have a delivery."""
    (shown,) = store.studies_show(STUDY)
    return {one["sop_instance_uid"] for one in shown["results"] if one["deliveries"]}


def left_out(store: Store) -> dict[str, str]:
    (shown,) = json.loads(json.dumps(store.studies_show(STUDY)))
    return {one["kind"]: one["replaced_by"] for one in shown["left_out"]}


def test_what_is_learned_is_kept_for_one_address(store: Store) -> None:
    store.learn("pacs", HERE, {SC}, {SEGMENTATION})
    assert store.refused_by("pacs", HERE) == {SEGMENTATION}
    assert store.refused_by("pacs", "PACS@elsewhere:104") == set()
    store.learn("pacs", HERE, {SEGMENTATION}, ())
    assert store.refused_by("pacs", HERE) == set()
    assert {one["sop_class_uid"] for one in store.acceptances("pacs", HERE)} == {SC, SEGMENTATION}
    store.learn("pacs", "PACS@elsewhere:104", (), {SC})
    assert store.acceptances("pacs", HERE) == []


def test_a_peer_that_is_removed_is_forgotten(store: Store) -> None:
    store.learn("pacs", HERE, (), {SEGMENTATION})
    store.peer_remove("pacs")
    assert store.refused_by("pacs", HERE) == set()


def test_what_is_known_to_be_refused_is_never_queued(store: Store) -> None:
    store.finish_analysed(claimed(store), SET, [replace(PACS, refused=frozenset({SEGMENTATION}))])
    assert queued(store) == {"9.2", "9.3", "9.6"}
    assert left_out(store) == {"seg-gland": "presentation-state", "sr": "sr (no-seg)"}


def test_forms_that_nobody_needs_are_not_shown(store: Store) -> None:
    store.finish_analysed(claimed(store), SET, [PACS])
    (shown,) = store.studies_show(STUDY)
    assert [one["kind"] for one in shown["results"]] == ["seg-gland", "key-images", "sr"]
    assert shown["left_out"] == []


def test_two_destinations_get_their_own_forms_of_one_set(store: Store) -> None:
    old = Destination("old", tuple(DEFAULT_KINDS), frozenset({COMPREHENSIVE_3D_SR}))
    store.finish_analysed(claimed(store), SET, [PACS, old])
    (shown,) = store.studies_show(STUDY)
    reports = {
        sent["peer"]: one["variant"]
        for one in shown["results"] if one["kind"] == "sr" for sent in one["deliveries"]
    }  # fmt: skip
    assert reports == {"pacs": "", "old": "comprehensive"}


def test_what_waits_follows_what_was_learned(store: Store) -> None:
    store.finish_analysed(claimed(store), SET, [PACS])
    assert queued(store) == {"9.1", "9.2", "9.4"}
    known = replace(PACS, refused=frozenset({SEGMENTATION}))
    assert store.adapt_deliveries(known) == 1
    assert queued(store) == {"9.2", "9.3", "9.6"}
    assert store.adapt_deliveries(known) == 0
    for one in store.claim_deliveries("pacs", "d"):
        store.delivery_sent(one)
    (shown,) = store.studies_show(STUDY)
    assert shown["state"] == "delivered"
    assert "adapted to destination" in {one["event"] for one in store.timeline(STUDY)}


def test_a_claimed_object_is_replaced_in_one_step(store: Store) -> None:
    store.finish_analysed(claimed(store), SET, [PACS])
    claims = store.claim_deliveries("pacs", "d")
    assert [one.result.kind for one in claims] == ["seg-gland", "key-images", "sr"]
    for one in claims[1:]:
        store.delivery_retry_later(one, 0, "", counts=False)
    known = replace(PACS, refused=frozenset({SEGMENTATION}))
    assert store.replace_refused(claims[0], known)
    assert queued(store) == {"9.2", "9.3", "9.6"}
    with pytest.raises(StaleClaim):
        store.replace_refused(claims[0], known)


def test_what_nothing_can_stand_in_for_stays_claimed(store: Store) -> None:
    store.finish_analysed(claimed(store), SET[3:4], [PACS])
    (claim,) = store.claim_deliveries("pacs", "d")
    known = replace(PACS, refused=frozenset({COMPREHENSIVE_3D_SR}))
    assert not store.replace_refused(claim, known)
    store.delivery_failed(claim, "the peer does not take it")
    (shown,) = store.studies_show(STUDY)
    assert (shown["state"], shown["reason"]) == ("failed", "delivery_failed")


def test_the_manifest_carries_forms_and_omissions(store: Store) -> None:
    store.finish_analysed(claimed(store), SET, [replace(PACS, refused=frozenset({SEGMENTATION}))])
    (manifest,) = store.manifests_due()
    assert {one.variant for one, _ in manifest.results} == {
        "", "no-seg", "comprehensive", "comprehensive-no-seg",
    }  # fmt: skip
    assert {one.kind for one in manifest.left_out} == {"seg-gland", "sr"}
