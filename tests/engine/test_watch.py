from __future__ import annotations

import os
import signal
import time

import pytest

from alya_django.engine.watch import NoWatch, Watch


class WatchTests:
    @pytest.mark.rule("REC-1")
    def test_outlives_its_worker(self) -> None:
        """What a child has shown can be read when the child was killed."""
        watch = Watch()
        child = os.fork()
        if child == 0:
            watch.register(7)
            watch.count(3)
            watch.begin(1, 42, 0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert (watch.number, watch.rows) == (7, 3)
        assert watch.overdue(time.monotonic() + 0.5) == {42: 0.5}

    @pytest.mark.rule("LIM-1")
    def test_tells_which_rows_are_past_their_limit(self) -> None:
        """Not one that has time left, nor one that is done."""
        watch = Watch()
        watch.begin(0, 1, 10)
        watch.begin(1, 2, 20)
        watch.begin(2, 3, 10)
        watch.end(2)
        assert watch.overdue(time.monotonic()) == {}
        assert watch.overdue(time.monotonic() + 15) == {1: 10}

    def test_nobody_need_watch(self) -> None:
        """A worker without a supervisor shows nothing to nobody."""
        watch = NoWatch()
        watch.register(1)
        watch.count(1)
        watch.begin(0, 1, 1)
        watch.end(0)
        assert vars(watch) == {}
