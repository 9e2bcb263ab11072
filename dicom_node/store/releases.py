"""Releases of the model, the rules that name them, and what shadow releases said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, update

from dicom_node.domain.assignment import DEFAULT_SCOPE, Rule, Scope
from dicom_node.domain.states import ReleaseEvent, ReleaseState, next_release_state
from dicom_node.errors import ConfigError, StoreError
from dicom_node.store.base import Database
from dicom_node.store.release_schema import assignments, releases, shadow_runs
from dicom_node.store.rows import ReleaseRow, ShadowRow

MAX_SHADOW_RUNS = 20_000
"""So many are kept, the latest (G5)."""
_MEANWHILE = "look at dicom-node models list, then decide again"


class ReleaseStore(Database):
    """Transactions of the registry."""

    def releases(self) -> list[ReleaseRow]:
        """Return all releases, in the order in which they were added; the packaged one first."""
        with self._read() as db:
            return [_release(row) for row in db.execute(select(releases).order_by(releases.c.id))]

    def release_add(self, sha256: str, name: str, version: str, parent: str | None) -> ReleaseRow:
        """Register a release as candidate.

        Raises:
            ConfigError: its digest is registered.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            _lock(db)
            known = select(releases.c.id).where(releases.c.sha256 == sha256)
            if db.execute(known).first() is not None:
                raise ConfigError(f"release {sha256[:12]} is registered", "see models list")
            db.execute(
                insert(releases).values(
                    sha256=sha256, name=name[:64], version=version[:64], parent=parent,
                    state=ReleaseState.CANDIDATE, added_at=now_s, changed_at=now_s,
                )
            )  # fmt: skip
            added = db.execute(select(releases).where(releases.c.sha256 == sha256)).one()
            return _release(added)

    def rules(self) -> list[Rule]:
        """Return the rules that hold now."""
        query = select(assignments).where(assignments.c.current).order_by(assignments.c.id)
        with self._read() as db:
            return [_rule(row) for row in db.execute(query)]

    def rule_before(self, scope: Scope) -> tuple[Rule, Rule | None]:
        """Return the rule of a scope, and the one that a rollback goes back to.

        Raises:
            ConfigError: there is no rule of this scope.
        """
        with self._read() as db:
            row = _current(db, scope)
            if row is None:
                raise ConfigError(f"there is no rule for {scope}", "see dicom-node models rules")
            before = None
            if row.before_id is not None:
                query = select(assignments).where(assignments.c.id == row.before_id)
                before = _rule(db.execute(query).one())
            return _rule(row), before

    def assign(self, scope: Scope, release_id: int, seen: int | None) -> None:
        """Let a release analyse what a scope names, in one transaction.

        ``seen``: the rule of the scope that the person who decided saw; None: none.

        Raises:
            StoreError: the rule changed meanwhile; nothing was done.
            ConfigError: the rule names this release already.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            _lock(db)
            row = _current(db, scope)
            if (None if row is None else row.id) != seen:
                raise StoreError(f"the rule for {scope} changed meanwhile", _MEANWHILE)
            if row is not None and row.release_id == release_id:
                raise ConfigError(f"the rule for {scope} names this release already", _MEANWHILE)
            if row is not None:
                _set_current(db, row.id, False)
            db.execute(
                insert(assignments).values(
                    sender=scope.sender, station=scope.station, protocol=scope.protocol,
                    release_id=release_id, before_id=seen, current=True, made_at=now_s,
                )
            )  # fmt: skip
            _settle(db, now_s)

    def rollback(self, scope: Scope, seen: int) -> None:
        """Make the rule before hold again; where there was none, the rule goes.

        Raises:
            StoreError: the rule changed meanwhile; nothing was done.
            ConfigError: the default rule has nothing to go back to.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            _lock(db)
            row = _current(db, scope)
            if row is None or row.id != seen:
                raise StoreError(f"the rule for {scope} changed meanwhile", _MEANWHILE)
            if row.before_id is None and scope == DEFAULT_SCOPE:
                raise ConfigError(
                    "nothing was active before", "activate another one: models activate"
                )
            _set_current(db, row.id, False)
            if row.before_id is not None:
                _set_current(db, row.before_id, True)
            _settle(db, now_s)

    def unassign(self, scope: Scope) -> None:
        """Remove a rule; its studies follow the other rules.

        Raises:
            ConfigError: there is no such rule, or it is the default.
        """
        if scope == DEFAULT_SCOPE:
            raise ConfigError("the default rule stays", "activate another release instead")
        with self._write() as db:
            _lock(db)
            row = _current(db, scope)
            if row is None:
                raise ConfigError(f"there is no rule for {scope}", "see dicom-node models rules")
            _set_current(db, row.id, False)
            _settle(db, self._clock.now_s())

    def set_shadow(self, release_id: int | None) -> None:
        """Let a release run in the shadow, and no other; None: none.

        Raises:
            IllegalTransition: it is active.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            _lock(db)
            shadow = releases.c.state == ReleaseState.SHADOW
            for row in db.execute(select(releases).where(shadow)).all():
                if row.id == release_id:
                    return
                _move(db, row, ReleaseEvent.SHADOW_ENDED, now_s)
            if release_id is not None:
                row = db.execute(select(releases).where(releases.c.id == release_id)).one()
                _move(db, row, ReleaseEvent.SHADOW_BEGUN, now_s)

    def reject(self, release_id: int) -> None:
        """Retire a release that was not activated.

        Raises:
            IllegalTransition: it is active, or retired already.
        """
        with self._write() as db:
            _lock(db)
            row = db.execute(select(releases).where(releases.c.id == release_id)).one()
            _move(db, row, ReleaseEvent.REJECTED, self._clock.now_s())

    # the shadow

    def shadow_add(self, run: ShadowRow) -> None:
        """Write down what a shadow release said; a repeated run replaces the earlier one."""
        values = {
            "study_uid": run.study_uid, "revision": run.revision,
            "active_sha256": run.active_sha256, "shadow_sha256": run.shadow_sha256,
        }  # fmt: skip
        same = [shadow_runs.c[name] == value for name, value in values.items()]
        with self._write() as db:
            db.execute(delete(shadow_runs).where(*same))
            made = insert(shadow_runs).values(
                **values, at=self._clock.now_s(), pair_json=run.pair_json
            )
            db.execute(made)
            surplus = db.execute(select(func.count()).select_from(shadow_runs)).scalar_one()
            surplus -= MAX_SHADOW_RUNS
            if surplus > 0:
                oldest = select(shadow_runs.c.id).order_by(shadow_runs.c.id).limit(surplus)
                gone = list(db.execute(oldest).scalars())
                db.execute(delete(shadow_runs).where(shadow_runs.c.id.in_(gone)))

    def shadow_list(self, one: str, other: str) -> list[ShadowRow]:
        """Return the runs of two releases, whichever was the active one, oldest first."""
        pairs = [(one, other), (other, one)]
        query = select(shadow_runs).where(
            or_(
                *(
                    and_(shadow_runs.c.active_sha256 == a, shadow_runs.c.shadow_sha256 == b)
                    for a, b in pairs
                )
            )
        )
        with self._read() as db:
            rows = db.execute(query.order_by(shadow_runs.c.id)).all()
        return [
            ShadowRow(
                row.study_uid, row.revision, row.active_sha256, row.shadow_sha256, row.pair_json
            )
            for row in rows
        ]


def _lock(db: Connection) -> None:
    """One change at a time (PostgreSQL; SQLite has locked everything)."""
    packaged = select(releases.c.id).where(releases.c.sha256.is_(None))
    db.execute(packaged.with_for_update()).one()


def _current(db: Connection, scope: Scope) -> Row[Any] | None:
    query = select(assignments).where(
        assignments.c.current, assignments.c.sender == scope.sender,
        assignments.c.station == scope.station, assignments.c.protocol == scope.protocol,
    )  # fmt: skip
    return db.execute(query).one_or_none()


def _set_current(db: Connection, rule_id: int, value: bool) -> None:
    db.execute(update(assignments).where(assignments.c.id == rule_id).values(current=value))


def _settle(db: Connection, now_s: float) -> None:
    """Active is what a rule names, and nothing else."""
    named = set(db.execute(select(assignments.c.release_id).where(assignments.c.current)).scalars())
    rows: Sequence[Row[Any]] = db.execute(select(releases)).all()
    for row in rows:
        active = row.state == ReleaseState.ACTIVE
        if row.id in named and not active:
            _move(db, row, ReleaseEvent.ACTIVATED, now_s)
        elif active and row.id not in named:
            _move(db, row, ReleaseEvent.REPLACED, now_s)


def _move(db: Connection, row: Row[Any], event: ReleaseEvent, now_s: float) -> None:
    state = next_release_state(ReleaseState(row.state), event)
    changed = update(releases).where(releases.c.id == row.id)
    db.execute(changed.values(state=state, changed_at=now_s))


def _rule(row: Row[Any]) -> Rule:
    return Rule(row.id, Scope(row.sender, row.station, row.protocol), row.release_id)


def _release(row: Row[Any]) -> ReleaseRow:
    return ReleaseRow(
        row.id, row.sha256, row.name, row.version, row.parent, ReleaseState(row.state),
        row.added_at, row.changed_at,
    )  # fmt: skip
