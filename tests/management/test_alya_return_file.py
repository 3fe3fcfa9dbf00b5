from __future__ import annotations

import pytest

from alya_django import batches, slow_queries
from tests.intake.files import a_batch_that_failed, register
from tests.management.operators import run

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry", "storage")]

RETURNED = b"debtor,amount,alya_line,alya_reason\r\nbob,2.00,4,account_closed (debtor)\r\n"


@pytest.fixture(autouse=True)
def here(registry, tmp_path, monkeypatch):
    """The current directory, which is empty, and a checker."""
    register()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


class AlyaReturnFileTests:
    @pytest.mark.rule("OPS-7")
    def test_writes_the_failed_rows_and_prints_where(self, here) -> None:
        """By default into the current directory, under the name that was received; a script takes the path."""
        ending = run("alya_return_file", str(a_batch_that_failed())[:13])
        assert ending == (0, "TXN_1.csv.return.csv\n", "")
        assert (here / "TXN_1.csv.return.csv").read_bytes() == RETURNED

    @pytest.mark.rule("OPS-7", "FXR-15")
    def test_the_name_that_a_sender_gave_leads_nowhere_else(self, here) -> None:
        """It is a text, and neither a path nor hidden."""
        run("alya_return_file", str(a_batch_that_failed("../../etc/TXN\n1.csv")))
        assert [path.name for path in here.iterdir()] == ["_._.._etc_TXN_1.csv.return.csv"]

    @pytest.mark.rule("OPS-7")
    def test_writes_where_it_is_told(self, here) -> None:
        """A path of a file, or of a directory, which gives it its usual name."""
        batch_id = str(a_batch_that_failed())
        (here / "acme").mkdir()
        assert run("alya_return_file", batch_id, "--output", "acme").out == "acme/TXN_1.csv.return.csv\n"
        assert run("alya_return_file", batch_id, "--output", "acme/back.csv").out == "acme/back.csv\n"
        assert {path.read_bytes() for path in (here / "acme").iterdir()} == {RETURNED}

    @pytest.mark.rule("OPS-7")
    def test_takes_no_directory_for_a_file(self, here) -> None:
        """A slash at the end means a directory; where it is not there, nothing is made in its place."""
        ending = run("alya_return_file", str(a_batch_that_failed()), "--output", "acme/")
        assert ending == (2, "", "output: there is no directory acme.")
        assert list(here.iterdir()) == []

    @pytest.mark.rule("OPS-7")
    def test_replaces_a_file_only_if_told(self, here) -> None:
        """Somebody may have begun to correct it."""
        batch_id = str(a_batch_that_failed())
        path = here / "back.csv"
        path.write_text("half corrected")
        ending = run("alya_return_file", batch_id, "--output", "back.csv")
        assert ending == (4, "", "back.csv is there already; --overwrite replaces it.")
        assert path.read_text() == "half corrected"
        assert run("alya_return_file", batch_id, "--output", "back.csv", "--overwrite").code == 0
        assert path.read_bytes() == RETURNED

    @pytest.mark.rule("OPS-3", "OPS-7")
    def test_prints_json(self) -> None:
        """Whose rows they are, and where they are."""
        batch_id = str(a_batch_that_failed())
        assert run("alya_return_file", batch_id, "--json").objects == [
            {"batch_id": batch_id, "path": "TXN_1.csv.return.csv", "size": len(RETURNED)}
        ]

    @pytest.mark.rule("OPS-7")
    def test_refuses_what_has_nothing_to_return(self, here) -> None:
        """In the words of the library; no file is made."""
        waiting = batches.submit("bank", "transfer", [{}])
        query = slow_queries.submit("bank", "total", 1)
        assert run("alya_return_file", str(waiting)) == (
            4,
            "",
            f"The batch {waiting} has not ended: its status is queued.",
        )
        assert run("alya_return_file", str(query)) == (4, "", f"{query} is a slow query.")
        assert list(here.iterdir()) == []

    @pytest.mark.rule("OPS-7")
    def test_names_where_it_cannot_write(self) -> None:
        """The argument is wrong."""
        batch_id = str(a_batch_that_failed())
        assert run("alya_return_file", batch_id, "--output", "acme/back.csv") == (
            2,
            "",
            "output: acme/back.csv: No such file or directory.",
        )
