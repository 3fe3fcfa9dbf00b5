from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from alya_django import Status, batches
from alya_django.admin import figure_words, figures, words
from alya_django.admin.figures import Figures
from alya_django.models import Batch, BatchProgress
from alya_django.status import Kind

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

START = 1_000_000.0


def running(**values: Any) -> Figures:
    """Return figures of a batch that has run for 100 seconds."""
    return Figures(
        **{
            "id": str(uuid4()),
            "kind": Kind.BATCH,
            "status": Status.IN_PROGRESS,
            "nrows": 10_000,
            "nsuccess": 0,
            "nfailed": 0,
            "naborted": 0,
            "nput_off": 0,
            "held": False,
            "read_at": START + 100,
            "started_at": START,
            "moved_at": START + 99,
            **values,
        }
    )


def submit(nsuccess: int = 0) -> UUID:
    """Submit a batch that runs, with one row left, one that failed and some that have succeeded."""
    batch_id = batches.submit("bank", "transfer", [{}])
    Batch.objects.filter(pk=batch_id).update(status=Status.IN_PROGRESS, started_at=Now(), nrows=nsuccess + 2)
    BatchProgress.objects.create(batch_id=batch_id, slot=0, nsuccess=nsuccess)
    BatchProgress.objects.create(batch_id=batch_id, slot=1, nfailed=1)
    return batch_id


def one_more(batch_id: UUID) -> None:
    slot = BatchProgress.objects.get(batch=batch_id, slot=0)
    BatchProgress.objects.filter(batch=batch_id, slot=0).update(nsuccess=slot.nsuccess + 1)


def let_a_second_pass(batch_id: UUID) -> None:
    cache.delete(f"ALYA_{{{batch_id}}}_FIGURES_TURN")


class ReadTests:
    def test_adds_up_the_slots(self) -> None:
        """Of an unfinished batch, what has ended so far."""
        batch_id = submit(nsuccess=7)
        one = figures.read([batch_id])[batch_id]
        assert (one.nsuccess, one.nfailed, one.naborted, one.nrows, one.left) == (7, 1, 0, 9, 1)

    def test_leaves_out_what_is_not_there(self) -> None:
        """An id of nothing has no figures."""
        assert figures.read([uuid4()]) == {}

    def test_asks_one_statement_for_many(self, django_assert_num_queries: Any) -> None:
        """A page of batches costs one."""
        ids = [submit() for _ in range(5)]
        with django_assert_num_queries(1):
            assert set(figures.read([*ids, *ids])) == set(ids)

    @pytest.mark.rule("ADM-9")
    def test_is_read_once_a_second(self, django_assert_num_queries: Any) -> None:
        """Whoever asks within a second gets what there is; after it, the next to ask reads anew."""
        batch_id = submit()
        figures.read([batch_id])
        one_more(batch_id)
        with django_assert_num_queries(0):
            assert figures.read([batch_id])[batch_id].nsuccess == 0
        let_a_second_pass(batch_id)
        assert figures.read([batch_id])[batch_id].nsuccess == 1

    @pytest.mark.rule("ADM-9")
    def test_one_reads_for_all(self, django_assert_num_queries: Any) -> None:
        """While somebody reads anew the others do not wait for it: they get what there was."""
        batch_id = submit()
        figures.read([batch_id])
        let_a_second_pass(batch_id)
        cache.add(f"ALYA_{{{batch_id}}}_FIGURES_TURN", 1, 1)
        with django_assert_num_queries(0):
            figures.read([batch_id])

    def test_a_final_batch_is_read_once(self, django_assert_num_queries: Any) -> None:
        """What does not change needs no turn."""
        batch_id = submit()
        batches.abort(batch_id)
        assert figures.read([batch_id])[batch_id].is_final
        let_a_second_pass(batch_id)
        with django_assert_num_queries(0):
            assert figures.read([batch_id])[batch_id].is_final

    def test_a_finished_batch_is_not_read_at_all(self, django_assert_num_queries: Any) -> None:
        """Who has the batch has its figures."""
        batch_id = submit(nsuccess=3)
        batches.abort(batch_id)
        batch = Batch.objects.get(pk=batch_id)
        with django_assert_num_queries(0):
            (one,) = figures.of([batch]).values()
        assert (one.nsuccess, one.nfailed, one.naborted) == (3, 1, 1)

    @pytest.mark.rule("ADM-9")
    def test_without_a_cache_the_database_answers(self, settings: Any) -> None:
        """A cache that is down changes nothing but how often is asked."""
        settings.CACHES = {"default": {"BACKEND": "tests.test_status_cache.DownCache"}}
        batch_id = submit(nsuccess=7)
        assert figures.read([batch_id])[batch_id].nsuccess == 7
        figures.forget(batch_id)

    @pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"id": 1}', 42, "[" * 100_000])
    def test_what_another_version_cached_is_read_anew(self, text: Any) -> None:
        """A deployment in steps breaks no page."""
        batch_id = submit(nsuccess=7)
        cache.set(f"ALYA_{{{batch_id}}}_FIGURES", text)
        assert figures.read([batch_id])[batch_id].nsuccess == 7

    def test_what_is_done_to_a_batch_is_seen_at_once(self) -> None:
        """Forgotten figures are read anew."""
        batch_id = submit()
        figures.read([batch_id])
        one_more(batch_id)
        figures.forget(batch_id)
        assert figures.read([batch_id])[batch_id].nsuccess == 1

    def test_remembers_what_was_seen_in_the_last_minute(self) -> None:
        """A look every five seconds is kept, for a minute, and while the batch runs."""
        batch_id = submit()
        key = f"ALYA_{{{batch_id}}}_FIGURES"
        figures.read([batch_id])
        stored = json.loads(cache.get(key))
        now = stored["read_at"]
        stored |= {"read_at": now - 6, "samples": [[now - 70, 0], [now - 30, 0], [now - 12, 0]]}
        for earlier, seen in ((stored, 3), ({**stored, "read_at": now - 9}, 2), ({**stored, "held": True}, 0)):
            cache.set(key, json.dumps(earlier))
            let_a_second_pass(batch_id)
            assert len(figures.read([batch_id])[batch_id].samples) == seen

    def test_reads_no_slot_of_another_batch(self) -> None:
        """The statement names the batches."""
        ids = [submit(), submit()]
        with CaptureQueriesContext(connection) as captured:
            figures.read(ids[:1])
        (query,) = captured
        assert str(ids[0]).replace("-", "") in query["sql"].replace("-", "")


class PaceTests:
    def test_is_that_since_the_start_where_nobody_has_looked(self) -> None:
        """The first who looks sees the mean."""
        one = running(nsuccess=2_000)
        assert one.rate == 20
        assert one.seconds_left == (400, 400)

    @pytest.mark.rule("ADM-8")
    def test_is_that_of_the_last_minute(self) -> None:
        """What was before does not count; the time left lies between the slower and the faster half."""
        samples = ((START + 60, 1_000), (START + 80, 1_200))
        one = running(nsuccess=2_000, samples=samples)
        assert one.rate == 25
        assert one.seconds_left == (200, 800)

    def test_a_half_without_a_row_counts_as_the_mean(self) -> None:
        """The time left is never without end."""
        one = running(nsuccess=2_000, samples=((START + 60, 1_000), (START + 80, 1_000)))
        assert one.seconds_left == (160, 320)

    def test_nothing_is_said_of_what_does_not_go(self) -> None:
        """Neither of a batch that has ended, is held, stalled or without a row that ended, nor with none left."""
        for values in (
            {"status": Status.SUCCESS},
            {"held": True},
            {"moved_at": START + 50},
            {"nsuccess": 0},
            {"nsuccess": 10_000},
        ):
            one = running(**{"nsuccess": 2_000, **values})
            assert (one.rate, one.seconds_left) == (None, None)

    def test_no_guess_in_the_first_half_minute(self) -> None:
        """The pace is told, how long it will take is not."""
        one = running(nsuccess=2_000, read_at=START + 20, moved_at=START + 20)
        assert (one.rate, one.seconds_left) == (100, None)

    def test_a_moment_has_no_pace(self) -> None:
        """A batch that starts as it is looked at has none."""
        assert running(read_at=START, nsuccess=1).rate is None

    @pytest.mark.rule("ADM-8")
    def test_is_stalled_after_three_heartbeats(self) -> None:
        """Since a row ended last, or the batch began; a slow query and a held batch never are."""
        assert running(moved_at=START + 84).is_stalled
        assert not running(moved_at=START + 86).is_stalled
        assert running(moved_at=None).is_stalled
        assert not running(moved_at=None, started_at=START + 90).is_stalled
        assert not running(moved_at=None, kind=Kind.SLOW_QUERY).is_stalled
        assert not running(moved_at=None, held=True).is_stalled


class WordTests:
    @pytest.mark.parametrize(
        ("nsuccess", "samples", "words"),
        [
            (9_000, ((START + 60, 6_000), (START + 80, 7_000)), "less than a minute left"),
            (1_000, ((START + 60, 600), (START + 80, 800)), "about 15 min left"),
            (1_000, ((START + 60, 400), (START + 80, 720)), "about 9 to 11 min left"),
            (100, ((START + 60, 20), (START + 80, 70)), "about 1 to 2 h left"),
            (10, ((START + 60, 2), (START + 80, 6)), "about 13 to 14 h left"),
            (4, ((START + 60, 2), (START + 80, 3)), "about 2 to 3 d left"),
        ],
    )
    def test_say_how_long_it_takes(self, nsuccess: int, samples: Any, words: str) -> None:
        """In the unit that fits, as a range unless both ends are alike."""
        assert figure_words.time_left(running(nsuccess=nsuccess, samples=samples)) == words

    def test_say_how_fast_it_goes(self) -> None:
        """With a decimal where it is slow."""
        assert figure_words.rate(running(nsuccess=2_000)) == "20\xa0rows/s"
        assert figure_words.rate(running(nsuccess=200)) == "2.0\xa0rows/s"
        assert figure_words.rate(running(held=True)) == ""

    def test_say_for_how_long_nothing_has_ended(self) -> None:
        """Of a stalled batch alone."""
        assert figure_words.stalled(running(moved_at=START)) == "No row has ended for 1\xa0min\xa040\xa0s."
        assert figure_words.stalled(running()) == ""

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [
            (-3, "0 s"),
            (59.9, "59 s"),
            (60, "1 min 0 s"),
            (3_725, "1 h 2 min"),
            (100_000, "27 h 46 min"),
            (200_000, "2 d 7 h"),
        ],
    )
    def test_say_how_long_something_took(self, seconds: float, said: str) -> None:
        """In its two largest units."""
        assert words.span(seconds).replace("\xa0", " ") == said

    @pytest.mark.rule("ADM-6")
    def test_every_state_has_its_icon_and_its_word(self) -> None:
        """No state is told by colour alone."""
        for status in Status:
            one = running(status=status, moved_at=START + 99)
            assert figure_words.icon(one)
            assert str(status.label) in figure_words.state(one)
        assert (
            len({words.ICONS[status.value] for status in Status} | {words.ICONS["held"], words.ICONS["stalled"]}) == 8
        )
