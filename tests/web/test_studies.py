"""Studies in the pages: lists, search, timeline, what an operator does; and no patient in any."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from dicom_node.clock import ManualClock
from dicom_node.domain.account import Role
from dicom_node.domain.retention import DAY_S
from dicom_node.domain.states import RevisionState
from dicom_node.store.console_rows import StudyQuery
from dicom_node.store.store import Store
from tests.store.life import PACS, RULES, claim, finish_deliveries, image, live, made, plan
from tests.web.conftest import Browser

AsRole = Callable[[Role], Browser]


@pytest.fixture
def lived(store: Store, clock: ManualClock) -> Store:
    """A store in which everything has happened."""
    for _ in live(store, clock):
        pass
    return store


def delivered(store: Store, clock: ManualClock, study: str, patient: str = "P1") -> str:
    """A study whose results have arrived."""
    store.add_instances([image(study, number, clock.now_s(), patient=patient) for number in (1, 2)])
    clock.advance(20)
    plan(store, study, f"key {study}")
    store.finish_analysed(claim(store), made(study), [PACS])
    finish_deliveries(store)
    return study


def test_every_page_of_every_study_opens_and_names_no_patient(
    lived: Store, clock: ManualClock, as_role: AsRole
) -> None:
    secret = "SECRET-PATIENT-7"
    delivered(lived, clock, "1.2.99", secret)
    viewer = as_role(Role.VIEWER)
    listed = set()
    for state in ("", *RevisionState):
        page = viewer.get(f"/studies?state={state}")
        assert page.status_code == 200
        listed |= set(re.findall(r'href="/studies/([0-9.]+)"', page.text))
    assert len(listed) >= 7
    texts = [viewer.get(f"/studies/{uid}").text for uid in listed]
    assert all("Timeline" in text for text in texts)
    assert any("Audit" in text for text in texts) is False
    found = viewer.get("/studies", params={"q": secret})
    assert "1.2.99" in found.text
    shown = [*texts, viewer.get("/").text, viewer.get("/annotations").text]
    shown.append(found.text.replace(f'value="{secret}"', ""))  # what was asked for stays in its box
    assert all(secret not in text for text in shown)
    assert viewer.get("/studies/9.9.9").status_code == 404


def test_a_list_is_read_in_pages_without_gaps(lived: Store, clock: ManualClock) -> None:
    for number in range(7):
        delivered(lived, clock, f"1.3.{number}")
    for state in (None, RevisionState.DELIVERED):
        whole = lived.study_page(StudyQuery(state=state, limit=200)).lines
        seen, after = [], ""
        while True:
            page = lived.study_page(StudyQuery(state=state, after=after, limit=3))
            seen += page.lines
            after = page.after
            if not after:
                break
        assert tuple(seen) == whole
        assert len({(one.study_uid, one.revision) for one in seen}) == len(seen)
    (found,) = lived.study_page(StudyQuery("1.3.4")).lines
    assert found.study_uid == "1.3.4"
    assert lived.study_page(StudyQuery("1.3\x00")).lines == ()


def test_retry_and_release_are_done_and_recorded(lived: Store, as_role: AsRole) -> None:
    operator = as_role(Role.OPERATOR)
    held = lived.study_page(StudyQuery(state=RevisionState.HELD)).lines[0].study_uid
    assert "Release" in operator.get(f"/studies/{held}").text
    assert operator.post(f"/studies/{held}/retry").headers["location"] == f"/studies/{held}"
    assert operator.note(f"/studies/{held}").startswith("good: ")
    assert lived.studies_show(held)[0]["state"] == "receiving"
    operator.post(f"/studies/{held}/retry")
    assert operator.note(f"/studies/{held}").startswith("bad: the study is receiving")
    (told,) = [row.message for row in lived.audit_list() if row.event == "study_changed"]
    assert 'UserID="operator-person"' in told and held in told


def test_results_are_sent_again_byte_for_byte(
    lived: Store, clock: ManualClock, as_role: AsRole
) -> None:
    finish_deliveries(lived)
    study = delivered(lived, clock, "1.2.50")
    before = lived.studies_show(study)[0]
    assert before["state"] == "delivered"
    operator, viewer = as_role(Role.OPERATOR), as_role(Role.VIEWER)
    assert "Send again" not in viewer.get(f"/studies/{study}").text
    operator.post(f"/studies/{study}/resend")
    assert operator.note(f"/studies/{study}") == "good: 2 objects are sent again."
    row = lived.studies_show(study)[0]
    assert row["state"] == "analysed"
    assert {d["state"] for r in row["results"] for d in r["deliveries"]} == {"pending"}
    finish_deliveries(lived)
    after = lived.studies_show(study)[0]
    assert after["state"] == "delivered"
    names = [(one["sop_instance_uid"], one["sha256"]) for one in before["results"]]
    assert names == [(one["sop_instance_uid"], one["sha256"]) for one in after["results"]]
    operator.post(f"/studies/{study}/resend", peer="nobody")
    assert operator.note(f"/studies/{study}").startswith("bad: there is no peer")


def test_a_report_without_a_result_keeps_its_state_when_it_is_sent_again(
    lived: Store, as_role: AsRole
) -> None:
    finish_deliveries(lived)
    study = "1.2.3"
    assert lived.studies_show(study)[0]["state"] == "not_analysable"
    as_role(Role.OPERATOR).post(f"/studies/{study}/resend")
    row = lived.studies_show(study)[0]
    assert row["state"] == "not_analysable"
    assert {d["state"] for r in row["results"] for d in r["deliveries"]} == {"pending"}
    finish_deliveries(lived)
    assert lived.studies_show(study)[0]["state"] == "not_analysable"


def test_a_study_whose_images_are_removed_says_so(
    store: Store, clock: ManualClock, as_role: AsRole
) -> None:
    study = delivered(store, clock, "1.2.70")
    store.end_checks("pacs", "off")
    clock.advance(40 * DAY_S)
    (place,) = store.retention_page(images=True, before_s=clock.now_s(), after=None, limit=5)
    assert store.remove_due(place.study_id, RULES) is not None
    page = as_role(Role.OPERATOR).get(f"/studies/{study}").text
    assert "The images of this study were removed on" in page
    assert "images removed by retention" in page
    assert "Send again" in page, "the results are kept"
