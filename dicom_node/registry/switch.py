"""Changes of the registry: add, prepare, switch, roll back, shadow. Each stands in the audit trail.

A switch has two steps: `prepare` checks everything and changes nothing; `commit` changes the rule
in one transaction, and only where it is still the one that was seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_core import read_manifest
from ai_core.errors import CoreError
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.domain.assignment import DEFAULT_SCOPE, Rule, Scope
from dicom_node.domain.states import IllegalTransition, ReleaseState
from dicom_node.durable import ensure_dir, write_file
from dicom_node.errors import ConfigError, RegistryError
from dicom_node.flow.audit import AuditTrail
from dicom_node.registry.shelf import RELEASES, CheckedRelease, check_whole, folder_of, shelve
from dicom_node.store.rows import ReleaseRow
from dicom_node.store.store import Store

COPY = "registry.json"
PACKAGED = "packaged"
_DIGEST_PART = 6


@dataclass(frozen=True)
class Named:
    """A registered release with the names it goes by; those of the packaged one can change."""

    row: ReleaseRow
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.sha256[:12]})"


@dataclass(frozen=True)
class PreparedSwitch:
    """A switch that may be committed. ``before``: what the rule names now; None: no such rule."""

    scope: Scope
    seen: int | None
    release: Named
    checked: CheckedRelease
    before: Named | None


def named_releases(config: NodeConfig, store: Store) -> list[Named]:
    """Return all releases, the packaged one under the name and digest it has here."""
    return [_named(config, row) for row in store.releases()]


def find_release(config: NodeConfig, store: Store, wanted: str) -> Named:
    """Return a release by name, ``name/version``, or the first digits of its digest.

    A copy of the packaged release that was added is meant before the packaged one itself.

    Raises:
        ConfigError: there is none, or more than one.
    """
    fitting = [one for one in named_releases(config, store) if wanted in _names(one, wanted)]
    if not fitting:
        raise ConfigError(f"there is no release '{wanted}'", "see dicom-node models list")
    if len({one.sha256 for one in fitting}) > 1:
        raise ConfigError(
            f"'{wanted}' names {len(fitting)} releases: {', '.join(map(str, fitting))}",
            "give the first digits of the digest",
        )
    return fitting[-1]


def add_release(config: NodeConfig, store: Store, folder: Path) -> tuple[Named, CheckedRelease]:
    """Check a release, copy it in, register it as candidate. A damaged copy is replaced.

    Raises:
        RegistryError: it is broken, unsigned, or signed by a key that is not trusted.
        ConfigError: it is registered, and its copy is whole.
    """
    known = {row.sha256: row for row in store.releases()}
    mended = False
    try:
        mended = not _whole(config, known.get(read_manifest(folder).sha256))
    except CoreError as error:
        raise RegistryError(str(error.args[0]), error.advice) from None
    checked = shelve(config, folder)
    if mended and checked.sha256 in known:
        row = known[checked.sha256]
    else:
        row = store.release_add(checked.sha256, checked.name, checked.version, checked.parent)
    details = [("signed by", checked.signed_by), ("parent", checked.parent or "none")]
    record(config, store, "release added", checked.sha256, details)
    return _named(config, row), checked


def prepare_switch(config: NodeConfig, store: Store, scope: Scope, wanted: str) -> PreparedSwitch:
    """Check that a release may analyse what a scope names: files, signature, rule.

    Raises:
        RegistryError: the release may not run.
        ConfigError: it is active there already, or the configuration pins a release.
    """
    _not_pinned(config)
    release = find_release(config, store, wanted)
    rule = _rule_of(store, scope)
    before = None
    if rule is not None:
        before = _by_id(config, store, rule.release_id)
        if before.row.id == release.row.id:
            raise ConfigError(f"{release} is active for {scope} already", "nothing is to do")
    checked = check_whole(config, release.row)
    return PreparedSwitch(scope, rule.id if rule else None, release, checked, before)


def commit_switch(
    config: NodeConfig, store: Store, switch: PreparedSwitch, proof: Sequence[tuple[str, str]]
) -> None:
    """Let the release analyse the studies of the scope, from the next one on.

    ``proof``: what the rehearsal showed, for the audit trail.

    Raises:
        StoreError: the rule changed since it was prepared; nothing was done.
    """
    store.assign(switch.scope, switch.release.row.id, switch.seen)
    before = switch.before.sha256 if switch.before else "none"
    details = [
        ("rule", str(switch.scope)), ("before", before), ("signed by", switch.checked.signed_by),
        *proof,
    ]  # fmt: skip
    record(config, store, "release activated", switch.checked.sha256, details)


def roll_back(config: NodeConfig, store: Store, scope: Scope) -> tuple[Named, Named | None]:
    """Go back to what a rule named before; returns (from, to), to None: the rule is gone.

    Raises:
        RegistryError: the one before may not run; nothing was changed.
        ConfigError: there is nothing to go back to, or the configuration pins a release.
    """
    _not_pinned(config)
    rule, before = store.rule_before(scope)
    leaving = _by_id(config, store, rule.release_id)
    target = None if before is None else _by_id(config, store, before.release_id)
    if target is not None:
        check_whole(config, target.row)
    store.rollback(scope, rule.id)
    details = [("rule", str(scope)), ("before", leaving.sha256)]
    record(config, store, "rolled back", target.sha256 if target else "rule removed", details)
    return leaving, target


def unassign(config: NodeConfig, store: Store, scope: Scope) -> None:
    """Remove a rule.

    Raises:
        ConfigError: there is none of that scope, or it is the default.
    """
    _not_pinned(config)
    store.unassign(scope)
    record(config, store, "rule removed", str(scope), [])


def begin_shadow(config: NodeConfig, store: Store, wanted: str) -> Named:
    """Run a release beside the active ones; its results are compared and never sent.

    Raises:
        RegistryError: it may not run.
        ConfigError: it is active.
    """
    release = find_release(config, store, wanted)
    check_whole(config, release.row)
    try:
        store.set_shadow(release.row.id)
    except IllegalTransition:
        raise ConfigError(f"{release} is active", "choose one that is not") from None
    record(config, store, "shadow begun", release.sha256, [])
    return release


def end_shadow(config: NodeConfig, store: Store) -> None:
    """Let no release run in the shadow."""
    store.set_shadow(None)
    record(config, store, "shadow ended", "all", [])


def reject(config: NodeConfig, store: Store, wanted: str) -> Named:
    """Retire a release that was judged unfit.

    Raises:
        ConfigError: it is active or retired.
    """
    release = find_release(config, store, wanted)
    try:
        store.reject(release.row.id)
    except IllegalTransition:
        state = release.row.state
        raise ConfigError(f"{release} is {state}", "only a candidate or a shadow is") from None
    record(config, store, "release rejected", release.sha256, [])
    return release


def record(
    config: NodeConfig, store: Store, what: str, subject: str, details: list[tuple[str, str]]
) -> None:
    """Write a change into the audit trail, and the copy of the registry beside the releases."""
    trail = AuditTrail(store, config, SystemClock())
    trail.model_changed(what, subject, details)
    trail.flush()
    rows = {row.id: row for row in store.releases()}
    document = {
        "releases": [row.sha256 for row in rows.values() if row.sha256],
        "shadow": next((r.sha256 for r in rows.values() if r.state is ReleaseState.SHADOW), None),
        "rules": [
            {
                "sender": rule.scope.sender, "station": rule.scope.station,
                "protocol": rule.scope.protocol, "release": rows[rule.release_id].sha256,
            }
            for rule in store.rules()
        ],
    }  # fmt: skip
    folder = config.node.data_dir / RELEASES
    ensure_dir(folder)
    write_file(folder / COPY, [(json.dumps(document, indent=1) + "\n").encode()])


def restore(config: NodeConfig, store: Store) -> dict[str, object]:
    """Fill an empty registry from the copy and the folders of releases.

    Returns how many came back, and what did not with the reason: those rules are to be made anew.
    """
    folder = config.node.data_dir / RELEASES
    try:
        document = json.loads((folder / COPY).read_bytes())
        digests, rules = list(document["releases"]), list(document["rules"])
    except FileNotFoundError:
        return {"releases_restored": 0, "rules_restored": 0, "rules_lost": []}
    except (OSError, ValueError, KeyError, TypeError):
        return {"releases_restored": 0, "rules_restored": 0, "rules_lost": [f"{COPY} unreadable"]}
    ids: dict[str | None, int] = {None: store.releases()[0].id}
    for digest in digests:
        try:
            checked = shelve(config, folder / str(digest))
        except RegistryError:
            continue
        row = store.release_add(checked.sha256, checked.name, checked.version, checked.parent)
        ids[digest] = row.id
    lost = []
    for rule in rules:
        scope = Scope(rule["sender"], rule["station"], rule["protocol"])
        if rule["release"] not in ids:
            lost.append(f"{scope}: release {rule['release'][:12]} may not run")
            continue
        there = _rule_of(store, scope)
        if there is None or there.release_id != ids[rule["release"]]:
            store.assign(scope, ids[rule["release"]], there.id if there else None)
    if document.get("shadow") in ids and document["shadow"]:
        store.set_shadow(ids[document["shadow"]])
    return {
        "releases_restored": len(ids) - 1, "rules_restored": len(rules) - len(lost),
        "rules_lost": lost,
    }  # fmt: skip


def _whole(config: NodeConfig, row: ReleaseRow | None) -> bool:
    if row is None:
        return True
    try:
        check_whole(config, row)
    except RegistryError:
        return False
    return True


def _not_pinned(config: NodeConfig) -> None:
    if config.model.release:
        raise ConfigError(
            f"model.release in the configuration names {config.model.release} for every study",
            "empty it and restart the node; then this command decides",
        )


def _rule_of(store: Store, scope: Scope) -> Rule | None:
    return next((rule for rule in store.rules() if rule.scope == scope), None)


def _by_id(config: NodeConfig, store: Store, release_id: int) -> Named:
    return next(one for one in named_releases(config, store) if one.row.id == release_id)


def _named(config: NodeConfig, row: ReleaseRow) -> Named:
    if row.sha256 is not None:
        return Named(row, row.name, row.version, row.sha256)
    folder, sha256 = folder_of(config, row)
    try:
        manifest = read_manifest(folder)
    except CoreError as error:
        raise RegistryError(str(error.args[0]), error.advice) from None
    return Named(row, manifest.name, manifest.version, sha256)


def _names(one: Named, wanted: str) -> set[str]:
    names = {one.name, f"{one.name}/{one.version}"}
    if one.row.sha256 is None:
        names.add(PACKAGED)
    if len(wanted) >= _DIGEST_PART and one.sha256.startswith(wanted.lower()):
        names.add(wanted)
    return names


__all__ = [
    "DEFAULT_SCOPE", "Named", "PreparedSwitch", "add_release", "begin_shadow", "commit_switch",
    "end_shadow", "find_release", "named_releases", "prepare_switch", "record", "reject",
    "restore", "roll_back", "unassign",
]  # fmt: skip
