"""Schemathesis against the described API: whatever it sends, nothing but described answers."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from dicom_node.clock import ManualClock
from dicom_node.domain.account import Role
from dicom_node.passwords import digest
from dicom_node.store.store import Store
from dicom_node.web.app import create_app
from dicom_node.web.console import Console
from tests.store.life import live

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HEADERS = {"Authorization": f"Bearer {'t' * 43}"}
EXAMPLES = 10
"""Of each operation, valid and invalid."""
ELSEWHERE = ("/echo", "/probe", "/rehearsals")
"""These call other machines, or start a process: they have tests of their own."""


@pytest.fixture
def described(console: Console, store: Store, clock: ManualClock) -> schemathesis.BaseSchema:
    for _ in live(store, clock):
        pass
    store.token_add("fuzz", Role.ADMIN, digest("t" * 43), "test", None)
    app = create_app(console)
    chosen = schemathesis.Config.from_dict({"headers": HEADERS})
    return schemathesis.openapi.from_asgi(
        "/api/v1/openapi.json", app, headers=HEADERS, config=chosen
    )


def test_nothing_but_what_is_described(described: schemathesis.BaseSchema) -> None:
    tried = []
    for found in described.get_all_operations():
        operation = found.ok()
        if operation.method == "post" and operation.path.endswith(ELSEWHERE):
            continue
        tried.append(operation.label)
        for mode in schemathesis.GenerationMode:
            _try(operation, mode)
    assert len(tried) > 15


def _try(operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode) -> None:
    if mode is schemathesis.GenerationMode.NEGATIVE and not _takes_something(operation):
        return

    @settings(
        max_examples=EXAMPLES, deadline=None, phases=(Phase.generate,), database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=HEADERS)

    send()


def _takes_something(operation: schemathesis.APIOperation) -> bool:
    taken = (operation.path_parameters, operation.query, operation.body)
    return any(len(part) for part in taken)
