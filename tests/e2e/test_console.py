"""An administrator before Chromium, from the first login to the rollback of a release.

One node serves all of it: login, an AE title added and echoed, its connection examined, a refused
sender allowed, a study watched to its delivery, one looked at anew, drift, a release activated and
rolled back.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dicom_node.errors import DeliveryError
from dicom_node.net.standin import PacsStandIn
from dicom_node.phantom import Role
from tests.releases import repackage
from tests.running import NodeUnderTest, wait_until
from tests.studies import study_uid

pytestmark = [pytest.mark.slow, pytest.mark.interop, pytest.mark.timeout(600)]

MakeStudy = Callable[..., list[Path]]
PASSWORD = "first words of an administrator"
WAIT_MS = 60_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (make system)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of a fresh profile; whatever it complains of fails the test."""
    context = chromium.new_context()
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)  # its own is 5 s: too short for a machine that is busy
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    yield opened
    context.close()
    assert complaints == []


@pytest.fixture
def empty_node(tmp_path: Path) -> Iterator[NodeUnderTest]:
    """A node that knows nobody. A pause of a busy machine in a sending makes no second revision."""
    under_test = NodeUnderTest(tmp_path / "node", "", quiet_s=5.0)
    under_test.start()
    try:
        yield under_test
    finally:
        if under_test.running:
            assert under_test.stop() == 0


def _first_login(page: Page, node: NodeUnderTest) -> str:
    base = next(re.search(r"http://\S+[0-9]", line) for line in node.lines if "http://" in line)
    assert base is not None
    assert any("nobody can log in there yet" in line for line in node.lines)
    code = node.json("users", "add", "ann", "--role", "admin")["code"]
    page.goto(f"{base[0]}/welcome/{code}")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.get_by_role("button", name="Set password and log in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    return base[0]


_WOULD_WAIT = """() => {
  const part = document.querySelector("#overview");
  const request = new CustomEvent("htmx:beforeRequest",
    {bubbles: true, cancelable: true, detail: {elt: part}});
  part.dispatchEvent(request);
  return request.defaultPrevented;
}"""


def _keyboard_keeps_its_place(page: Page) -> None:
    """The page that refreshes by itself does not take the focus away."""
    assert not page.evaluate(_WOULD_WAIT)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#overview a").first).to_be_focused()
    assert page.evaluate(_WOULD_WAIT)


def _add_pacs(page: Page, pacs: PacsStandIn) -> None:
    page.get_by_role("link", name="AE titles", exact=True).click()
    page.get_by_role("link", name="Add an AE title").click()
    page.get_by_label("Name").fill("archive")
    page.get_by_label("AE title", exact=True).fill("PACS")
    page.get_by_label("Host").fill("127.0.0.1")
    page.get_by_label("Port").fill(str(pacs.port))
    page.get_by_label("It may send studies here").uncheck()
    page.get_by_label("It gets the results").check()
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_contain_text("Added archive")
    page.get_by_role("button", name="Echo").click()
    expect(page.locator(".note-line.good").last).to_contain_text("archive:")


def _examine(page: Page, pacs: PacsStandIn) -> None:
    """Watch the examination of a connection to its end; the test study lies there then."""
    page.locator("tr", has_text="archive").get_by_role("link", name="Examine").click()
    expect(page.get_by_text("was not examined yet")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Examine, with the test study").click()
    expect(page.get_by_text("No step failed")).to_be_visible()
    steps = page.locator(".steps li")
    assert [one.split()[0] for one in steps.all_inner_texts()] == [
        "ok", "ok", "skipped", "ok", "ok", "ok", "skipped", "ok", "skipped", "skipped",
    ]  # fmt: skip
    section = page.locator("section", has=page.get_by_role("heading", name="The test study"))
    (uid,) = [one for one in section.locator("code").all_inner_texts() if one[0].isdigit()]
    assert pacs.filed(uid)
    page.get_by_role("link", name="AE titles", exact=True).first.click()


def _allow_sender(page: Page, scanner: PacsStandIn, node: NodeUnderTest, files: list[Path]) -> None:
    with pytest.raises(DeliveryError):
        scanner.send(files[:1], host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")
    card = page.locator("article.refused", has_text="SCANNER_3")
    for _ in range(60):  # the refusal is written beside the work, within seconds
        page.reload()
        if card.count():
            break
    card.get_by_role("link", name="Allow this sender").click()
    expect(page.get_by_label("AE title", exact=True)).to_have_value("SCANNER_3")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_contain_text("It counts from now on")
    expect(card).to_have_count(0)


def _known(node: NodeUnderTest, uid: str) -> None:
    """Images are acknowledged before they have rows: wait for those."""
    wait_until(
        lambda: uid in {row["study_uid"] for row in node.json("studies", "list")}, 60, "the study"
    )


def _watch_to_delivery(
    page: Page, base: str, pacs: PacsStandIn, scanner: PacsStandIn, node: NodeUnderTest,
    files: list[Path],
) -> None:  # fmt: skip
    scanner.send(files, host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")
    uid = study_uid(files)
    _known(node, uid)
    page.goto(f"{base}/studies/{uid}")
    # the page follows the study by itself
    expect(page.locator("h2 .chip.delivered")).to_be_visible(timeout=240_000)
    expect(page.locator(".stages li.done").filter(has_text="delivered")).to_be_visible()
    expect(page.get_by_role("heading", name="Findings")).to_be_visible()
    stored = len(pacs.filed(uid))
    assert stored
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("status")).to_contain_text("sent again")
    expect(page.locator("h2 .chip.delivered")).to_be_visible()
    assert len(pacs.filed(uid)) == stored, "the same objects, not more"


def _retry(
    page: Page, base: str, scanner: PacsStandIn, node: NodeUnderTest, files: list[Path]
) -> None:
    """Look at a study anew that was not analysable: it is judged again, and says why."""
    scanner.send(files, host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")
    _known(node, study_uid(files))
    page.goto(f"{base}/studies/{study_uid(files)}")
    ended = page.locator("h2 .chip.not_analysable")
    expect(ended).to_be_visible(timeout=240_000)
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("status")).to_be_visible()
    expect(page.get_by_text("looked at anew").first).to_be_attached()
    expect(ended).to_be_visible(timeout=240_000)


def _look_at_drift(page: Page) -> None:
    page.get_by_role("link", name="Drift", exact=True).click()
    page.locator("tbody th a").first.click()
    expect(page.locator("h1 .chip")).to_have_text("collecting")
    plot = page.locator("img.plot")
    plot.scroll_into_view_if_needed()
    width = plot.evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert width > 500, "the plot is drawn"
    expect(page.get_by_role("row", name="signal to noise, T2W")).to_contain_text("too few")


def _activate_and_roll_back(page: Page, node: NodeUnderTest, folder: Path) -> None:
    for name, options in (("twin", {}), ("broken", {"significance": b"{}"})):
        repackage(folder / name, name, **options)
        if name == "twin":
            node.command("models", "keys", "make", "site")
        subprocess.run(
            [sys.executable, "-m", "dicom_node", "models", "sign", str(folder / name), "--key",
             "site", "--config", str(node.config_file)], check=True, capture_output=True,
        )  # fmt: skip
        node.command("models", "add", str(folder / name))
    for name, passes in (("broken", False), ("twin", True)):
        menu = page.get_by_role("navigation", name="Console")
        menu.get_by_role("link", name="Models").click()
        page.get_by_label("Release", exact=True).select_option(
            next(row["sha256"] for row in node.json("models", "list") if row["name"] == name)
        )
        page.get_by_role("button", name="Check and rehearse").click()
        if passes:
            expect(page.get_by_text("The rehearsal passed")).to_be_visible(timeout=240_000)
            page.get_by_role("button", name="Switch now").click()
            expect(page.get_by_role("status")).to_contain_text("twin")
        else:
            expect(page.get_by_role("alert")).to_contain_text(
                "Nothing was changed", timeout=240_000
            )
            expect(page.get_by_role("button", name="Switch now")).to_have_count(0)
    assert {row["name"]: row["state"] for row in node.json("models", "list")}["twin"] == "active"
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status")).to_contain_text("before twin")
    assert {row["name"]: row["state"] for row in node.json("models", "list")}["twin"] == "retired"


def _log_out(page: Page, base: str) -> None:
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(f"{base}/studies")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_the_first_day_of_an_administrator(
    page: Page, empty_node: NodeUnderTest, make_study: MakeStudy, tmp_path: Path
) -> None:
    node = empty_node
    with (
        PacsStandIn("PACS", tmp_path / "pacs") as pacs,
        PacsStandIn("SCANNER_3", tmp_path / "scanner") as scanner,
    ):
        base = _first_login(page, node)
        _keyboard_keeps_its_place(page)
        _add_pacs(page, pacs)
        _examine(page, pacs)
        files = make_study("console")
        _allow_sender(page, scanner, node, files)
        _watch_to_delivery(page, base, pacs, scanner, node, files)
        anatomy_alone = make_study("console-t2w", roles=frozenset({Role.T2W_AXIAL}))
        _retry(page, base, scanner, node, anatomy_alone)
        _look_at_drift(page)
        _activate_and_roll_back(page, node, tmp_path)
        _log_out(page, base)
    told = node.json("audit", "list", "--limit", "1000")
    mine = {row["event"] for row in told if 'UserID="ann"' in row["message"]}
    assert mine >= {"login", "logout", "account_changed", "network_configuration",
                    "study_changed", "instances_accessed"}  # fmt: skip
    assert node.json("audit", "verify")["whole"]
    assert PASSWORD not in node.log()
