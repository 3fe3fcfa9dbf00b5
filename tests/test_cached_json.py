"""What may be read of a cache, and what is none of it."""

from __future__ import annotations

import pytest

from alya_django import cached_json


class PartTests:
    @pytest.mark.rule("SEC-2")
    @pytest.mark.parametrize("value", [True, "1", None, 1.0, -1, cached_json.COUNT_MAX + 1])
    def test_a_count_is_a_whole_number_of_something(self, value: object) -> None:
        """True is none, nor what no table could hold."""
        with pytest.raises((TypeError, ValueError)):
            cached_json.count(value)

    @pytest.mark.rule("SEC-2")
    @pytest.mark.parametrize("value", [True, "1", -0.5, float("inf"), float("nan"), cached_json.SECONDS_MAX + 1])
    def test_a_moment_is_a_time(self, value: object) -> None:
        """One that can be shown as a date."""
        with pytest.raises((TypeError, ValueError)):
            cached_json.moment(value)

    @pytest.mark.parametrize("value", [0, 0.5, 1_700_000_000])
    def test_a_moment_may_be_whole(self, value: float) -> None:
        """JSON makes no difference between the two."""
        assert cached_json.moment(value) == value
