"""A copy of the database, taken in use, fills an empty one: on both kinds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock
from dicom_node.errors import StoreError
from dicom_node.store.snapshot import (
    POSTGRESQL_COPY,
    copy_database,
    copy_name,
    load_database,
)
from dicom_node.store.store import Store
from tests.databases import run_sql
from tests.store.life import image, made, plan


def test_a_copy_fills_an_empty_database(
    store: Store, url: str, clock: ManualClock, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store.add_instances([image("1.2.1", number, clock.now_s()) for number in (1, 2)])
    clock.advance(20)
    plan(store, "1.2.1")
    claim = store.claim_ready("worker-0")
    assert claim is not None
    store.finish_analysed(claim, made("1.2.1"), [])
    copy = tmp_path / copy_name(url)
    copy_database(url, copy)
    store.add_instance(image("1.2.2", 1, clock.now_s()))
    if copy.name == POSTGRESQL_COPY:
        server = request.getfixturevalue("postgresql")
        name = "restored_copy"
        empty = server.replace("/postgres?", f"/{name}?")
        run_sql(server, f"CREATE DATABASE {name}")
        load_database(copy, empty)
        there = Store(empty, clock=clock)
    else:
        there = Store(f"sqlite:///{copy}", clock=clock)
    assert there.studies_show("1.2.1") == store.studies_show("1.2.1")
    assert there.timeline("1.2.1") == store.timeline("1.2.1")
    assert there.studies_show("1.2.2") == [], "what came after it is not in it"
    assert sorted(there.image_paths(everything=True)) == [
        "spool/1.2.1/1.a.dcm", "spool/1.2.1/2.a.dcm",
    ]  # fmt: skip
    assert len(there.result_paths()) == 2
    there.close()


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(StoreError, match="pg_dump is not installed here"):
        copy_database("postgresql://node@/node", tmp_path / POSTGRESQL_COPY)
    with pytest.raises(StoreError, match="cannot be copied"):
        copy_database(f"sqlite:///{tmp_path}/none.sqlite3", tmp_path / "copy")
