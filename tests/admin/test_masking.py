from __future__ import annotations

import logging
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.http import HttpRequest

from alya_django import BatchDetails, batches
from alya_django.admin import masking
from alya_django.admin.masking import MASK
from alya_django.models import Batch
from tests.admin.pages import BATCHES, text

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

INPUT = {"name": "asha", "PIN": 1234, "cards": [{"pin": [1, {"name": "x"}], "no": 2**70}], "pins": 7}
LINES = {"a.csv": "asha,1234"}


def hide_names(value: Any, what: str, details: BatchDetails) -> Any:
    return {**value, "name": f"a {what} of {details.app}"}


def fail(value: Any, what: str, details: BatchDetails) -> Any:
    raise ValueError(f"cannot mask {value}")


@pytest.fixture
def batch() -> Batch:
    return Batch.objects.get(pk=batches.submit("bank", "transfer", [INPUT], context=INPUT))


def request_of(*codenames: str) -> HttpRequest:
    """Return a request of somebody with only the named permissions."""
    user = User.objects.create_user("asha")
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    request = HttpRequest()
    request.user = user
    return request


class MaskKeysTests:
    @pytest.mark.rule("ADM-30")
    def test_hides_the_values_of_keys_at_any_depth(self, batch: Batch, settings: Any) -> None:
        """Upper and lower case make no difference, a longer key is another, and big numbers keep their digits."""
        settings.ALYA = {"MASK_KEYS": ["Pin"]}
        assert masking.shown(request_of("view_batch"), batch, "input", INPUT) == {
            "name": "asha",
            "PIN": MASK,
            "cards": [{"pin": MASK, "no": 2**70}],
            "pins": 7,
        }
        assert INPUT["PIN"] == 1234

    @pytest.mark.rule("ADM-30")
    def test_hides_nothing_from_those_who_may_see_inputs(self, batch: Batch, settings: Any) -> None:
        """The permission view_input shows all as it is."""
        settings.ALYA = {"MASK_KEYS": ["pin"], "MASK_WITH": f"{__name__}.fail"}
        assert masking.shown(request_of("view_input"), batch, "input", INPUT) is INPUT

    def test_hides_nothing_where_nothing_is_named(self, batch: Batch) -> None:
        """Without settings everybody sees all."""
        assert masking.shown(request_of(), batch, "input", INPUT) == INPUT

    @pytest.mark.parametrize("value", [None, 5, "pin", [], {}, [["pin"]]])
    def test_leaves_what_has_no_keys(self, value: Any, batch: Batch, settings: Any) -> None:
        """Any JSON will do, and nothing stays nothing."""
        settings.ALYA = {"MASK_KEYS": ["pin"]}
        assert masking.shown(request_of(), batch, "input", value) == value

    def test_hides_what_is_nested_deeply(self, batch: Batch, settings: Any) -> None:
        """What can be stored can be masked."""
        settings.ALYA = {"MASK_KEYS": ["pin"]}
        value: Any = {"pin": 1234}
        for _ in range(500):
            value = [value]
        assert "1234" not in str(masking.shown(request_of(), batch, "input", value))

    @pytest.mark.rule("ADM-30")
    def test_hides_keys_of_a_context_on_the_page_of_a_batch(
        self, batch: Batch, settings: Any, staff_client: Any
    ) -> None:
        """What rows share is a payload as well."""
        settings.ALYA = {"MASK_KEYS": ["pin"]}
        shown = text(staff_client("view_batch").get(f"{BATCHES}{batch.pk}/change/"))
        assert f'"PIN": "{MASK}"' in shown
        assert "1234" not in shown


class MaskWithTests:
    @pytest.mark.rule("ADM-31")
    def test_the_project_hides_more(self, batch: Batch, settings: Any) -> None:
        """Its function gets what the keys have left, and is told what it is and whose."""
        settings.ALYA = {"MASK_KEYS": ["pin"], "MASK_WITH": f"{__name__}.hide_names"}
        shown = masking.shown(request_of(), batch, "result", {"name": "asha", "pin": 1})
        assert shown == {"name": "a result of bank", "pin": MASK}

    @pytest.mark.rule("ADM-31")
    def test_a_function_that_fails_hides_all(
        self, batch: Batch, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Rather nothing than too much; and what it was given is not logged."""
        settings.ALYA = {"MASK_WITH": f"{__name__}.fail"}
        with caplog.at_level(logging.ERROR, "alya_django.admin"):
            assert masking.shown(request_of(), batch, "input", INPUT) == MASK
        (message,) = caplog.messages
        assert message.startswith(
            f"{__name__}.fail failed, so nothing of the payload is shown: ValueError at {__name__}:"
        )


class OutputLinesTests:
    @pytest.mark.rule("ADM-32")
    def test_hides_texts_where_anything_is_masked(self, batch: Batch, settings: Any) -> None:
        """A text has no keys: its file's name is all that is shown."""
        settings.ALYA = {"MASK_KEYS": ["pin"]}
        assert masking.shown_lines(request_of(), batch, LINES) == {"a.csv": MASK}

    @pytest.mark.rule("ADM-32")
    @pytest.mark.parametrize("codename", ["view_input", "download_output"])
    def test_shows_texts_to_those_who_could_read_them_anyway(self, codename: str, batch: Batch, settings: Any) -> None:
        """Who may see inputs, or download the file, sees what a row gave to it."""
        settings.ALYA = {"MASK_WITH": f"{__name__}.fail"}
        assert masking.shown_lines(request_of(codename), batch, LINES) == LINES

    def test_hides_nothing_where_nothing_is_masked(self, batch: Batch) -> None:
        """Without settings everybody sees all."""
        assert masking.shown_lines(request_of(), batch, LINES) == LINES
