"""A browser that looks at the pages, and what it must never have to complain of."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connections
from django.test import Client
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = 1280, 400
PICTURES = Path(__file__).resolve().parents[2] / "var" / "screenshots"
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """The system's Chromium, without a window; for one test, since its event loop would disturb others."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.exit(f"None of {', '.join(NAMES)} is installed: install your system's package of Chromium.", 3)
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
        self.context = browser.new_context(viewport={"width": WIDE, "height": 900}, base_url=address, **options)
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

    def check_access(self) -> None:
        """Fail with what axe finds on our part of the page."""
        found = Axe().run(self.page, context="#content", options=RULES).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []

    def take_picture(self, name: str) -> None:
        """Keep what the page looks like, for people to look at."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


@pytest.fixture
def visit(browser: Browser, live_server: Any) -> Iterator[Callable[..., Visitor]]:
    """Let somebody with the named permissions, or a superuser, look at the site."""
    visitors: list[Visitor] = []
    cache.clear()

    def begin(*codenames: str, **options: Any) -> Visitor:
        user = User.objects.create_user(f"asha{len(visitors)}", is_staff=True, is_superuser=not codenames)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        visitors.append(Visitor(browser, live_server.url, user, **options))
        return visitors[-1]

    yield begin
    for visitor in visitors:
        # An answer that is still being made would hold on to the database when the test is over.
        visitor.page.wait_for_load_state("networkidle")
        visitor.context.close()
        assert visitor.complaints == []
