from __future__ import annotations

import pytest

from alya_django import register_batch_processor
from alya_django.engine.pace import Pace
from tests.processors import echo


@pytest.fixture
def registration(registry):
    """A registration of an op whose speed nobody knows yet."""
    register_batch_processor("app", "op", echo)
    return next(iter(registry))


class PaceTests:
    def test_begins_with_ten_rows(self, registration) -> None:
        """Before anything is measured a chunk has 10 rows, and a row counts as a millisecond."""
        assert Pace().chunk_rows(registration) == 10
        assert Pace().seconds(registration) == 0.001

    def test_takes_about_half_a_second_of_work(self, registration) -> None:
        """Rows of 10 ms make chunks of 50."""
        pace = Pace()
        pace.learn(registration, 10, 0.1)
        assert pace.chunk_rows(registration) == 50

    def test_takes_at_least_one_row(self, registration) -> None:
        """Rows that take a minute are claimed one by one."""
        pace = Pace()
        pace.learn(registration, 1, 60)
        assert pace.chunk_rows(registration) == 1

    def test_takes_at_most_chunk_rows(self, registration, settings) -> None:
        """However fast the rows are, CHUNK_ROWS is the most."""
        settings.ALYA = {"CHUNK_ROWS": 70}
        pace = Pace()
        pace.learn(registration, 10, 0)
        assert pace.chunk_rows(registration) == 70

    @pytest.mark.rule("ATM-5")
    def test_transactions_grow_until_the_database_refuses(self, registration) -> None:
        """They double up to CHUNK_ROWS; what was refused is halved, and grows by a row after 20 that went through."""
        pace, rows = Pace(), []
        for _ in range(5):
            rows.append(pace.atomic_rows(registration))
            pace.agreed(registration, rows[-1])
        assert rows == [50, 100, 200, 400, 500]
        assert not pace.is_contended(registration)
        pace.refused(registration)
        assert pace.is_contended(registration)
        for _ in range(19):
            pace.agreed(registration, 250)
        assert pace.atomic_rows(registration) == 250
        pace.agreed(registration, 250)
        assert pace.atomic_rows(registration) == 251

    def test_a_transaction_of_few_rows_shows_nothing_of_many(self, registration) -> None:
        """Only where as many as may share a transaction have done so may more of them."""
        pace = Pace()
        pace.agreed(registration, 49)
        assert pace.atomic_rows(registration) == 50

    def test_moves_with_the_news(self, registration) -> None:
        """A measurement counts as much as all that came before it."""
        pace = Pace()
        pace.learn(registration, 10, 0.1)
        pace.learn(registration, 10, 0.3)
        assert pace.seconds(registration) == pytest.approx(0.02)
