from __future__ import annotations

import pytest

from alya_django import BatchInput, Status
from alya_django.checkers import FileChecker, Route
from alya_django.intake import uploads
from alya_django.models import Batch, BatchFile
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

# Here it is only looked at; the workers have one for the same type of files, which is deadly.
HARMLESS = FileChecker("mortal", (Route("acceptance", "sleep"),), lambda *given: iter([BatchInput(1, 0)]))


class LoadTests:
    @pytest.mark.rule("FXR-35")
    def test_a_worker_that_is_killed_in_the_middle_is_followed_by_another(
        self, manage, project_storage, tmp_path
    ) -> None:
        """What it had read is gone, and there is one batch of the whole file, which waits."""
        grave = tmp_path / "grave"
        token = uploads.keep(b"1", file_name=str(grave), checker=HARMLESS, uploaded_by="asha")
        upload = uploads.find(token)
        assert upload is not None
        uploads.confirm(upload, requested_by="asha")
        manage("alya_worker")
        wait_until(lambda: BatchFile.objects.get().is_accepted, "the file is loaded")
        assert grave.exists()
        wait_until(lambda: Batch.objects.get(app="alya").status == Status.SUCCESS, "the slow query has answered")
        assert Batch.objects.get(app="alya").rows.get().lost == 1
        batch = Batch.objects.get(app="acceptance")
        assert (batch.status, batch.nrows) == (Status.WAIT, 1_001)
        check_invariants()
