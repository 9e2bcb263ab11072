"""What may run, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_core.manifest import PACKAGED_SHA256, packaged_release
from dicom_node.config import NodeConfig
from dicom_node.domain.assignment import ImageOrigin, Scope
from dicom_node.errors import ConfigError, NodeError, RegistryError
from dicom_node.registry import keys
from dicom_node.registry.choose import origins_of, release_for, release_without_registry, shadow_for
from dicom_node.registry.shelf import SIGNATURE, sign_folder
from dicom_node.registry.switch import (
    DEFAULT_SCOPE,
    add_release,
    begin_shadow,
    commit_switch,
    end_shadow,
    find_release,
    named_releases,
    prepare_switch,
    reject,
    restore,
    roll_back,
    unassign,
)
from dicom_node.store.store import Store
from tests.registry.conftest import Sign
from tests.releases import light
from tests.store.test_store import image

MR1 = Scope(sender="MR1")


def activate(config: NodeConfig, store: Store, name: str, scope: Scope = DEFAULT_SCOPE) -> None:
    commit_switch(config, store, prepare_switch(config, store, scope, name), [])


def running(config: NodeConfig, store: Store, *origins: ImageOrigin) -> str:
    """Name of the release that analyses a study of these origins."""
    sha256 = release_for(config, store, lambda: origins).sha256
    return next(one.name for one in named_releases(config, store) if one.sha256 == sha256)


def everything(config: NodeConfig, store: Store) -> object:
    """What a refused change must leave alone."""
    files = {
        str(path): path.read_bytes()
        for path in config.node.data_dir.rglob("*")
        if path.is_file() and "node.sqlite3" not in path.name
    }
    return store.rules(), store.releases(), files


def test_a_signed_release_is_added_copied_and_read_only(
    config: NodeConfig, store: Store, signed: Sign
) -> None:
    folder = signed("site-a")
    added, checked = add_release(config, store, folder)
    assert (str(added.row.state), checked.signed_by) == ("candidate", "site")
    copy = config.node.data_dir / "releases" / added.sha256
    assert {path.name for path in copy.iterdir()} == {path.name for path in folder.iterdir()}
    assert copy.stat().st_mode & 0o222 == 0
    assert all(path.stat().st_mode & 0o222 == 0 for path in copy.iterdir())
    shutil.rmtree(folder)
    activate(config, store, "site-a")
    assert running(config, store) == "site-a"
    trail = [(row.event, row.subject) for row in store.audit_list()]
    assert trail == [("model_changed", added.sha256)] * 2
    assert store.audit_verify().problem == ""


def _unsigned(folder: Path) -> None:
    (folder / SIGNATURE).unlink()


def _flipped(folder: Path) -> None:
    path = folder / "localizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def _rehashed(folder: Path) -> None:
    """A change with a manifest that agrees, as whoever tampers would make it."""
    signature = (folder / SIGNATURE).read_bytes()
    light(folder, "other")
    (folder / SIGNATURE).write_bytes(signature)


def _short(folder: Path) -> None:
    (folder / "classifier.safetensors").unlink()


def _outside(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../node.sqlite3"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


WRONG = {
    "unsigned": (_unsigned, "is not signed"),
    "flipped byte": (_flipped, "SHA-256 differs"),
    "tampered, manifest made to agree": (_rehashed, "changed after it was signed"),
    "file missing": (_short, "cannot read"),
    "file outside the folder": (_outside, "lists the file name"),
    "no manifest": (_no_manifest, "is not a manifest"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_broken_tampered_or_unsigned_release_is_not_added(
    config: NodeConfig, store: Store, signed: Sign, what: str
) -> None:
    signed("good")
    folder = signed("wrong")
    damage, words = WRONG[what]
    damage(folder)
    before = everything(config, store)
    with pytest.raises(RegistryError, match=words) as caught:
        add_release(config, store, folder)
    assert caught.value.advice
    assert everything(config, store) == before


def _untrust(config: NodeConfig, _folder: Path) -> None:
    keys.distrust_key(config, "site")


def _on(damage: Callable[[Path], None]) -> Callable[[NodeConfig, Path], None]:
    def change(_config: NodeConfig, folder: Path) -> None:
        for path in (folder, *folder.iterdir()):
            path.chmod(0o700)
        damage(folder)

    return change


LATER = {
    "key no longer trusted": (_untrust, "not trusted"),
    "signature gone": (_on(_unsigned), "is not signed"),
    "other files": (_on(_rehashed), "holds release"),
    "folder gone": (lambda _config, folder: shutil.rmtree(folder), "cannot read"),
}


@pytest.mark.parametrize("what", LATER)
def test_what_goes_wrong_after_activation_stops_it_and_nothing_takes_its_place(
    config: NodeConfig, store: Store, signed: Sign, what: str
) -> None:
    added, _ = add_release(config, store, signed("site-a"))
    activate(config, store, "site-a")
    folder = config.node.data_dir / "releases" / added.sha256
    damage, words = LATER[what]
    damage(config, folder)
    with pytest.raises(RegistryError, match=words):
        release_for(config, store, set)
    roll_back(config, store, DEFAULT_SCOPE)
    assert running(config, store) == find_release(config, store, "packaged").name
    before = store.rules()
    with pytest.raises(RegistryError, match=words):
        prepare_switch(config, store, DEFAULT_SCOPE, "site-a")
    with pytest.raises(RegistryError, match=words):
        begin_shadow(config, store, "site-a")
    assert store.rules() == before


def test_a_rollback_to_what_may_not_run_is_refused(
    config: NodeConfig, store: Store, signed: Sign
) -> None:
    first, _ = add_release(config, store, signed("a"))
    add_release(config, store, signed("b"))
    activate(config, store, "a")
    activate(config, store, "b")
    _on(_flipped)(config, config.node.data_dir / "releases" / first.sha256)
    before = everything(config, store)
    with pytest.raises(RegistryError, match="SHA-256 differs"):
        roll_back(config, store, DEFAULT_SCOPE)
    assert everything(config, store) == before
    assert running(config, store) == "b"
    add_release(config, store, signed("a"))  # the same once more: the damaged copy is replaced
    assert roll_back(config, store, DEFAULT_SCOPE)[1] is not None
    assert running(config, store) == "a"
    with pytest.raises(ConfigError, match="registered"):
        add_release(config, store, signed("a"))


def test_each_scanner_gets_its_release(config: NodeConfig, store: Store, signed: Sign) -> None:
    add_release(config, store, signed("a"))
    add_release(config, store, signed("b"))
    activate(config, store, "a", MR1)
    activate(config, store, "b", Scope(station="SKYRA", protocol="*prostate*"))
    packaged = find_release(config, store, "packaged").name
    received = [image(1, calling_ae="MR1"), image(2, calling_ae="MR1", role="other")]
    assert running(config, store, *origins_of(received)) == "a"
    header = '{"station": "SKYRA", "protocol_name": "t2 PROSTATE"}'
    assert running(config, store, *origins_of([image(1, header_json=header)])) == "b"
    assert running(config, store, ImageOrigin("PACS")) == packaged
    unassign(config, store, MR1)
    assert running(config, store, ImageOrigin("MR1")) == packaged
    with pytest.raises(ConfigError, match="nothing was active before"):
        roll_back(config, store, DEFAULT_SCOPE)


def test_one_release_shadows_the_others(config: NodeConfig, store: Store, signed: Sign) -> None:
    added, _ = add_release(config, store, signed("a"))
    assert shadow_for(config, store, PACKAGED_SHA256) is None
    begin_shadow(config, store, "a")
    shadow = shadow_for(config, store, PACKAGED_SHA256)
    assert shadow is not None
    assert shadow.sha256 == added.sha256
    assert shadow_for(config, store, added.sha256) is None, "never beside itself"
    with pytest.raises(ConfigError, match="is active"):
        begin_shadow(config, store, "packaged")
    keys.distrust_key(config, "site")
    with pytest.raises(RegistryError, match="not trusted"):
        shadow_for(config, store, PACKAGED_SHA256)
    end_shadow(config, store)
    assert shadow_for(config, store, PACKAGED_SHA256) is None
    assert str(reject(config, store, "a").name) == "a"
    with pytest.raises(ConfigError, match="retired"):
        reject(config, store, "a")


def test_names_that_mean_nothing_or_two_things(
    config: NodeConfig, store: Store, signed: Sign, tmp_path: Path
) -> None:
    added, _ = add_release(config, store, signed("a"))
    twin = tmp_path / "twin"
    light(twin, "a", b'{"made_by": "hand", "seed": 1}')
    sign_folder(twin, keys.private_folder(config) / "site.key")
    add_release(config, store, twin)
    for wanted, words in (("x", "there is no release"), ("a", "names 2 releases")):
        with pytest.raises(ConfigError, match=words):
            find_release(config, store, wanted)
    assert find_release(config, store, added.sha256[:8]).sha256 == added.sha256


def test_a_copy_of_the_packaged_release_is_kept_through_an_upgrade(
    config: NodeConfig, store: Store, signed: Sign, tmp_path: Path
) -> None:
    signed("a")
    copy = shutil.copytree(packaged_release()[0], tmp_path / "copy")
    sign_folder(copy, keys.private_folder(config) / "site.key")
    added, _ = add_release(config, store, copy)
    assert added.sha256 == PACKAGED_SHA256
    assert find_release(config, store, added.name).row == added.row
    assert find_release(config, store, "packaged").row != added.row
    activate(config, store, added.name)
    assert release_for(config, store, set).folder.parent == config.node.data_dir / "releases"


def test_an_origin_travels_without_names_of_cases(
    config: NodeConfig, store: Store, signed: Sign
) -> None:
    parent = "a" * 64
    origin = {"made_by": "ai-core adapt", "seed": 1, "parent": parent, "trained_on": 1}
    added, _ = add_release(config, store, signed("good", json.dumps(origin).encode()))
    assert added.row.parent == parent
    named = json.dumps({**origin, "cases": ["ProstateX-0000"]}).encode()
    folder = signed("good")
    light(folder, "leaks", named)
    with pytest.raises(RegistryError, match=r"origin\.json of the release is not valid"):
        add_release(config, store, folder)


def test_a_pinned_folder_needs_a_signature_and_decides_alone(
    config: NodeConfig, store: Store, signed: Sign, tmp_path: Path
) -> None:
    folder = signed("pinned")
    model = config.model.model_copy(update={"release": str(folder)})
    pinned = config.model_copy(update={"model": model})
    add_release(pinned, store, signed("a"))
    assert release_for(pinned, store, set).folder == folder
    for change in (
        lambda: prepare_switch(pinned, store, DEFAULT_SCOPE, "a"),
        lambda: roll_back(pinned, store, DEFAULT_SCOPE),
        lambda: unassign(pinned, store, MR1),
    ):
        with pytest.raises(ConfigError, match=r"model\.release in the configuration"):
            change()
    _unsigned(folder)
    for ask in (lambda: release_for(pinned, store, set), lambda: release_without_registry(pinned)):
        with pytest.raises(RegistryError, match="is not signed"):
            ask()


def test_a_new_database_gets_its_rules_back(
    config: NodeConfig, store: Store, signed: Sign, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        add_release(config, store, signed(name))
    activate(config, store, "a")
    lost = find_release(config, store, "b")
    activate(config, store, "b", MR1)
    begin_shadow(config, store, "c")
    shutil.rmtree(config.node.data_dir / "releases" / lost.sha256)
    fresh = Store(f"sqlite:///{tmp_path}/new.sqlite3", clock=store._clock, create=True)
    try:
        told = restore(config, fresh)
        assert (told["releases_restored"], told["rules_restored"]) == (2, 1)
        assert told["rules_lost"] == [f"sender MR1: release {lost.sha256[:12]} may not run"]
        assert running(config, fresh) == "a"
        states = {one.name: str(one.row.state) for one in named_releases(config, fresh)}
        assert (states["a"], states["c"]) == ("active", "shadow")
    finally:
        fresh.close()


def test_nothing_leaves_the_data_folder(
    config: NodeConfig, store: Store, signed: Sign, tmp_path: Path
) -> None:
    folder = signed("a")
    outside = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    add_release(config, store, folder)
    activate(config, store, "a")
    roll_back(config, store, DEFAULT_SCOPE)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == outside
    assert {path.name for path in tmp_path.iterdir()} == {"data", "made"}


def test_errors_are_for_people(config: NodeConfig, store: Store, tmp_path: Path) -> None:
    with pytest.raises(NodeError) as caught:
        add_release(config, store, tmp_path / "absent")
    assert "Install the release again" in str(caught.value)
