"""The example's settings, which are copied: production is refused what a demo may do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from secrets import token_urlsafe

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("ALLOWED_HOSTS", "CACHE_URL", "DATABASE_URL", "DEBUG", "S3_BUCKET", "SECRET_KEY", "STORAGE_DIR")
LOOK = """
import json, django
django.setup()
from django.test import Client
client = Client(headers={"host": "bank.example.com"})
found = {}
for address in ("/admin/login/", "/bank/login/", "/nowhere/"):
    response = client.get(address, secure=True)
    found[address] = [response.status_code, dict(response.headers), response.text]
print(json.dumps(found))
"""
KEY = token_urlsafe(64)
PRODUCTION = {"SECRET_KEY": KEY, "ALLOWED_HOSTS": "bank.example.com"}
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=3600; includeSubDomains; preload",
    "Content-Security-Policy": POLICY,
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run Python in the example project with nothing in its environment but what is given."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in OURS}
        environment |= {"DJANGO_SETTINGS_MODULE": "example_project.settings", "VAR_DIR": str(tmp_path), **variables}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.rule("SEC-4")
def test_without_debug_there_must_be_a_secret_key(run: Run) -> None:
    """Production without a key does not start, and says which variable it wants."""
    refused = run("manage.py", "check", DEBUG="0")

    assert refused.returncode != 0
    assert "SECRET_KEY" in refused.stderr.splitlines()[-1]


@pytest.mark.rule("SEC-4")
@pytest.mark.parametrize(("given", "is_debug"), [({}, True), ({"SECRET_KEY": KEY}, False), ({"DEBUG": "1"}, True)])
def test_whoever_gives_a_key_has_debug_off(run: Run, given: dict[str, str], is_debug: bool) -> None:
    """The demo needs no environment; a key alone ends DEBUG."""
    answer = run("-c", "from django.conf import settings; print(settings.DEBUG)", **given)

    assert answer.stdout.strip() == str(is_debug), answer.stderr


@pytest.mark.rule("SEC-4")
def test_check_deploy_has_nothing_to_say(run: Run) -> None:
    """With what the settings ask for in the environment no check of Django or Alya warns."""
    checked = run("manage.py", "check", "--deploy", "--fail-level", "DEBUG", **PRODUCTION)

    assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
    assert "no issues (0 silenced)" in checked.stdout


@pytest.mark.rule("SEC-4")
def test_every_page_is_framed_nowhere_and_runs_what_the_site_serves(run: Run) -> None:
    """Also a page that is not there; and no page needs a style or script that the policy forbids."""
    looked = run("-c", LOOK, **PRODUCTION)

    found = json.loads(looked.stdout)
    assert {address: status for address, (status, _, _) in found.items()} == {
        "/admin/login/": 200,
        "/bank/login/": 200,
        "/nowhere/": 404,
    }
    for _, headers, text in found.values():
        assert {name: headers.get(name) for name in HEADERS} == HEADERS
        assert "<style" not in text
        assert "style=" not in text
