"""Who is trained on, who decides when to stop, and who is locked away for the gate.

By patient, within each class, in an order that follows from the seed. Roles that were dealt once
stay, so that a hold-out stays one while annotations are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from ai_core.adapt.cases import SiteCase
from ai_core.adapt.plan import AdaptPlan


class Role(StrEnum):
    """What an annotated patient is used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    HOLDOUT = "holdout"


def deal(cases: Sequence[SiteCase], plan: AdaptPlan, known: Mapping[str, Role]) -> dict[str, Role]:
    """Return a role for each annotated patient; ``known`` ones keep theirs."""
    positive: dict[str, bool] = {}
    for case in cases:
        if case.annotated:
            positive[case.patient] = positive.get(case.patient, False) or bool(case.positive)
    roles: dict[str, Role] = {}
    for wanted in (True, False):
        group = [name for name, is_positive in positive.items() if is_positive == wanted]
        roles |= _deal_class(sorted(group, key=lambda name: _chance(name, plan.seed)), plan, known)
    return roles


def _deal_class(
    group: Sequence[str], plan: AdaptPlan, known: Mapping[str, Role]
) -> dict[str, Role]:
    count = len(group)
    locked = round(plan.holdout * count)
    if count >= 2 * plan.fewest_of_each:
        locked = max(locked, plan.fewest_of_each)
    watched = round(plan.validation * (count - locked))
    if count - locked >= 2:
        watched = max(watched, 1)
    roles = {name: known[name] for name in group if name in known}
    wanted = (
        [Role.HOLDOUT] * (locked - _count(roles.values(), Role.HOLDOUT))
        + [Role.VALIDATION] * (watched - _count(roles.values(), Role.VALIDATION))
        + [Role.TRAIN] * count
    )
    new = [name for name in group if name not in known]
    return roles | dict(zip(new, wanted, strict=False))


def _count(roles: Iterable[Role], wanted: Role) -> int:
    return sum(role == wanted for role in roles)


def _chance(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()
