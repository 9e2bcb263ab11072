"""A backup while the node receives, a restore elsewhere: everything is there, nothing is new."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, Table, select

from dicom_node.clock import ManualClock
from dicom_node.config import load_config
from dicom_node.domain.account import Role
from dicom_node.errors import NodeError, StoreError
from dicom_node.flow.accounts import Accounts
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.backup import (
    LIST,
    BackupList,
    Wanted,
    digest_of,
    make_backup,
    newest,
)
from dicom_node.flow.recover import recover
from dicom_node.flow.restore import restore_backup
from dicom_node.flow.retention import Retention
from dicom_node.flow.spool import read_dataset
from dicom_node.store.engine import HEAD, open_engine, schema_version
from dicom_node.store.store import Store
from tests.flow.conftest import T2W, Node, encoded, mr_image, series
from tests.flow.test_retention import OLD, YOUNG, deliver, receive, study


@pytest.fixture
def site(node: Node) -> Node:
    """A node with a delivered study, one in work, an account, and a configuration file."""
    for uid in (OLD, YOUNG):
        receive(node, uid)
        if uid == OLD:
            deliver(node, uid)
    config_file(node).write_text(
        f'[node]\ndata_dir = "{node.data_dir}"\n[web]\nbind = "127.0.0.1"\n', encoding="utf-8"
    )
    return node


def config_file(node: Node) -> Path:
    return node.data_dir.parent / "node.toml"


def wanted_of(node: Node, *, images: bool = False, keys: bool = False) -> Wanted:
    return Wanted(config_file(node), images, keys)


def back_up(node: Node, wanted: Wanted | None = None) -> Path:
    out = node.data_dir.parent / "backups"
    folder, _ = make_backup(
        node.store, node.config, out, node.clock, wanted or wanted_of(node, images=True)
    )
    node.clock.advance(60)
    return folder


def restored(node: Node, folder: Path, name: str = "elsewhere") -> Node:
    """A node on another data folder, from a backup; its database is open."""
    place = node.data_dir.parent / name
    config = node.config.model_copy(
        update={"node": node.config.node.model_copy(update={"data_dir": place})}
    )
    restore_backup(folder, config, node.clock)
    return Node(place, node.clock)


def rows(store: Store) -> dict[str, list]:
    """All rows of all tables but those that an opening or a restore writes."""
    found = {}
    meta = MetaData()
    meta.reflect(store._engine)
    with store._engine.connect() as db:
        for name, table in meta.tables.items():
            if name not in ("audit", "audit_state", "leases", "processes", "boots"):
                assert isinstance(table, Table)
                found[name] = sorted(map(tuple, db.execute(select(table))), key=repr)
    return found


def test_everything_is_there_and_nothing_is_sent_twice(site: Node) -> None:
    Accounts(site.store, site.config).add("anna", Role.ADMIN)
    folder = back_up(site)
    there = restored(site, folder)
    assert rows(there.store) == rows(site.store)
    for uid in (OLD, YOUNG):
        for row, image in zip(there.store.instances_of(uid), study(uid), strict=True):
            assert read_dataset(there.data_dir, row) == encoded(image)
    report = recover(there.store, there.data_dir)
    assert (report.instances_restored, report.files_missing, report.files_unreadable) == (0, 0, 0)
    assert there.store.peers_with_deliveries() == [], "what was delivered stays delivered"
    assert there.state(OLD) == (1, "delivered", None)
    deliver(there, YOUNG)  # and what waited goes on
    assert there.store.audit_last("backup") is not None
    there.store.close()


def test_two_backups_of_one_second_stand_beside_each_other(site: Node) -> None:
    out = site.data_dir.parent / "backups"
    first, second = (
        make_backup(site.store, site.config, out, site.clock, wanted_of(site, images=False))[0]
        for _ in range(2)
    )
    assert first.name < second.name
    assert newest(out) == second


def test_while_images_come_in(site: Node) -> None:
    """Rows and files of a backup belong together whatever comes meanwhile."""
    stop = threading.Event()
    sent: list[str] = []

    def feed() -> None:
        for number in range(400):
            if stop.is_set():
                return
            image = mr_image(T2W, number, "1.2.3.9", 400)
            if site.send(image).status == 0:
                sent.append(image.SOPInstanceUID)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        folders = [back_up(site) for _ in range(2)]
    finally:
        stop.set()
        feeder.join()
    told = [BackupList.read(folder) for folder in folders]
    assert [one.missing for one in told] == [(), ()]
    for number, folder in enumerate(folders):
        there = restored(site, folder, f"elsewhere-{number}")
        kept = there.store.instances_of("1.2.3.9")
        assert [row.sop_instance_uid for row in kept] == sent[: len(kept)]
        for row in kept:
            read_dataset(there.data_dir, row)
        there.store.close()


def test_what_is_as_it_was_is_not_copied_again(site: Node) -> None:
    first = back_up(site)
    site.send_all(series(T2W, 2, "1.2.3.7"))
    second = back_up(site)
    assert newest(first.parent) == second
    images = [path.relative_to(first) for path in (first / "data/spool").rglob("*.dcm")]
    assert images
    assert all((first / one).samefile(second / one) for one in images)
    assert len(list((second / "data/spool").rglob("*.dcm"))) == len(images) + 2
    shutil.rmtree(first)  # one backup does not need another
    restored(site, second).store.close()


def test_without_images_those_in_work_come_along(site: Node) -> None:
    there = restored(site, back_up(site, wanted_of(site)))
    assert {row.removed_at_s is None for row in there.store.instances_of(YOUNG)} == {True}
    assert {row.removed_at_s is None for row in there.store.instances_of(OLD)} == {False}
    assert there.store.studies_show(OLD)[0]["images_removed_at"]
    deliver(there, YOUNG)
    assert recover(there.store, there.data_dir).files_missing == 0
    there.store.close()


def test_retention_waits_for_a_backup(site: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    site.clock.advance(5000 * 86_400)
    seen = []

    def meanwhile(_database: str, _target: Path) -> None:
        trail = AuditTrail(site.store, site.config, site.clock)
        seen.append(Retention(site.store, site.config, site.clock, trail).turn())
        raise StoreError("stopped here")

    monkeypatch.setattr("dicom_node.flow.backup.copy_database", meanwhile)
    with pytest.raises(StoreError, match="stopped here"):
        back_up(site)
    assert seen == [False]
    assert list((site.data_dir.parent / "backups").iterdir()) == [], "nothing half is left"
    trail = AuditTrail(site.store, site.config, site.clock)
    assert Retention(site.store, site.config, site.clock, trail).turn()


def test_a_backup_that_is_damaged_or_newer_is_refused(site: Node) -> None:
    folder = back_up(site)
    place = site.data_dir.parent / "elsewhere"
    image = next((folder / "data/spool").rglob("*.dcm"))
    content = bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)
    with pytest.raises(StoreError, match="is not what was backed up"):
        restored(site, folder)
    assert not place.exists() and not list(place.parent.glob(".elsewhere*"))
    told = BackupList.read(folder)
    (folder / LIST).write_bytes(replace(told, schema="9999").to_json())
    with pytest.raises(NodeError, match="later than this program"):
        restored(site, folder)
    evil = replace(told.files[0], path="data/../../x")
    (folder / LIST).write_bytes(replace(told, files=(evil,)).to_json())
    with pytest.raises(NodeError, match="do not use this backup"):
        restored(site, folder)
    with pytest.raises(NodeError, match="is not empty"):
        restore_backup(folder, site.config, site.clock)


def test_an_older_database_is_brought_up_to_date(site: Node) -> None:
    folder = back_up(site, wanted_of(site))
    database = folder / "database/node.sqlite3"
    database.unlink()
    _database_of_version(database, "0008")
    told = BackupList.read(folder)
    copy = replace(told.files[0], sha256=digest_of(database))
    assert copy.path == "database/node.sqlite3"
    (folder / LIST).write_bytes(replace(told, schema="0008", files=(copy,)).to_json())
    there = restored(site, folder)
    assert schema_version(there.store._engine) == HEAD
    assert there.store.studies_list() == []
    there.store.close()


def _database_of_version(file: Path, version: str) -> None:
    settings = Config()
    settings.set_main_option("script_location", str(files("dicom_node.store") / "migrations"))
    engine = open_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, version)
    engine.dispose()


def test_passwords_and_keys_stay_out_unless_they_are_asked_for(site: Node) -> None:
    file = config_file(site)
    key = site.data_dir / "keys" / "site.key"
    key.parent.mkdir(exist_ok=True)
    key.write_text("a private key")
    text = file.read_text() + '# database = "postgresql://node:hunter2@db/node"\n'
    file.write_text(text)
    load_config(file)
    without = back_up(site)
    everything = "".join(
        path.read_text(errors="replace") for path in without.rglob("*") if path.is_file()
    )
    assert "hunter2" not in everything and "a private key" not in everything
    with_keys = back_up(site, wanted_of(site, keys=True))
    assert "hunter2" in (with_keys / "config/node.toml").read_text()
    assert (with_keys / "data/keys/site.key").read_text() == "a private key"
    assert isinstance(site.clock, ManualClock)
