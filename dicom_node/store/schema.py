"""The tables. States that must not exist cannot be written: CHECKs and partial unique indexes.

Those of annotations, releases and totals stand in modules of their own; `dicom_node.store.tables`
has all of them. Times are seconds since 1970-01-01 UTC. Paths are relative to the data folder.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from dicom_node.domain.policy import PlanKind
from dicom_node.domain.states import OPEN_REVISION_STATES, DeliveryState, RevisionState
from dicom_node.store.columns import Digest, Id, Uid, metadata, new_id, one_of, only, refers

node = Table(
    "node",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("installation_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

boots = Table(
    "boots",
    metadata,
    new_id(),
    Column("boot_id", String(36), nullable=False, unique=True),
    Column("host", String(255), nullable=False),
    Column("started_at", Double, nullable=False),
    Index("ix_boots_host", "host", "id"),
)

studies = Table(
    "studies",
    metadata,
    new_id(),
    Column("study_uid", Uid, nullable=False, unique=True),
    Column("first_received_at", Double, nullable=False),
    Column("last_image_at", Double, nullable=False),
    Column("change_no", BigInteger, nullable=False, default=0),
    Column("evaluated_no", BigInteger, nullable=False, default=0),
    Column("evaluate_at", Double),
    Column("has_images", Boolean, nullable=False, default=False),
    Column("instances", BigInteger, nullable=False, server_default="0"),
    Column("patient_id", Text),
    Column("issuer", Text),
    Column("birth_date", Text),
    Column("images_removed_at", Double),
    Column("results_removed_at", Double),
    Index("ix_studies_changed", "last_image_at", **only("change_no > evaluated_no")),
    Index("ix_studies_images", "last_image_at", "id", **only("images_removed_at IS NULL")),
    Index(
        "ix_studies_results", "last_image_at", "id",
        **only("images_removed_at IS NOT NULL AND results_removed_at IS NULL"),
    ),
    Index("ix_studies_evaluate_at", "evaluate_at"),
    Index("ix_studies_patient_id", "patient_id"),
)  # fmt: skip
"""``images_removed_at``, ``results_removed_at``: when retention deleted the last of them; NULL
while there is something to look at."""

instances = Table(
    "instances",
    metadata,
    new_id(),
    refers("study_id", "studies"),
    Column("sop_instance_uid", Uid, nullable=False),
    Column("sop_class_uid", Uid, nullable=False),
    Column("series_uid", Uid, nullable=False),
    Column("transfer_syntax_uid", Uid, nullable=False),
    Column("role", String(8), nullable=False),
    Column("header_json", Text, nullable=False),
    Column("dataset_digest", Digest, nullable=False),
    Column("path", String(255), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("birth_date", Text, nullable=False),
    Column("calling_ae", String(64), nullable=False),
    Column("called_ae", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("removed_at", Double),
    UniqueConstraint("study_id", "sop_instance_uid"),
    # a commitment request names instances without their study (PS3.4 J.3.2)
    Index("ix_instances_sop_instance_uid", "sop_instance_uid"),
    Index("ix_instances_received_at", "received_at"),
    Index("ix_instances_calling_ae", "calling_ae", "received_at"),
    CheckConstraint(one_of("role", ("image", "other")), name="role"),
)
"""``removed_at``: since then its file is not kept; the row tells what it was."""

conflicts = Table(
    "conflicts",
    metadata,
    new_id(),
    refers("study_id", "studies"),
    refers("instance_id", "instances"),
    Column("verdict", String(16), nullable=False),
    Column("judgings", Integer, nullable=False, default=0),
    Column("header_json", Text, nullable=False),
    Column("transfer_syntax_uid", Uid, nullable=False),
    Column("dataset_digest", Digest, nullable=False),
    Column("path", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("birth_date", Text, nullable=False),
    UniqueConstraint("instance_id", "dataset_digest", "transfer_syntax_uid"),
    CheckConstraint(
        one_of(
            "verdict", ("unjudged", "same", "metadata", "demographics", "other", "settled")
        ),
        name="verdict",
    ),
    Index("ix_conflicts_verdict", "verdict", "id"),
    Index("ix_conflicts_study_id", "study_id"),
    Index("ix_conflicts_received_at", "received_at"),
)  # fmt: skip

revisions = Table(
    "revisions",
    metadata,
    new_id(),
    refers("study_id", "studies"),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(32)),
    Column("message", Text),
    Column("plan", String(8)),
    Column("plan_state", String(16)),
    Column("input_key", Digest),
    Column("selection_json", Text),
    Column("through", Id),
    Column("attempts", Integer, nullable=False, default=0),
    Column("node_deaths", Integer, nullable=False, default=0),
    Column("claim_no", Integer, nullable=False, default=0),
    Column("owner", String(255)),
    Column("host", String(255)),
    Column("boot_id", String(36)),
    Column("heartbeat_at", Double),
    Column("run_after", Double),
    Column("outdated", Boolean, nullable=False, default=False),
    Column("content_time", Double),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("manifest_due", Boolean, nullable=False, default=False),
    Column("result_folder", String(255)),
    UniqueConstraint("study_id", "number"),
    CheckConstraint(one_of("state", RevisionState), name="state"),
    CheckConstraint(f"plan IS NULL OR {one_of('plan', PlanKind)}", name="plan"),
    CheckConstraint("state NOT IN ('ready', 'running') OR plan IS NOT NULL", name="planned"),
    CheckConstraint("(state = 'running') = (owner IS NOT NULL)", name="owned"),
    CheckConstraint(
        "state NOT IN ('not_analysable', 'failed', 'held') OR reason IS NOT NULL", name="reasoned"
    ),
    CheckConstraint("attempts >= 0 AND attempts <= 3", name="attempts"),
    Index(
        "uq_revisions_open", "study_id", unique=True,
        **only(one_of("state", OPEN_REVISION_STATES)),
    ),
    Index("uq_revisions_running", "study_id", unique=True, **only("state = 'running'")),
    Index("ix_revisions_state", "state", "run_after"),
    Index("ix_revisions_changed", "state", "changed_at", "id"),
    Index("ix_revisions_manifest_due", "manifest_due", **only("manifest_due = 1", "manifest_due")),
)  # fmt: skip

results = Table(
    "results",
    metadata,
    new_id(),
    refers("revision_id", "revisions"),
    Column("kind", String(32), nullable=False),
    Column("variant", String(32), nullable=False, server_default=""),
    Column("rank", Integer, nullable=False),
    Column("sop_class_uid", Uid, nullable=False),
    Column("sop_instance_uid", Uid, nullable=False),
    Column("series_uid", Uid, nullable=False),
    Column("path", String(255), nullable=False),
    Column("sha256", Digest, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("removed_at", Double),
    UniqueConstraint("revision_id", "sop_instance_uid"),
    Index("ix_results_sop_instance_uid", "sop_instance_uid"),
)

deliveries = Table(
    "deliveries",
    metadata,
    new_id(),
    refers("result_id", "results"),
    refers("revision_id", "revisions"),
    Column("peer", String(64), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("claim_no", Integer, nullable=False, default=0),
    Column("owner", String(255)),
    Column("host", String(255)),
    Column("heartbeat_at", Double),
    Column("next_at", Double, nullable=False),
    Column("status", Integer),
    Column("message", Text),
    Column("created_at", Double, nullable=False),
    Column("since", Double, nullable=False),
    Column("sent_at", Double),
    Column("checks", Integer, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("check_at", Double),
    Column("confirmation", Text),
    UniqueConstraint("result_id", "peer"),
    CheckConstraint(one_of("state", DeliveryState), name="state"),
    CheckConstraint("(state = 'sending') = (owner IS NOT NULL)", name="owned"),
    CheckConstraint("state NOT IN ('sent', 'verified') OR sent_at IS NOT NULL", name="sent"),
    Index("ix_deliveries_due", "state", "peer", "next_at"),
    Index("ix_deliveries_revision_id", "revision_id", "peer", "state"),
    Index("ix_deliveries_check_at", "peer", "check_at", **only("check_at IS NOT NULL")),
)  # fmt: skip
"""``check_at``: when to ask next whether the destination keeps what was sent; ``checks``: how often
it was asked since the object was sent; ``losses``: how often it did not keep it;
``confirmation``: what came of asking, in plain words."""

commitments = Table(
    "commitments",
    metadata,
    new_id(),
    Column("transaction_uid", Uid, nullable=False, unique=True),
    Column("peer", String(64), nullable=False),
    Column("requested_at", Double, nullable=False),
    Column("answered_at", Double),
    Column("lost", Integer),
)
"""Storage commitment that this node asked for (PS3.4 J.3.2). ``lost``: so many instances the last
report denied. One without items was asked for by an examination of the peer."""

commitment_items = Table(
    "commitment_items",
    metadata,
    Column("commitment_id", Id, ForeignKey("commitments.id"), primary_key=True),
    Column("delivery_id", Id, ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("claim_no", Integer, nullable=False),
    Index("ix_commitment_items_delivery_id", "delivery_id"),
)
"""What a commitment was asked for; ``claim_no``: of its sending, so that an answer to an earlier
one says nothing about a later one."""

pledges = Table(
    "pledges",
    metadata,
    new_id(),
    Column("transaction_uid", Uid, nullable=False),
    Column("peer", String(64), nullable=False),
    Column("references_json", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("requested_at", Double, nullable=False),
    Column("answered_at", Double),
    Column("message", Text),
    UniqueConstraint("peer", "transaction_uid"),
    CheckConstraint(one_of("state", ("pending", "answered", "failed")), name="state"),
    Index("ix_pledges_due", "state", "next_at"),
    Index("ix_pledges_requested_at", "requested_at"),
)
"""Storage commitment that peers asked of this node."""

peers = Table(
    "peers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("ae_title", String(16), nullable=False),
    Column("host", String(255), nullable=False),
    Column("port", Integer),
    Column("may_send", Boolean, nullable=False),
    Column("receives_results", Boolean, nullable=False),
    Column("sources_json", Text, nullable=False),
    Column("objects_json", Text, nullable=False),
    Column("tls", Boolean, nullable=False, server_default=false()),
    Column("certificates_json", Text, nullable=False, server_default="[]"),
    Column("verify", String(16), nullable=False, server_default="auto"),
    Column("created_at", Double, nullable=False),
    CheckConstraint("NOT receives_results OR port IS NOT NULL", name="port"),
)

acceptances = Table(
    "acceptances",
    metadata,
    Column("peer", String(64), primary_key=True),
    Column("sop_class_uid", Uid, primary_key=True),
    Column("address", String(512), nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("learned_at", Double, nullable=False),
)
"""What destinations take, as their associations said; ``address``: AE title, host and port."""

omissions = Table(
    "omissions",
    metadata,
    new_id(),
    refers("revision_id", "revisions"),
    Column("peer", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("replaced_by", String(64), nullable=False),
    Column("reason", String(255), nullable=False),
    Column("at", Double, nullable=False),
    UniqueConstraint("revision_id", "peer", "kind"),
)
"""What a destination did not get as it is, and why."""

refusals = Table(
    "refusals",
    metadata,
    new_id(),
    Column("calling_ae", String(64), nullable=False),
    Column("called_ae", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("reason", String(255), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    UniqueConstraint("calling_ae", "called_ae", "address", "reason"),
    Index("ix_refusals_last_at", "last_at"),
)

events = Table(
    "events",
    metadata,
    new_id(),
    Column("study_id", Id, ForeignKey("studies.id")),
    Column("revision", Integer),
    Column("at", Double, nullable=False),
    Column("event", String(48), nullable=False),
    Column("detail", Text, nullable=False),
    Index("ix_events_study_id", "study_id", "id"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("event", String(48), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("message", Text, nullable=False),
    Column("previous_hash", Digest, nullable=False),
    Column("hash", Digest, nullable=False, unique=True),
    Index("ix_audit_event", "event", "id"),
)
"""The audit trail: numbered without gaps, each record chained to the one before. Triggers refuse
to change or delete a record."""

audit_state = Table(
    "audit_state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("head_id", Id, nullable=False),
    Column("head_hash", Digest, nullable=False),
    Column("forwarded_id", Id, nullable=False),
    Column("forwarded_at", Double),
    CheckConstraint("id = 1", name="single"),
)
"""The end of the chain, and how far it was forwarded."""
