"""What the tables are made of: their metadata, the column types and the conditions they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, String, text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows by itself only in a column of type INTEGER
Id = BigInteger().with_variant(Integer, "sqlite")
Uid = String(64)
Digest = String(64)


def one_of(column: str, values: Iterable[str]) -> str:
    """Return the SQL condition that a column holds one of the values."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def new_id() -> Column[int]:
    """Return a primary key that the database counts."""
    return Column("id", Id, primary_key=True, autoincrement=True)


def refers(column: str, table: str) -> Column[int]:
    """Return a column that must name a row of ``table`` by its ``id``."""
    return Column(column, Id, ForeignKey(f"{table}.id"), nullable=False)


def only(condition: str, postgresql: str | None = None) -> dict[str, Any]:
    """Return the options of an ``Index`` that limit it to the rows of a condition.

    ``postgresql``: the condition there, where its words differ.
    """
    return {"sqlite_where": text(condition), "postgresql_where": text(postgresql or condition)}
