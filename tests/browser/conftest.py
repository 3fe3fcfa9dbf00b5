"""A browser that looks at the pages, and what it must never have to complain of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connections
from django.test import Client
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests import programs

WIDE, NARROW = 1280, 400
TABS_MAX = 100
# Where pictures of the pages are kept; without it none are taken.
PICTURES = os.environ.get("ALYA_PICTURES", "")
LOOK = """element => {
    const style = getComputedStyle(element);
    return [style.outline, style.boxShadow, style.border, style.background, style.textDecoration].join();
}"""
# What it would load beforehand it makes styles of, which the policy forbids.
RULES = {
    "preload": False,
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
}


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """The system's Chromium, without a window; for one test, since its event loop would disturb others."""
    programs.playwright()
    found = programs.chromium()
    # Playwright waits on an event loop of this thread, where Django then suspects every query.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        # Under that loop Django has connections of their own, which nobody would find later.
        connections.close_all()


class Visitor:
    """Somebody who looks at the site with a browser."""

    def __init__(self, browser: Browser, address: str, user: User, **options: Any) -> None:
        self.address = address
        # What takes the pictures adds a style to the page.
        options = {"viewport": {"width": WIDE, "height": 900}, "bypass_csp": bool(PICTURES), **options}
        self.context = browser.new_context(base_url=address, **options)
        client = Client()
        client.force_login(user)
        self.context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": address}])
        # A browser asks for it by itself, and the site has none.
        self.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        self.complaints: list[str] = []
        self.page: Page = self.context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def follow(self, wanted: Locator) -> None:
        """Click on what leads to another page, and wait for that."""
        with self.page.expect_navigation():
            wanted.click()

    def enter(self, wanted: Locator) -> None:
        """Reach with the keyboard alone what leads to another page, and wait for that."""
        self.tab_to(wanted)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")

    def check_access(self) -> None:
        """Fail with what axe finds on our part of the page."""
        found = Axe().run(self.page, context="#content", options=RULES).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []

    def check_width(self) -> None:
        """Fail where the page has to be scrolled sideways to be read."""
        too_wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert too_wide <= 0, f"{self.page.url} is {too_wide} pixels too wide"

    def tab_to(self, wanted: Locator) -> None:
        """Reach something with the Tab key alone, and fail if it does not show that it has the focus."""
        resting = wanted.evaluate(LOOK)
        for _ in range(TABS_MAX):
            self.page.keyboard.press("Tab")
            if wanted.evaluate("element => element === document.activeElement"):
                assert wanted.evaluate(LOOK) != resting, f"{wanted} does not show that it has the focus"
                return
        raise AssertionError(f"{wanted} is not reached by the Tab key")

    def status_of(self, address: str) -> int:
        """Return how the site answers the person who asks for an address."""
        return self.context.request.get(f"{self.address}{address}", max_redirects=0).status

    def take_picture(self, name: str, *, whole: bool = True) -> None:
        """Keep what the page looks like where ALYA_PICTURES says, for people to look at."""
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=whole)


@pytest.fixture
def visit(browser: Browser, live_server: Any) -> Iterator[Callable[..., Visitor]]:
    """Let somebody with the named permissions, or a superuser, look at the site."""
    visitors: list[Visitor] = []
    cache.clear()

    def begin(*codenames: str, **options: Any) -> Visitor:
        user = User.objects.create_user(f"asha{len(visitors) or ''}", is_staff=True, is_superuser=not codenames)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        visitors.append(Visitor(browser, live_server.url, user, **options))
        return visitors[-1]

    yield begin
    for visitor in visitors:
        # An answer that is still being made would hold on to the database when the test is over.
        visitor.page.wait_for_load_state("networkidle")
        visitor.context.close()
        assert visitor.complaints == []
