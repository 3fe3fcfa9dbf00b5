from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from alya_django import Status, slow_queries
from alya_django.testing import drain
from example_project.bank import samples
from example_project.bank.models import Statement

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "poll-a-slow-query.md"
SNIPPET = re.compile(r"^```(?:python\n# |html\n<!-- )(\S+)(?: -->)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
YEAR = timezone.localdate().year
THIS_YEAR = {"account": "1001", "first_day": f"{YEAR}-01-01", "last_day": f"{YEAR}-12-31"}
JSON = {"Accept": "application/json"}


@pytest.fixture(autouse=True)
def _as_the_example_is(settings) -> None:
    """The site as its settings have it: CSRF checked, a page of its own to log in."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.csrf.CsrfViewMiddleware"]
    settings.LOGIN_URL = "bank:login"
    settings.LOGIN_REDIRECT_URL = "bank:statements"


@pytest.fixture
def teller(db: None) -> Client:
    """Somebody at the bank, logged in."""
    samples.open_accounts()
    return logged_in("teller")


def logged_in(username: str, **options: bool) -> Client:
    client = Client(**options)
    client.force_login(User.objects.create_user(username, password="a test's"))
    return client


def ask(client: Client, **fields: str) -> UUID:
    """Ask for a statement and return its id."""
    client.post(reverse("bank:statements"), {**THIS_YEAR, **fields})
    return Statement.objects.latest("requested_at").query_id


def page_of(query_id: UUID) -> str:
    return reverse("bank:statement", args=[query_id])


def file_of(query_id: UUID, name: str = "statement.csv") -> str:
    return reverse("bank:download", args=[query_id, name])


class RequestTests:
    def test_a_statement_from_the_request_to_the_file(self, teller: Client) -> None:
        """Asked for, try later; worked off, the result and the way to the file."""
        page = teller.post(reverse("bank:statements"), THIS_YEAR, follow=True)
        assert page.status_code == 202
        drain(app="bank")
        page = teller.get(page.request["PATH_INFO"])
        assert page.status_code == 200
        assert "Download statement.csv" in page.content.decode()

    def test_submits_a_slow_query(self, teller: Client) -> None:
        """The query has the days as text, and the name of who asked."""
        query_id = ask(teller)
        (query,) = slow_queries.recent("bank", "statement", days=1)
        assert (query.id, query.requested_by, query.status) == (query_id, "teller", Status.QUEUED)

    def test_tells_a_program_where_to_look(self, teller: Client) -> None:
        """As JSON the answer is the id and the address."""
        response = teller.post(reverse("bank:statements"), THIS_YEAR, headers=JSON)
        url = page_of(Statement.objects.get().query_id)
        assert response.status_code == 202
        assert response.json()["data"]["url"] == response.headers["Location"] == url

    def test_lists_what_was_asked_for(self, teller: Client) -> None:
        """The way back to a statement is on the page that has the form."""
        query_id = ask(teller)
        assert page_of(query_id) in teller.get(reverse("bank:statements")).content.decode()

    def test_refuses_days_in_the_wrong_order(self, teller: Client) -> None:
        """The form comes back and says why; nothing is submitted."""
        response = teller.post(reverse("bank:statements"), {**THIS_YEAR, "last_day": "2001-01-01"})
        assert response.status_code == 400
        assert "The last day is before the first." in response.content.decode()
        assert slow_queries.recent("bank", days=1) == []

    def test_tells_a_program_which_fields_are_wrong(self, teller: Client) -> None:
        """As JSON there is a message for each of them."""
        wrong = {**THIS_YEAR, "account": "9999", "last_day": ""}
        response = teller.post(reverse("bank:statements"), wrong, headers=JSON)
        assert response.status_code == 400
        assert response.json() == {
            "status": "error",
            "data": {},
            "messages": [
                {"msgid": 0, "errcode": "invalid", "field": "account"},
                {"msgid": 0, "errcode": "invalid", "field": "last_day"},
            ],
        }


class PollTests:
    def test_a_browser_looks_again_by_itself(self, teller: Client) -> None:
        """The page loads itself anew until there is an answer, and then no more."""
        query_id = ask(teller)
        refresh = '<meta http-equiv="refresh" content="1">'
        assert refresh in teller.get(page_of(query_id)).content.decode()
        drain(app="bank")
        assert "refresh" not in teller.get(page_of(query_id)).content.decode()

    def test_a_program_is_told_to_try_later(self, teller: Client) -> None:
        """202, the errcode trylater, and how long to wait."""
        response = teller.get(page_of(ask(teller)), headers=JSON)
        assert (response.status_code, response.headers["Retry-After"]) == (202, "1")
        assert response.json() == {
            "status": "error",
            "data": {},
            "messages": [{"msgid": 201, "errcode": "trylater"}],
        }

    def test_a_program_gets_the_result(self, teller: Client) -> None:
        """The processor's result, and where its files are."""
        query_id = ask(teller)
        drain(app="bank")
        response = teller.get(page_of(query_id), headers=JSON)
        assert response.status_code == 200
        assert response.json() == {
            "status": "success",
            "data": {
                "result": {"account": "1001", "entries": 1, "opening": "0.00", "closing": "5000.00"},
                "files": {"statement.csv": file_of(query_id)},
            },
            "messages": [],
        }

    def test_a_failure_says_why(self, teller: Client) -> None:
        """The processor's messages are on the page and in the JSON."""
        query_id = ask(teller, first_day="1500-01-01")
        drain(app="bank")
        assert "bad_date (from)" in teller.get(page_of(query_id)).content.decode()
        assert teller.get(page_of(query_id), headers=JSON).json() == {
            "status": "error",
            "data": {},
            "messages": [{"msgid": 105, "errcode": "bad_date", "field": "from"}],
        }

    def test_is_not_cached(self, teller: Client) -> None:
        """What is to be asked again must not come from a cache."""
        assert "no-store" in teller.get(page_of(ask(teller))).headers["Cache-Control"]

    def test_an_unknown_statement_is_not_found(self, teller: Client) -> None:
        """An id that nobody has."""
        assert teller.get(page_of(uuid4())).status_code == 404

    def test_a_slow_query_of_others_is_not_found(self, teller: Client) -> None:
        """An id of a query that is no statement of this person."""
        query_id = slow_queries.submit("night", "report", {"seconds": 0})
        assert teller.get(page_of(query_id)).status_code == 404

    def test_a_statement_of_somebody_else_is_not_found(self, teller: Client) -> None:
        """Neither page nor file nor button: who did not ask is not told that it is there."""
        query_id = ask(teller)
        drain(app="bank")
        other = logged_in("other")
        assert other.get(page_of(query_id)).status_code == 404
        assert other.get(file_of(query_id)).status_code == 404
        assert other.post(reverse("bank:cancel", args=[query_id])).status_code == 404


class DownloadTests:
    def test_sends_the_file_that_was_stored(self, teller: Client) -> None:
        """Byte for byte, as a CSV to be saved under its name."""
        query_id = ask(teller)
        drain(app="bank")
        response = teller.get(file_of(query_id))
        assert response.headers["Content-Type"] == "text/csv"
        assert response.headers["Content-Disposition"] == 'attachment; filename="statement.csv"'
        content = b"".join(response.streaming_content)
        response.close()
        today = timezone.localdate().isoformat()
        assert content.decode() == (
            f"date,counterpart,text,amount,balance,reference\n{today},1000,Opening,5000.00,5000.00,opening:1001\n"
        )

    def test_there_is_no_file_before_the_answer(self, teller: Client) -> None:
        """Who knows the address too early finds nothing."""
        assert teller.get(file_of(ask(teller))).status_code == 404

    def test_there_is_no_other_file(self, teller: Client) -> None:
        """Only the names that the processor gave."""
        query_id = ask(teller)
        drain(app="bank")
        assert teller.get(file_of(query_id, "other.csv")).status_code == 404


class CancelTests:
    def test_stops_the_query(self, teller: Client) -> None:
        """The page says that it is aborted, and polls no more."""
        query_id = ask(teller)
        page = teller.post(reverse("bank:cancel", args=[query_id]), follow=True)
        assert slow_queries.result(query_id).status is Status.ABORTED
        assert page.status_code == 200
        assert "aborted" in page.content.decode()

    def test_a_program_reads_that_it_was_stopped(self, teller: Client) -> None:
        """There is neither result nor message of a processor, but a reason."""
        query_id = ask(teller)
        response = teller.post(reverse("bank:cancel", args=[query_id]), headers=JSON, follow=True)
        assert response.json()["messages"] == [{"msgid": 202, "errcode": "aborted"}]

    def test_an_answer_that_is_there_stays(self, teller: Client) -> None:
        """Too late is no error: the person sees the answer."""
        query_id = ask(teller)
        drain(app="bank")
        page = teller.post(reverse("bank:cancel", args=[query_id]), follow=True).content.decode()
        assert "It was too late to cancel" in page
        assert "Download statement.csv" in page

    def test_a_link_cannot_cancel(self, teller: Client) -> None:
        """Looking changes nothing."""
        assert teller.get(reverse("bank:cancel", args=[ask(teller)])).status_code == 405


class AccessTests:
    @pytest.mark.parametrize("name", ["statements", "statement", "download", "cancel"])
    def test_who_is_not_logged_in_has_to(self, name: str) -> None:
        """Every page leads to the login, and back."""
        arguments = {"statements": [], "download": [uuid4(), "statement.csv"]}.get(name, [uuid4()])
        url = reverse(f"bank:{name}", args=arguments)
        response = Client().post(url) if name == "cancel" else Client().get(url)
        assert response.status_code == 302
        assert response.headers["Location"] == f"{reverse('bank:login')}?next={url}"

    def test_logs_in_and_out(self, teller: Client) -> None:
        """The login leads to the statements, the button back to the login."""
        client = Client()
        page = client.post(reverse("bank:login"), {"username": "teller", "password": "a test's"}, follow=True)
        assert "Request statement" in page.content.decode()
        assert "Log in" in client.post(reverse("bank:logout"), follow=True).content.decode()

    @pytest.mark.parametrize("name", ["statements", "cancel"])
    def test_a_form_of_another_site_is_refused(self, name: str) -> None:
        """What changes something needs the token of our own page."""
        client = logged_in("teller", enforce_csrf_checks=True)
        url = reverse(f"bank:{name}", args=[] if name == "statements" else [uuid4()])
        assert client.post(url, THIS_YEAR).status_code == 403

    def test_our_own_form_is_accepted(self, teller: Client) -> None:
        """The page with the form has the token."""
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.get())
        page = client.get(reverse("bank:statements")).content.decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]
        response = client.post(reverse("bank:statements"), {**THIS_YEAR, "csrfmiddlewaretoken": token})
        assert response.status_code == 302


class GuideTests:
    def test_shows_the_code_that_is_there(self) -> None:
        """Each snippet of the how-to stands so in the file that its first line names."""
        snippets = SNIPPET.findall(GUIDE.read_text(encoding="utf-8"))
        assert len(snippets) == 8
        for path, code in snippets:
            assert code in (ROOT / path).read_text(encoding="utf-8"), f"{path} does not have:\n{code}"
