"""Alarms on their way to people: a real HTTP server and a real SMTP server on loopback."""

from __future__ import annotations

import hmac
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from aiosmtpd.smtp import AuthResult

from dicom_node.clock import ManualClock
from dicom_node.config import AlarmsSection, NodeConfig
from dicom_node.domain.alarm import AlarmCode, Limits, Raised
from dicom_node.errors import DeliveryError, WrongUseError
from dicom_node.flow import messages
from dicom_node.flow.messages import Messenger, body_of, send_by, trial_body
from dicom_node.net import notify
from dicom_node.store.store import Store
from tests.databases import open_store
from tests.net.certificates import Authority
from tests.webhook import Hook

SECRET = b"a secret of the webhook"
PASSWORD = "the password of the mail"
BODY = b'{"code": "disk_low"}'


class Box(MessageHandler):
    """Keeps what came."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.mails.append(message)


class MailServer(Controller):
    """On any free port."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail_server(context: ssl.SSLContext | None, **options: Any) -> Iterator[tuple[Box, int]]:
    """An SMTP server that demands STARTTLS and a login where it has a certificate."""
    box = Box()

    def check(
        _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> AuthResult:
        return AuthResult(success=data.password == PASSWORD.encode())

    secure = {"tls_context": context, "require_starttls": True, "authenticator": check}
    controller = MailServer(
        box, hostname="127.0.0.1", port=0, **({**secure, **options} if context else options)
    )
    controller.start()
    try:
        yield box, controller.port
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    issued = authority.issue("here", "127.0.0.1", "localhost")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(issued.certificate, issued.key)
    return made


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> dict[str, str]:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return {"secret": str(tmp_path / "secret"), "password": str(tmp_path / "password"),
            "ca": str(authority.file)}  # fmt: skip


def hooked(url: str, files: dict[str, str], **more: object) -> AlarmsSection:
    return AlarmsSection.model_validate(
        {"webhook_url": url, "webhook_secret_file": files["secret"], **more}
    )


def mailed(port: int, files: dict[str, str], **more: object) -> AlarmsSection:
    values = {
        "mail_to": ("physics@hospital.example", "pacs@hospital.example"),
        "mail_from": "node@hospital.example", "mail_host": "127.0.0.1", "mail_port": port,
        "mail_user": "node", "mail_password_file": files["password"], "ca": files["ca"],
    }  # fmt: skip
    return AlarmsSection.model_validate({**values, **more})


def test_a_message_is_posted_over_verified_tls_and_signed(
    context: ssl.SSLContext, files: dict[str, str]
) -> None:
    with Hook(context) as hook:
        notify.post(hooked(hook.url, files, ca=files["ca"]), BODY, 1_700_000_000.9)
        ((headers, body),) = hook.posted
        with pytest.raises(DeliveryError, match="certificate is not accepted"):
            notify.post(hooked(hook.url, files), BODY, 1.0)
        assert len(hook.posted) == 1
    expected = hmac.new(SECRET, b"1700000000." + BODY, "sha256").hexdigest()
    assert body == BODY
    assert headers["X-Node-Signature"] == f"sha256={expected}"
    assert headers["X-Node-Timestamp"] == "1700000000"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "words"), [(302, "redirects are not followed"), (500, "answered 500")]
)
def test_any_other_answer_is_a_failure_and_redirects_are_not_followed(
    files: dict[str, str], status: int, words: str
) -> None:
    with Hook() as other, Hook() as hook:
        hook.status, hook.location = status, other.url
        with pytest.raises(DeliveryError, match=words):
            notify.post(hooked(hook.url, files), BODY, 1.0)
        assert (len(hook.posted), other.posted) == (1, [])


def test_who_is_not_there_or_does_not_answer_costs_a_bounded_time(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(notify, "DEADLINE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DeliveryError, match="did not answer in time"):
            notify.post(hooked(f"http://127.0.0.1:{port}", files), BODY, 1.0)
    with pytest.raises(DeliveryError, match="refused"):
        notify.post(hooked(f"http://127.0.0.1:{port}", files), BODY, 1.0)


def test_a_secret_that_cannot_be_read_is_named(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(WrongUseError, match="cannot read"):
        notify.post(hooked("http://localhost:1", files | {"secret": "/nowhere"}), BODY, 1.0)
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(WrongUseError, match="is empty"):
        notify.post(hooked("http://localhost:1", files), BODY, 1.0)


def test_a_mail_goes_over_starttls_with_a_login(
    context: ssl.SSLContext, files: dict[str, str]
) -> None:
    with mail_server(context) as (box, port):
        config = NodeConfig(alarms=mailed(port, files))
        send_by(config, "mail", trial_body(config, 1_700_000_000.0), 1.0)
        wrong = config.alarms.model_copy(update={"mail_password_file": files["secret"]})
        with pytest.raises(DeliveryError, match=r"refused the login|hung up"):
            notify.send_mail(wrong, box.mails[0])
    (mail,) = box.mails
    assert mail["Subject"] == "[PROSTATE_AI] TEST: this is a test of the way that alarms take"
    assert mail["To"] == "physics@hospital.example, pacs@hospital.example"
    assert mail["Auto-Submitted"] == "auto-generated"


def test_no_mail_goes_in_the_clear_where_tls_was_asked_for(files: dict[str, str]) -> None:
    with mail_server(None) as (box, port):
        config = NodeConfig(alarms=mailed(port, files))
        with pytest.raises(DeliveryError, match="offers no STARTTLS"):
            send_by(config, "mail", trial_body(config, 1.0), 1.0)
        assert box.mails == []
        plain = {"mail_security": "off", "mail_user": "", "mail_password_file": ""}
        config = NodeConfig(alarms=mailed(port, files, **plain))
        send_by(config, "mail", trial_body(config, 1.0), 1.0)
        assert len(box.mails) == 1


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path}/n.sqlite3", clock)
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_an_alarm_waits_for_a_channel_that_fails_and_is_told_once(
    files: dict[str, str], store: Store, clock: ManualClock
) -> None:
    with Hook() as hook:
        hook.status = 503
        config = NodeConfig(alarms=hooked(hook.url, files))
        messenger = Messenger(store, config, clock)
        wrong = [Raised(AlarmCode.DESTINATION_FAILING, "pacs", "the oldest object waits for 2.0 h")]

        def look(now: list[Raised]) -> None:
            store.alarms_turn(
                now, Limits(), ("webhook",), lambda turn: body_of(config, turn, clock.now_s())
            )

        look(wrong)
        look(wrong)
        assert messenger.send_due() == 0
        assert messenger.send_due() == 0, "it rests"
        assert len(hook.posted) == 1
        hook.status = 204
        clock.advance(60)
        assert (messenger.send_due(), messenger.send_due()) == (1, 0)
        look([])
        clock.advance(120)
        look([])
        assert messenger.send_due() == 1
        told = [json.loads(body) for _, body in hook.posted]
    assert [one["event"] for one in told] == ["begin", "begin", "end"]
    assert told[0]["message_id"] == told[1]["message_id"] != told[2]["message_id"]
    assert {one["subject"] for one in told} == {"pacs"}
    assert set(told[0]) == {
        "message_id", "node", "host", "at", "event", "code", "subject", "severity", "words",
        "found", "advice", "began_at",
    }  # fmt: skip


def test_what_nobody_foresaw_delays_one_message_and_no_other(
    files: dict[str, str], store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise UnicodeEncodeError("ascii", "é", 0, 1, "not ASCII")

    config = NodeConfig(alarms=hooked("https://h.example/x", files))
    store.notice_add("webhook", "{}")
    with monkeypatch.context() as broken:
        broken.setattr(messages, "send_by", fail)
        assert Messenger(store, config, clock).send_due() == 0
    clock.advance(60)
    (waiting,) = store.notices_due()
    assert waiting.attempts == 1


def test_a_message_is_given_up_after_a_day(
    files: dict[str, str], store: Store, clock: ManualClock
) -> None:
    with Hook() as hook:
        hook.status = 500
        messenger = Messenger(store, NodeConfig(alarms=hooked(hook.url, files)), clock)
        store.notice_add("webhook", "{}")
        store.notice_add("mail", "{}")  # a channel that is off by now
        tries = 0
        while store.notices_waiting_s() and tries < 500:
            messenger.send_due()
            clock.advance(900)
            tries += 1
    assert 90 <= len(hook.posted) <= 110, "a quarter of an hour between the last tries"


def test_G5_messages_that_nobody_takes_are_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.store.alarms.KEPT_NOTICES", 5)
    for _ in range(12):
        store.notice_add("webhook", "{}")
    assert [one.id for one in store.notices_due()] == [8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"webhook_url": "http://elsewhere.example/x", "webhook_secret_file": "s"}, "without TLS"),
        ({"webhook_url": "https://a.example/x"}, "webhook_secret_file"),
        ({"webhook_url": "ftp://a.example"}, "an address such as"),
        ({"webhook_url": "https://a.example:100000/x", "webhook_secret_file": "s"}, "port"),
        ({"mail_to": ["a@b"]}, "mail_host"),
        ({"mail_to": ["nobody"]}, "no mail address"),
        ({"mail_user": "x"}, "mail_password_file"),
        ({"mail_user": "x", "mail_password_file": "y", "mail_security": "off"}, "over TLS alone"),
        ({"duty_hours": "always"}, "no hours"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AlarmsSection.model_validate(settings)
