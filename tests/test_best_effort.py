from __future__ import annotations

import logging

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

from alya_django import best_effort
from alya_django.best_effort import BestEffort

CLOCK_START = 1_000.0


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time as the module sees it, in a list of one."""
    now = [CLOCK_START]
    monkeypatch.setattr(best_effort, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def asked() -> list[str]:
    """What was asked of the cache, in order."""
    return []


@pytest.fixture
def call(clock, asked):
    """Ask a cache for something that takes so long, and fails or not."""
    access = BestEffort()

    def ask(name: str = "call", *, seconds: float = 0.0, error: Exception | None = None, alias: str = "default"):
        def act(cache):
            asked.append(name)
            clock[0] += seconds
            if error is not None:
                raise error
            return name

        return access(alias, act)

    return ask


class BestEffortTests:
    def test_returns_what_the_cache_answers(self) -> None:
        """The call gets the cache of the alias."""
        assert isinstance(BestEffort()("default", lambda cache: cache), LocMemCache)
        assert BestEffort()("default", lambda cache: cache) is caches["default"]

    @pytest.mark.rule("API-5")
    def test_a_failure_is_no_answer(self, call) -> None:
        """Whatever is raised, the caller goes on without."""
        assert call(error=ConnectionError("refused")) is None

    @pytest.mark.rule("API-5")
    def test_an_alias_that_does_not_exist_is_no_answer(self, call) -> None:
        """A wrong alias is a cache that fails."""
        assert call(alias="elsewhere") is None

    @pytest.mark.rule("CACHE-8")
    def test_a_quick_failure_is_asked_again(self, call, asked) -> None:
        """A refused connection costs next to nothing, and the cache may be back at any time."""
        call("first", error=ConnectionError("refused"))
        assert call("second") == "second"
        assert asked == ["first", "second"]

    @pytest.mark.rule("CACHE-8")
    @pytest.mark.parametrize("error", [None, TimeoutError("too late")], ids=["answers", "fails"])
    def test_a_slow_cache_is_left_alone_for_a_while(self, call, asked, clock, error) -> None:
        """After a call of over a second nobody asks for five seconds; then one call is made again."""
        call("slow", seconds=1.0, error=error)
        assert call("meanwhile") is None
        clock[0] += 4.9
        assert call("still") is None
        clock[0] += 0.2
        assert call("back") == "back"
        assert call("and on") == "and on"
        assert asked == ["slow", "back", "and on"]

    @pytest.mark.rule("CACHE-8")
    def test_one_caller_tries_for_all(self, clock, asked) -> None:
        """While one finds out whether the cache is back, the others still do without."""
        access = BestEffort()

        def be_slow(cache):
            clock[0] += 2

        def try_again(cache):
            asked.append("try")
            access("default", lambda cache: asked.append("another thread meanwhile"))

        access("default", be_slow)
        clock[0] += 5
        access("default", try_again)
        assert asked == ["try"]
        access("default", lambda cache: asked.append("all"))
        assert asked == ["try", "all"]

    @pytest.mark.rule("CACHE-8")
    def test_caches_are_judged_apart(self, call) -> None:
        """Another alias is another cache."""
        call(seconds=2, alias="elsewhere")
        call(seconds=2, error=TimeoutError())
        assert call("one") is None
        assert call("two", alias="default") is None

    @pytest.mark.rule("CACHE-8")
    def test_a_failure_is_told_every_five_seconds(self, call, clock, caplog) -> None:
        """However many callers fail, the log gets a line now and then."""
        with caplog.at_level(logging.WARNING, "alya_django"):
            for _ in range(60):
                call(error=ConnectionError("refused"))
                clock[0] += 0.1
        told = [message.partition(" at ")[0] for message in caplog.messages]
        assert told == ["The cache 'default' does not answer: ConnectionError"] * 2

    def test_trusts_again_when_told_to(self, clock) -> None:
        """What was held against a cache can be forgotten."""
        access = BestEffort()

        def be_slow(cache):
            clock[0] += 2

        access("default", be_slow)
        assert access("default", lambda cache: 1) is None
        access.forget()
        assert access("default", lambda cache: 1) == 1
