"""Where a release comes from: parent, how it was trained, figures before and after.

It travels with the release, so it names no patient and no case: cases are digests that only the
site can relate to its own, by a key that stays there.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=200)]


class Figure(BaseModel):
    """A figure of the model card. ``before``: of the parent, on the same cases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    cases: Text = ""
    before: float | None = None
    after: float


class SiteStep(BaseModel):
    """A site that training went through. Distances are from the first one; None: it is the first.

    ``embedding``: Frechet distance of the pretrained network's features. ``acquisition``: see
    `ai_core.train.similarity`. ``distance``: what the order follows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    cases: int = Field(ge=0)
    embedding: float | None = None
    acquisition: float | None = None
    distance: float | None = None


class Origin(BaseModel):
    """The training manifest of a release.

    ``parent``: digest of the release whose weights came first. ``trained_on``: how many cases.
    ``cases``: see `case_digest`; anything else than a digest is refused. ``sites``: in the order in
    which training went through them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parent: Digest | None = None
    made_by: Text
    seed: int
    trained_on: int = Field(0, ge=0)
    cases: tuple[Digest, ...] = ()
    figures: tuple[Figure, ...] = ()
    sites: tuple[SiteStep, ...] = ()


def case_digest(name: str, site_key: bytes) -> str:
    """Return the digest that stands for a case: HMAC-SHA-256 of its name under the site's key.

    Raises:
        ValueError: the key is shorter than 16 bytes; names are short enough to try them all.
    """
    if len(site_key) < 16:
        raise ValueError("the key of the site has fewer than 16 bytes")
    return hmac.new(site_key, name.encode(), hashlib.sha256).hexdigest()
