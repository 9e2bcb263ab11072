"""Metrics, readiness by heart-beats, alarms and canaries as console and API show them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from dicom_node.clock import ManualClock
from dicom_node.config import PeerConfig
from dicom_node.domain.account import Role
from dicom_node.domain.alarm import AlarmCode, Limits, Raised
from dicom_node.domain.canary import STUDY_ROOT, Judgement, RunState
from dicom_node.domain.roles import ALIVE_S, NEEDED, ProcessRow
from dicom_node.store.store import Store
from dicom_node.web.app import create_app
from dicom_node.web.console import Console
from tests.conftest import ROOT
from tests.store.life import live
from tests.web.conftest import Browser

Program = Callable[[Role], TestClient]
DEPLOY = ROOT / "deploy" / "prometheus"


def beat(store: Store, clock: ManualClock, *roles: str) -> None:
    for role in roles:
        now_s = clock.now_s()
        store.process_beat(ProcessRow(f"{role:_<32}", role, "", 7, "1.0", now_s, now_s))


def samples(client: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_ready_needs_each_role_to_be_seen_lately(
    browser: Callable[[], Browser], store: Store, clock: ManualClock
) -> None:
    http = browser().http
    beat(store, clock, *NEEDED)
    assert http.get("/health/ready").json() == {
        "status": "ready",
        "checks": dict.fromkeys(("database", "storage", *NEEDED), "ok"),
    }
    for role in NEEDED:
        clock.advance(ALIVE_S + 1)
        beat(store, clock, *(other for other in NEEDED if other != role))
        answer = http.get("/health")
        assert (answer.status_code, answer.json()["why"]) == (503, f"{role}: not seen")
        assert http.get("/health/live").status_code == 200
    store.close()


def test_a_database_that_does_not_answer_is_not_ready(
    browser: Callable[[], Browser], console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError

    monkeypatch.setattr(console.store, "processes", fail)
    answer = browser().http.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": "does not answer (OSError)"}


def test_metrics_tell_what_was_counted(program: Program, store: Store, clock: ManualClock) -> None:
    for _ in live(store, clock):
        pass
    beat(store, clock, "worker", "delivery")
    found = samples(program(Role.VIEWER))
    status = store.status()
    counted = store.counters()
    for name in ("studies", "instances"):
        assert found[f"dicom_node_received_{name}_total", ()] == counted[f"{name} received", ""]
        assert found[f"dicom_node_held_{name}", ()] == status["held"][name]
    assert found["dicom_node_received_studies_total", ()] == status["held"]["studies"] - 1, (
        "a canary"
    )
    for state, n in status["revisions"].items():
        assert found["dicom_node_revisions", (state,)] == n
    assert found["dicom_node_analysis_seconds_bucket", ("5.0",)] == 0
    assert found["dicom_node_analysis_seconds_bucket", ("10.0",)] == 1
    assert found["dicom_node_analysis_seconds_sum", ()] == 7.0
    assert found["dicom_node_refused_total", ("unknown",)] == 1
    assert found["dicom_node_processes_alive", ("worker",)] == 1
    assert found["dicom_node_processes_alive", ("receiver",)] == 0
    assert found["dicom_node_canary_passed", ()] == 0
    assert found["dicom_node_alarms", ("disk_low",)] == 0
    assert found["dicom_node_storage_healthy", ()] == 1
    assert found["dicom_node_disk_free_bytes", ()] > 0


def test_metrics_name_no_study_and_no_sender(
    program: Program, store: Store, clock: ManualClock
) -> None:
    for _ in live(store, clock):
        pass
    text = program(Role.VIEWER).get("/metrics").text
    assert "1.2.1" not in text and STUDY_ROOT not in text and "P1" not in text
    assert len(text.splitlines()) < 400


def test_G5_refusals_of_many_kinds_make_few_series(program: Program, store: Store) -> None:
    for number in range(30):
        store.record_refusal(f"AE{number}", "X", "10.0.0.1", f"tls_failed: word {number}")
        store.record_refusal(f"AE{number}", "X", "10.0.0.1", f"What {number}?")
    found = samples(program(Role.VIEWER))
    reasons = {
        labels[0]: n for (name, labels), n in found.items() if name.endswith("refused_total")
    }
    assert reasons == {"tls_failed": 30, "other": 30}


def test_metrics_need_a_token(browser: Callable[[], Browser]) -> None:
    answer = browser().http.get("/metrics")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("settings", [{"metrics": {"scrape_from": ["10.1.0.0/16"]}}])
@pytest.mark.parametrize(
    ("address", "status"), [("10.1.2.3", 200), ("::ffff:10.1.2.3", 200), ("10.2.0.1", 401)]
)
def test_a_scraper_is_known_by_its_address(console: Console, address: str, status: int) -> None:
    with TestClient(create_app(console), client=(address, 1)) as client:
        answer = client.get("/metrics", headers={"X-Forwarded-For": "10.1.2.3"})
        assert answer.status_code == status


def test_alarms_and_canaries_are_shown(
    as_role: Callable[[Role], Browser], program: Program, store: Store, clock: ManualClock
) -> None:
    api, viewer = program(Role.VIEWER), as_role(Role.VIEWER)
    assert "Nothing is wrong" in viewer.get("/alarms").text
    wrong = [Raised(AlarmCode.DESTINATION_FAILING, "pacs <b>", "the oldest object waits for 2.0 h")]
    store.alarms_turn(wrong, Limits(), (), lambda _: "{}")
    run = store.canary_begin(STUDY_ROOT + "1", scheduled=True)
    clock.advance(12)
    store.canary_end(run, Judgement(RunState.PASSED, "3 objects made, none sent"))
    beat(store, clock, "worker")
    clock.advance(3)
    page = viewer.get("/alarms").text
    assert "results do not reach a destination" in page and "pacs &lt;b&gt;" in page
    assert "3 objects made, none sent" in page and "12 s" in page
    first = viewer.get("/").text
    assert "Results do not reach a destination (pacs &lt;b&gt;)" in first
    assert re.search(r"<b>worker</b> last seen 3 s ago", first)
    (alarm,) = api.get("/api/v1/alarms?going_on=true").json()
    assert (alarm["code"], alarm["severity"], alarm["ended_at"]) == (
        "destination_failing", "critical", None,
    )  # fmt: skip
    (told,) = api.get("/api/v1/canaries").json()
    assert (told["state"], told["seconds"]) == ("passed", 12.0)
    status = api.get("/api/v1/status").json()
    assert (status["alarms"], status["processes"][0]["alive"]) == (1, True)


def test_the_rules_for_prometheus_name_metrics_that_there_are(
    program: Program, store: Store, clock: ManualClock
) -> None:
    for _ in live(store, clock):
        pass
    store.peer_add(
        PeerConfig(name="pacs", ae_title="P", host="10.0.0.5", port=104, receives_results=True)
    )
    there = {name for name, _ in samples(program(Role.VIEWER))} | {"up"}
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 8
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        named = set(re.findall(r"\b(?:dicom_node_\w+|up)\b", rule["expr"]))
        assert named and named <= there, (rule["alert"], named - there)
        assert {"summary", "description"} == set(rule["annotations"])
        assert re.fullmatch(r"\d+[smh]", rule["for"])
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert scrape["rule_files"] == ["alerts.yml"]
    assert Path(DEPLOY / scrape["rule_files"][0]).exists()
