"""Run by Alembic, on the connection that `dicom_node.store.engine.migrate` opened."""

from __future__ import annotations

from alembic import context

from dicom_node.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
