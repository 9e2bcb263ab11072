"""Where the console is served, and the process that serves it."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.errors import WrongUseError
from dicom_node.store.store import Store
from dicom_node.web.hardening import Hardening
from dicom_node.web.listening import check_listening
from dicom_node.web.server import CONNECTIONS, serve
from tests.net.certificates import Authority
from tests.test_commands import Shell


def config_of(**web: object) -> NodeConfig:
    return NodeConfig.model_validate({"web": web})


@pytest.mark.parametrize(
    ("web", "said"),
    [({"bind": "0.0.0.0"}, "readable|read on the way"), ({"plaintext": "off"}, "no certificate"),
     ({"certificate": "/none.pem", "key": "/none.key"}, "cannot be used")],
)  # fmt: skip
def test_it_does_not_start_where_passwords_could_be_read(web: dict[str, str], said: str) -> None:
    with pytest.raises(WrongUseError, match=said):
        check_listening(config_of(**web))


def test_it_starts_where_they_cannot_or_somebody_wants_it() -> None:
    check_listening(config_of())
    check_listening(config_of(bind="0.0.0.0", plaintext="network"))


@contextmanager
def serving(folder: Path, **web: object) -> Iterator[int]:
    """The console in a thread; yields its port."""
    folder.mkdir()
    values = {"node": {"data_dir": folder}, "web": {"port": 0, **web}}
    config = NodeConfig.model_validate(values)
    Store(config.database_url, clock=SystemClock(), create=True).close()
    told: list[dict[str, object]] = []
    stop, up = threading.Event(), threading.Event()

    def announce(message: dict[str, object]) -> None:
        told.append(message)
        up.set()

    thread = threading.Thread(target=serve, args=[config, None, announce, stop])
    thread.start()
    try:
        assert up.wait(60)
        yield int(str(told[0]["port"]))
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_it_speaks_https(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    issued = authority.issue("localhost", "127.0.0.1")
    files = {"certificate": str(issued.certificate), "key": str(issued.key)}
    with serving(tmp_path / "data", **files) as port:
        trust = ssl.create_default_context(cafile=str(authority.file))
        base = f"https://127.0.0.1:{port}"
        answer = httpx.get(f"{base}/login", verify=trust, trust_env=False, timeout=60)
        assert answer.status_code == 200
        assert "strict-transport-security" in answer.headers
        old = ssl.create_default_context(cafile=str(authority.file))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(f"{base}/login", verify=old, trust_env=False, timeout=60).is_success


SLOW = {
    "nothing": b"",
    "half a header": b"GET /login HT",
    "half a body": b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nname",
}


def test_who_sends_too_slowly_gives_the_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.web.patience.REQUEST_S", 0.5)
    with serving(tmp_path / "data") as port:
        slow = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(CONNECTIONS)]
        for connection, sent in zip(slow, cycle(SLOW.values()), strict=False):
            connection.sendall(sent)
        for connection in slow:
            with connection, suppress(ConnectionResetError):
                while connection.recv(4096):  # an answer of 503, then the end
                    pass
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            first, second = (client.get("/login", timeout=60) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 200)


def test_half_a_form_is_not_taken_for_a_whole_one() -> None:
    messages = [{"type": "http.request", "body": b"name=ann&role=a", "more_body": True},
                {"type": "http.disconnect"}]  # fmt: skip
    reached: list[object] = []

    async def app(*arguments: object) -> None:
        reached.append(arguments)

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        reached.append(message)

    asyncio.run(Hardening(app, secure=False)({"type": "http"}, receive, send))
    assert (reached, messages) == ([], [])


def test_serve_ends_with_status_2_before_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[web]\nbind = "0.0.0.0"\n')
    done = subprocess.run(
        [sys.executable, "-m", "dicom_node", "serve", "--config", str(file)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "web.certificate" in done.stderr
    assert not (tmp_path / "node-data").exists()


def test_accounts_and_tokens_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(capsys, monkeypatch)
    file = tmp_path / "node.toml"
    file.write_text("")

    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        return shell.run(*arguments, "--config", file)

    made = shell.json("users", "add", "ann", "--role", "admin", "--config", file)
    assert made["link"] == f"http://127.0.0.1:8042/welcome/{made['code']}"
    for weak in ("short\n", "words of bea-trix\n", "\n"):
        status, _, err = run("users", "add", "bea", "--password-stdin", typed=weak)
        assert (status, err.count("\n")) == (2, 1)
    assert run("users", "add", "bea", "--password-stdin", typed="twelve and more\n")[0] == 0
    rows = {row["name"]: row for row in shell.json("users", "list", "--config", file)}
    assert (rows["ann"]["password"], rows["bea"]["password"]) == ("not chosen yet", "chosen")
    assert run("users", "role", "bea", "operator")[0] == 0
    assert run("users", "reset", "bea")[1].count("/welcome/") == 1
    assert run("users", "remove", "bea")[0] == 0
    secret = run("tokens", "add", "monitor")[1].strip()
    assert len(secret) == 43
    assert secret not in run("tokens", "list")[1]
    assert [run("tokens", "remove", "monitor")[0] for _ in range(2)] == [0, 1]
