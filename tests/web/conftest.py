"""The console over a store, without a network: accounts, a browser, a program with a token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.domain.account import Role
from dicom_node.flow.accounts import Accounts
from dicom_node.flow.audit import AuditTrail
from dicom_node.passwords import hash_password
from dicom_node.store.store import Store
from dicom_node.web.app import create_app
from dicom_node.web.console import Console
from dicom_node.web.rehearsals import Rehearsals
from dicom_node.web.throttle import LoginThrottle
from tests.databases import open_store

PASSWORD = "a sentence that is long"
_TOKEN = re.compile(r'name="csrf" value="([0-9a-f]{64})"')


@dataclass
class Browser:
    """A client that keeps cookies and sends the token of its forms, as a browser does."""

    http: TestClient

    def get(self, path: str, **named: object) -> httpx.Response:
        return self.http.get(path, follow_redirects=False, **named)  # type: ignore[arg-type]

    def csrf(self) -> str:
        found = _TOKEN.search(self.get("/account").text)
        return found[1] if found else ""

    def post(self, path: str, **fields: object) -> httpx.Response:
        return self.http.post(path, data={"csrf": self.csrf(), **fields}, follow_redirects=False)  # type: ignore[return-value]

    def log_in(self, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
        values = {"name": name, "password": password, **fields}
        return self.http.post("/login", data=values, follow_redirects=False)  # type: ignore[return-value]

    def note(self, path: str = "/") -> str:
        """The note that waits on the next page."""
        found = re.search(r'<p class="note-line (\w+)" role="status">([^<]*)<', self.get(path).text)
        return f"{found[1]}: {found[2]}" if found else ""


@pytest.fixture(scope="session")
def password_hash() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def settings() -> dict[str, object]:
    """Sections of the configuration, for a test to change."""
    return {}


@pytest.fixture
def config(tmp_path: Path, settings: dict[str, object]) -> NodeConfig:
    folder = tmp_path / "data"
    folder.mkdir()
    return NodeConfig.model_validate({**settings, "node": {"data_dir": folder}})


@pytest.fixture
def store(config: NodeConfig, clock: ManualClock) -> Iterator[Store]:
    made = open_store(config.database_url, clock, host="here")
    yield made
    made.close()


@pytest.fixture
def console(config: NodeConfig, store: Store, clock: ManualClock) -> Iterator[Console]:
    made = Console(
        config, store, clock, Accounts(store, config, clock), AuditTrail(store, config, clock),
        LoginThrottle(clock), Rehearsals(config),
    )  # fmt: skip
    yield made
    made.rehearsals.close()


@pytest.fixture
def browser(console: Console) -> Iterator[Callable[[], Browser]]:
    """Opens browsers, each with cookies of its own."""
    app = create_app(console)
    opened: list[TestClient] = []

    def open_one() -> Browser:
        client = TestClient(app, base_url="http://node.test", raise_server_exceptions=True)
        opened.append(client)
        return Browser(client)

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def account(store: Store, clock: ManualClock, password_hash: str) -> Callable[[str, Role], str]:
    """Make an account that has chosen `PASSWORD`; returns its name."""

    def make(name: str, role: Role) -> str:
        store.account_add(name, role, f"{name:0>64}", clock.now_s() + 60)
        store.account_password(name, password_hash, None)
        return name

    return make


@pytest.fixture
def as_role(
    browser: Callable[[], Browser], account: Callable[[str, Role], str]
) -> Callable[[Role], Browser]:
    """Open a browser that is logged in with a role."""

    def open_one(role: Role) -> Browser:
        opened = browser()
        assert opened.log_in(account(f"{role}-person", role)).status_code == 303
        return opened

    return open_one


@pytest.fixture
def program(browser: Callable[[], Browser], console: Console) -> Callable[[Role], TestClient]:
    """Return a client with a token of a role."""

    def make(role: Role) -> TestClient:
        client = browser().http
        secret = console.accounts.add_token(f"{role}-token", role, "test", None)
        client.headers["Authorization"] = f"Bearer {secret}"
        return client

    return make
