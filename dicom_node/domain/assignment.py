"""Which release analyses a study: rules over where the study comes from.

Pure: rules and origins of images go in, the rule that holds comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Scope:
    """What a rule is about; an empty criterion holds for everything.

    ``sender``: AE title of who sent the images. ``station``: their Station Name (0008,1010).
    ``protocol``: pattern of their Protocol Name (0018,1030), ``*`` and ``?``, case ignored.
    """

    sender: str = ""
    station: str = ""
    protocol: str = ""

    def __str__(self) -> str:
        named = {"sender": self.sender, "station": self.station, "protocol": self.protocol}
        return ", ".join(f"{name} {value}" for name, value in named.items() if value) or "default"


DEFAULT_SCOPE = Scope()


@dataclass(frozen=True)
class ImageOrigin:
    """Where an image comes from: AE title of the sender, Station Name, Protocol Name."""

    sender: str = ""
    station: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Rule:
    """Studies of a scope are analysed by a release; ``id`` and ``release_id`` are row numbers."""

    id: int
    scope: Scope
    release_id: int


def matches(scope: Scope, origin: ImageOrigin) -> bool:
    """Whether an image falls under a scope. AE titles and stations compare letter by letter."""
    pattern, protocol = scope.protocol.casefold(), origin.protocol.strip().casefold()
    return (
        scope.sender in ("", origin.sender.strip())
        and scope.station in ("", origin.station.strip())
        and (not pattern or fnmatchcase(protocol, pattern))
    )


def specificity(scope: Scope) -> tuple[int, bool, bool, bool, int]:
    """Order of rules: more criteria first, then station, sender, protocol, the longer pattern."""
    named = (bool(scope.station), bool(scope.sender), bool(scope.protocol))
    literal = len(scope.protocol.replace("*", "").replace("?", ""))
    return (sum(named), *named, literal)


def choose(rules: Iterable[Rule], origins: Collection[ImageOrigin]) -> Rule | None:
    """Return the most specific rule that one image of the study falls under; None: no rule does.

    All criteria of a rule must hold for the same image. Between rules that are equally specific
    the older one (lower ``id``) holds.
    """
    fitting = [rule for rule in rules if _holds(rule.scope, origins)]
    return max(fitting, key=lambda rule: (specificity(rule.scope), -rule.id), default=None)


def _holds(scope: Scope, origins: Collection[ImageOrigin]) -> bool:
    return scope == DEFAULT_SCOPE or any(matches(scope, origin) for origin in origins)
