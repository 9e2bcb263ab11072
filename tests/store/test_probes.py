"""Profiles of peers: the last one of each, at the address where it answered."""

from __future__ import annotations

from dataclasses import replace

from dicom_node.config import PeerConfig
from dicom_node.domain.probing import (
    ClassAnswer,
    Finding,
    Profile,
    SentStudy,
    Step,
    StepOutcome,
)
from dicom_node.domain.profile import SEGMENTATION
from dicom_node.store.store import Store

PEER = PeerConfig(name="pacs", ae_title="PACS", host="10.0.0.5", port=104)
PROFILE = Profile(
    "pacs", "PACS@10.0.0.5:104", 1_700_000_000.0,
    (Finding(Step.NAME, StepOutcome.OK, "found", "", 0.5),
     Finding(Step.PORT, StepOutcome.FAILED, "closed", "check", 0.1)),
    (ClassAnswer(SEGMENTATION, "taken", ("1.2.840.10008.1.2",)),), SentStudy("1.2", "X", 3),
)  # fmt: skip


def test_the_last_profile_of_an_address_is_kept_and_goes_with_the_peer(store: Store) -> None:
    store.peer_add(PEER)
    assert store.probe_of("pacs", PROFILE.address) is None
    store.probe_keep(PROFILE)
    assert store.probe_of("pacs", PROFILE.address) == PROFILE
    later = replace(PROFILE, at_s=PROFILE.at_s + 1, steps=PROFILE.steps[:1], sent=None)
    store.probe_keep(later)
    assert store.probe_of("pacs", PROFILE.address) == later
    assert (PROFILE.ok, later.ok) == (False, True)
    assert store.probe_of("pacs", "PACS@10.0.0.6:104") is None, "another address"
    store.peer_remove("pacs")
    assert store.probe_of("pacs", PROFILE.address) is None


def test_a_commitment_without_items_tells_how_many_were_denied(store: Store) -> None:
    store.open_commitment("1.2.3", "pacs", [], 0.0)
    assert store.commitment_lost("1.2.3") is None
    assert not store.commitment_answered("1.2.3", ["other"], {"1"}, {}), "not asked of this one"
    assert store.commitment_answered("1.2.3", ["pacs"], {"1"}, {"2": 0x0112})
    assert store.commitment_lost("1.2.3") == 1
