"""Who gets in, how long, and that nobody else does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from fastapi.routing import APIRoute

from dicom_node.clock import ManualClock
from dicom_node.domain.account import Role, password_problem
from dicom_node.errors import ConfigError
from dicom_node.store.store import Store
from dicom_node.web.app import create_app
from dicom_node.web.console import Console
from dicom_node.web.hardening import BODY_LIMIT
from dicom_node.web.pages import login, models, overview, peers, records, settings, studies
from dicom_node.web.throttle import FREE_FAILURES, LONGEST_WAIT_S, LoginThrottle
from tests.web.conftest import PASSWORD, Browser

Open = Callable[[], Browser]
AsRole = Callable[[Role], Browser]
Account = Callable[[str, Role], str]
PUBLIC = {("GET", "/login"), ("POST", "/login"), ("GET", "/welcome/{code}"),
          ("POST", "/welcome/{code}")}  # fmt: skip
MODULES = (login, models, overview, peers, records, settings, studies)
ADMINS = {"/settings/", "/audit", "/models/", "/peers/"}


def routes() -> Iterator[tuple[str, str]]:
    """Every page as (method, path)."""
    for module in MODULES:
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods:
                yield method, route.path


def filled(path: str) -> str:
    """A path with something in its places."""
    path = re.sub(r"\{(number|refusal_id)\}", "1", path)
    return re.sub(r"\{\w+\}", "x", path)


def test_nothing_is_shown_or_done_without_a_login(browser: Open) -> None:
    visitor = browser()
    seen = 0
    for method, path in routes():
        if (method, path) in PUBLIC:
            continue
        answer = visitor.http.request(method, filled(path), follow_redirects=False)
        assert (answer.status_code, answer.headers["location"][:6]) == (303, "/login"), path
        seen += 1
    assert seen > 25


def test_every_change_needs_the_token_of_the_session_and_the_own_origin(as_role: AsRole) -> None:
    admin = as_role(Role.ADMIN)
    changes = [
        path for method, path in routes() if method == "POST" and ("POST", path) not in PUBLIC
    ]
    assert len(changes) > 15
    for path in changes:
        for fields, headers in (
            ({}, {}), ({"csrf": "0" * 64}, {}),
            ({"csrf": admin.csrf()}, {"Origin": "http://other.test"}),
            ({"csrf": admin.csrf()}, {"Sec-Fetch-Site": "cross-site"}),
            ({"csrf": admin.csrf()}, {"Sec-Fetch-Site": "same-site"}),
        ):  # fmt: skip
            answer = admin.http.post(filled(path), data=fields, headers=headers,
                                     follow_redirects=False)  # fmt: skip
            assert answer.status_code == 403, path
    assert admin.get("/").status_code == 200, "nobody was logged out"


def test_a_viewer_changes_nothing_and_an_operator_no_configuration(as_role: AsRole) -> None:
    viewer, operator = as_role(Role.VIEWER), as_role(Role.OPERATOR)
    own = {"/logout", "/account/password"}
    operators = {path for _, path in routes() if path.startswith("/studies")}
    operators |= {"/peers/{name}/echo", "/peers/{name}/probe"}
    for method, path in routes():
        if method != "POST" or ("POST", path) in PUBLIC or path in own:
            continue
        assert viewer.post(filled(path)).status_code == 403, path
        if path not in operators:
            assert operator.post(filled(path)).status_code == 403, path
    for path in ("/audit", "/settings/users", "/settings/tokens", "/settings/configuration",
                 "/peers/new"):  # fmt: skip
        assert viewer.get(path).status_code == operator.get(path).status_code == 403
    page = viewer.get("/peers").text + viewer.get("/models").text
    assert "Settings" not in page
    assert page.count("<form") == page.count('action="/logout"'), "no button that would be refused"


def test_login_gives_a_cookie_that_scripts_and_other_sites_do_not_get(
    browser: Open, account: Account, store: Store
) -> None:
    visitor = browser()
    answer = visitor.log_in(account("ann", Role.VIEWER), to="/studies?q=1.2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies?q=1.2")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "secure" not in cookie
    secret = visitor.http.cookies["session"]
    assert secret.encode() not in store._engine.url.database.encode()
    page = visitor.get("/")
    assert page.status_code == 200 and secret not in page.text
    assert visitor.post("/logout").headers["location"] == "/login"
    visitor.http.cookies.set("session", secret)
    assert visitor.get("/").status_code == 303, "the session itself has ended"
    assert [row.event for row in store.audit_list()] == ["login", "logout"]


@pytest.mark.parametrize("settings", [{"web": {"public_url": "https://node.test"}}])
def test_over_https_the_cookie_is_bound_to_it(browser: Open, account: Account) -> None:
    visitor = browser()
    answer = visitor.log_in(account("ann", Role.VIEWER))
    assert answer.headers["set-cookie"].startswith("__Host-session=")
    assert "secure" in answer.headers["set-cookie"].lower()
    assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize(
    "to", ["//other.test", "https://other.test", "/\\other.test", "/login", "javascript:1", ""]
)
def test_login_leads_nowhere_else(browser: Open, account: Account, to: str) -> None:
    assert browser().log_in(account("ann", Role.VIEWER), to=to).headers["location"] == "/"


def test_a_session_ends_when_it_is_idle_or_old_and_a_page_that_refreshes_is_idle(
    browser: Open, account: Account, clock: ManualClock
) -> None:
    visitor = browser()
    visitor.log_in(account("ann", Role.VIEWER))
    for _ in range(4):
        clock.advance(20 * 60)
        assert visitor.get("/").status_code == 200
    for _ in range(4):
        clock.advance(10 * 60)
        last = visitor.get("/", headers={"X-Refresh": "1", "HX-Request": "true"})
    assert (last.status_code, last.headers["hx-redirect"]) == (401, "/login")
    visitor.log_in("ann")
    for _ in range(12 * 3):
        clock.advance(20 * 60 + 1)
        last = visitor.get("/")
    assert last.status_code == 303, "twelve hours are over"


def test_guessing_is_slowed_down_and_recorded(
    browser: Open, account: Account, clock: ManualClock, store: Store
) -> None:
    visitor = browser()
    account("ann", Role.VIEWER)
    for _ in range(FREE_FAILURES):
        assert visitor.log_in("ann", "wrong").status_code == 401
    assert visitor.log_in("nobody", "wrong").status_code == 401, "another account is not concerned"
    assert visitor.log_in("ann").status_code == 429
    clock.advance(2.1)
    assert visitor.log_in("ann", "wrong").status_code == 401
    clock.advance(2.1)
    assert visitor.log_in("ann").status_code == 429, "the wait has doubled"
    clock.advance(2.1)
    assert visitor.log_in("ann").status_code == 303
    records = [row.message for row in store.audit_list()]
    assert sum('EventOutcomeIndicator="4"' in text for text in records) >= 2
    assert all("wrong</" not in text or "password is wrong" in text for text in records)


def test_the_throttle_is_bounded_in_time_and_memory() -> None:
    clock = ManualClock()
    throttle = LoginThrottle(clock)
    for number in range(20_000):
        throttle.failed(f"name{number}", f"10.0.{number % 256}.1")
    assert len(throttle._failures) <= 10_000
    for _ in range(100):
        throttle.failed("ann", "10.9.9.9")
    assert 0 < throttle.wait_s("ann", "10.9.9.9") <= LONGEST_WAIT_S
    clock.advance(LONGEST_WAIT_S + 1)
    assert throttle.wait_s("ann", "10.9.9.9") == 0


def test_a_one_time_code_counts_once_and_for_a_day(
    browser: Open, console: Console, clock: ManualClock
) -> None:
    code = console.accounts.add("ann", Role.ADMIN)
    visitor, thief = browser(), browser()
    assert "ann" in visitor.get(f"/welcome/{code}").text
    weak = visitor.http.post(f"/welcome/{code}", data={"password": "short", "again": "short"})
    assert (weak.status_code, "at least 12" in weak.text) == (400, True)
    other = visitor.http.post(f"/welcome/{code}", data={"password": PASSWORD, "again": "x"})
    assert other.status_code == 400
    same = {"password": PASSWORD, "again": PASSWORD}
    done = visitor.http.post(f"/welcome/{code}", data=same, follow_redirects=False)
    assert (done.status_code, visitor.get("/").status_code) == (303, 200)
    assert thief.http.post(f"/welcome/{code}", data=same).status_code == 400
    late = console.accounts.add("bea", Role.VIEWER)
    clock.advance(86_401)
    assert browser().get(f"/welcome/{late}").status_code == 404


def test_a_change_of_password_or_role_ends_every_session(
    browser: Open, account: Account, console: Console
) -> None:
    account("root", Role.ADMIN)
    name = account("ann", Role.OPERATOR)
    here, there = browser(), browser()
    for one in (here, there):
        one.log_in(name)
    assert here.post("/account/password", old="wrong one here", new=PASSWORD, again=PASSWORD
                     ).status_code == 400  # fmt: skip
    fresh = "another sentence, as long"
    assert here.post("/account/password", old=PASSWORD, new=fresh, again=fresh).status_code == 303
    assert there.get("/").status_code == 303
    there.log_in(name, fresh)
    console.accounts.set_role(name, Role.VIEWER)
    assert there.get("/").status_code == 303
    there.log_in(name, fresh)
    console.accounts.remove(name)
    assert there.get("/").status_code == 303


def test_the_last_administrator_stays(console: Console, account: Account) -> None:
    account("root", Role.ADMIN)
    console.accounts.add("waits", Role.ADMIN)  # has no password yet: nobody could log in
    for change in (lambda: console.accounts.remove("root"),
                   lambda: console.accounts.set_role("root", Role.VIEWER)):  # fmt: skip
        with pytest.raises(ConfigError, match="last administrator"):
            change()
    account("second", Role.ADMIN)
    console.accounts.remove("root")


@pytest.mark.parametrize(
    ("password", "said"),
    [("short", "at least 12"), ("a" * 200, "at most"), ("ababababababab", "different"),
     ("my name is ann-marie", "name")],
)  # fmt: skip
def test_weak_passwords_are_not_taken(password: str, said: str) -> None:
    assert said in password_problem(password, "ann-marie")


def test_every_answer_is_hardened(browser: Open) -> None:
    visitor = browser()
    for path in (
        "/login",
        "/no-such-page",
        "/static/console.css",
        "/health/live",
        "/api/v1/status",
    ):
        headers = visitor.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
    assert visitor.get("/login").headers["cache-control"] == "no-store"


def test_a_request_that_is_too_long_is_refused_before_it_is_read(browser: Open) -> None:
    visitor = browser()
    assert visitor.http.post("/login", content=b"x" * (BODY_LIMIT + 1)).status_code == 413
    assert visitor.http.post("/api/v1/peers", content=b"x" * (BODY_LIMIT + 1)).status_code == 413


def test_pages_hold_no_inline_script_or_style(as_role: AsRole) -> None:
    admin = as_role(Role.ADMIN)
    pages = [path for method, path in routes() if method == "GET" and "{" not in path]
    pages = [path for path in pages if path not in ("/login", "/models/compare")]
    assert len(pages) > 9
    for path in pages:
        text = admin.get(path).text
        assert "Research use only" in text, path
        assert not re.search(r"<script(?![^>]*src=\"/static/)|<style|\sstyle=|\son\w+=", text), path
        assert not re.search(r"(src|href)=\"(https?:)?//", text), "nothing from elsewhere"
        for identifier in re.findall(r'\sid="([^"]+)"', text):
            assert text.count(f' id="{identifier}"') == 1, (path, identifier)


def test_health_needs_no_login(browser: Open, console: Console) -> None:
    assert browser().get("/health/live").json() == {"status": "live"}
    assert set(browser().get("/health/ready").json()) == {"status", "checks", "why"}
    assert create_app(console).openapi_url is None
