"""Who may use the API: the role of a bearer token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dicom_node.domain.account import Role
from dicom_node.flow.audit import acting
from dicom_node.passwords import digest
from dicom_node.web.console import console_of
from dicom_node.web.visitors import address_of

_BEARER = HTTPBearer(auto_error=False, description="A token of `dicom-node tokens add`.")


@dataclass(frozen=True)
class Caller:
    """The token of a request."""

    name: str
    role: Role
    address: str

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Record what is done inside as done by the token."""
        with acting(f"token {self.name}", self.address):
            yield


def may(needed: Role) -> Callable[..., Caller]:
    """Return a dependency: a token whose role may do something."""

    def check(
        request: Request,
        sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None,
    ) -> Caller:
        # 256 random bits are not guessed: failures are not counted, so that one wrong program
        # does not lock out the others at its address
        store = console_of(request).store
        found = None if sent is None else store.token(digest(sent.credentials))
        if found is None:
            raise HTTPException(
                401, "send a token: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        if not found.role.includes(needed):
            raise HTTPException(403, f"this token is {found.role}, {needed} is needed")
        return Caller(found.name, found.role, address_of(request))

    return check


Viewer = Annotated[Caller, Depends(may(Role.VIEWER))]
Operator = Annotated[Caller, Depends(may(Role.OPERATOR))]
Admin = Annotated[Caller, Depends(may(Role.ADMIN))]
