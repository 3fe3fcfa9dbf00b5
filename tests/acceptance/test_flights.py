from __future__ import annotations

import json
from collections import Counter

import pytest
from django.core.files.storage import default_storage

from alya_django import Status, batches
from example_project.flights.management.commands.demo import flights
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.sqlite]


class FlightsTests:
    @pytest.mark.rule("OUT-1", "OUT-5", "FIN-4", "MKD-1", "RUN-1")
    def test_the_flights_of_january_2013(self, manage, project_storage) -> None:
        """27 004 real rows through a worker process: every figure, every file, every message."""
        batch_id = batches.submit("flights", "punctuality", flights())
        worker = manage("alya_worker", "--drain")
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        summary = batches.status(batch_id)
        assert (summary.status, summary.nrows) == (Status.FAILED, 27_004)
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == (26_398, 606, 0)
        check_invariants()

        reasons = Counter(
            (message.errcode, message.msgid)
            for row in batches.iter_rows(batch_id, status=Status.FAILED)
            for message in row.messages
        )
        assert reasons == {("cancelled", 1): 521, ("diverted", 2): 85}

        lines = {}
        for name in summary.output_files:
            with batches.open_output(batch_id, name) as file:
                lines[name] = file.read().decode().splitlines()
        late = lines.pop("late.csv")
        assert len(late) == 6_001
        assert len(lines) == 16
        assert sum(map(len, lines.values())) == 26_398
        assert lines == self._expected()

        with default_storage.open(f"summaries/{batch_id}/summary.json") as file:
            carriers = json.load(file)["carriers"]
        assert carriers == {name.removesuffix(".csv"): len(flown) for name, flown in lines.items()}

    def _expected(self) -> dict[str, list[str]]:
        """Return each carrier's lines, made from the file by other means."""
        expected: dict[str, list[str]] = {}
        for flight in flights():
            if "NA" not in (flight["dep_time"], flight["arr_delay"]):
                line = ",".join(flight[column] for column in ("flight", "origin", "dest", "arr_delay"))
                expected.setdefault(f"{flight['carrier']}.csv", []).append(line)
        return expected

    def test_the_demo_prints_progress_and_figures(self, manage) -> None:
        """``manage.py demo`` shows the batch moving, a line a second where it is no terminal, and what came out."""
        demo = manage("demo")
        output, _ = demo.communicate(timeout=180)
        assert demo.returncode == 0, output
        assert "27004 rows submitted" in output
        assert "0 of 27004 rows" in output
        assert "100.0%  27004 of 27004 rows, 606 failed" in output
        for figure in ("26398 success", "521 cancelled", "85 diverted", "6001 lines  late.csv"):
            assert figure in output
        assert "26398 lines in the carriers' files together" in output

    def test_two_workers_share_the_flights(self, manage, project_storage, request) -> None:
        """Two processes on one batch come to the same figures."""
        batch_id = batches.submit("flights", "punctuality", flights())
        workers = [manage("alya_worker") for _ in range(2)]
        wait_until(lambda: not batches.result(batch_id).try_later, "the batch is finished")
        for worker in workers:
            worker.terminate()
        for worker in workers:
            output, _ = worker.communicate(timeout=180)
            assert worker.returncode == 0, output
        summary = batches.status(batch_id)
        assert (summary.nsuccess, summary.nfailed) == (26_398, 606)
        assert len({row.done_by for row in batches.iter_rows(batch_id)}) == 2
        check_invariants()
