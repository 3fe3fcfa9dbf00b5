from __future__ import annotations

import json

import pytest

from alya_django import batches

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.sqlite]

IBAN = "DE89370400440532013000"
PLACE = "ValueError at tests.acceptance.ops.apps:"


class LogTests:
    @pytest.mark.rule("SEC-30")
    @pytest.mark.parametrize("log_payloads", [False, True])
    def test_of_a_worker_quotes_payloads_only_where_that_is_wanted(self, manage, environment, log_payloads) -> None:
        """All that the process writes, of a row and of mark_done, names the place and not the payload."""
        environment["ALYA"] = json.dumps({"LOG_PAYLOADS": log_payloads})
        batch_id = batches.submit("acceptance", "refuse", [IBAN], context={"iban": IBAN})
        output, _ = manage("alya_worker", "--drain").communicate(timeout=180)
        assert f"{batch_id}: 1 rows failed by an exception, line 1 by {PLACE}" in output
        assert f"mark_done of {batch_id} failed: {PLACE}" in output
        assert (IBAN in output) is log_payloads
