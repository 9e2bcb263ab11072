"""The table of annotations: what people stored about the node's findings."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from dicom_node.domain.annotation import AnnotationKind, AnnotationState
from dicom_node.store.columns import Id, metadata, new_id, one_of, refers

annotation_table = Table(
    "annotations",
    metadata,
    new_id(),
    refers("study_id", "studies"),
    Column("instance_id", Id, ForeignKey("instances.id"), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(32)),
    Column("message", Text),
    Column("person", String(255), nullable=False, server_default=""),
    Column("made_at", String(14), nullable=False, server_default=""),
    Column("parts", String(64), nullable=False, server_default=""),
    Column("revision", Integer),
    Column("superseded_by", Id, ForeignKey("annotations.id")),
    Column("detail_json", Text, nullable=False, server_default="{}"),
    Column("judgings", Integer, nullable=False, server_default="0"),
    Column("waits", Integer, nullable=False, server_default="0"),
    Column("next_at", Double, nullable=False),
    Column("judged_at", Double),
    CheckConstraint(one_of("kind", AnnotationKind), name="kind"),
    CheckConstraint(one_of("state", AnnotationState), name="state"),
    CheckConstraint(
        "state NOT IN ('waiting', 'unusable', 'no_annotation') OR reason IS NOT NULL",
        name="reasoned",
    ),
    Index("ix_annotations_due", "state", "next_at"),
    Index("ix_annotations_study_id", "study_id"),
)
"""What people stored about the node's findings: a row for each stored object that can be that.
``parts``: what it is about, separated by blanks; ``made_at``: YYYYMMDDHHMMSS as the object says;
``judgings``: begun and not ended; ``waits``: how often it waited for images or a result."""
