from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import environments

ROOT = Path(__file__).resolve().parent.parent


def run_for_figures(name: str, *arguments: str) -> dict[str, float]:
    """Run a benchmark and return what its last line tells."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


@pytest.mark.slow
class BenchmarkTests:
    @pytest.mark.parametrize(
        ("name", "keys"),
        [
            ("submit", {"rows_per_s", "copy_rows_per_s", "ratio", "rss_growth_mb"}),
            ("intake", {"rows_per_s", "unique_rows_per_s", "rss_growth_mb"}),
            ("finish", {"rows_per_s", "copy_rows_per_s", "ratio", "rss_growth_mb"}),
            ("throughput", {"rows_per_s", "loop_rows_per_s", "ratio", "processes"}),
        ],
    )
    def test_ends_in_a_line_of_json(self, name, keys) -> None:
        """On few rows a benchmark proves nothing but that it runs: its last line is one JSON object."""
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", "--rows", "2000", "--rounds", "1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout.splitlines()[-1]).keys() >= keys

    @pytest.mark.parametrize(("arguments", "key"), [(["--atomic"], "vs_plain"), (["--history", "3000"], "vs_100k")])
    def test_throughput_has_other_sides(self, arguments, key) -> None:
        """An atomic op beside a plain one, and rows beside a history of others."""
        figures = run_for_figures("throughput", "--rows", "2000", "--rounds", "1", *arguments)
        assert figures[key] > 0

    def test_verbs_at_random_break_nothing(self) -> None:
        """A few seconds of all verbs beside workers: no deadlock reaches a caller, and no rule is broken."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.verbs", "--minutes", "0.1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        figures = json.loads(done.stdout.splitlines()[-1])
        assert figures["verbs"] > 0
        assert [figures[name] for name in ("deadlocks_seen_by_callers", "broken_invariants", "stuck")] == [0, 0, 0]

    def test_a_month_of_flights_is_no_year(self) -> None:
        """Another file than that of the year: its counts are those of the flights, whatever they are."""
        figures = run_for_figures("year", "--file", "example_project/flights/data/flights_2013_01.csv.gz")
        counts = {name: figures[name] for name in ("rows", "success", "cancelled", "diverted", "late")}
        assert counts == {"rows": 27_004, "success": 26_398, "cancelled": 521, "diverted": 85, "late": 6_001}
        assert figures["rss_growth_mb"] == max(figures["submit_mb"], figures["worker_mb"])

    def test_a_file_that_cannot_be_submitted_ends_the_year_at_once(self, tmp_path) -> None:
        """It says what the command said, and waits for nothing."""
        path = tmp_path / "flights.csv"
        path.write_text("carrier,flight\n")
        command = [sys.executable, "-m", "benchmarks.year", "--file", str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "alya_submit ended with 4: CommandError: " in done.stderr
        assert "was rejected" in done.stderr

    def test_fuzz_finds_nothing(self) -> None:
        """A few seconds of spoilt files crash no reader."""
        figures = run_for_figures("fuzz", "--minutes", "0.05")
        assert figures["files"] > 0
        assert figures["crashes"] == 0

    def test_chaos_ends_in_a_line_of_json(self) -> None:
        """A few kills lose nothing, double nothing in an atomic op, and leave nothing behind."""
        figures = run_for_figures("chaos", "--kills", "3", "--rows", "50")
        assert (figures["lost"], figures["doubled"], figures["stuck"]) == (0, 0, 0)
        assert figures["kills"] == 3

    @pytest.mark.rule("INF-3", "INF-6")
    def test_files_are_received_once_under_kills(self) -> None:
        """A few files and kills: each file is one batch or one rejection, and nothing else is left of it."""
        figures = run_for_figures("watch", "--kills", "3", "--files", "15")
        assert (figures["accepted"], figures["rejected"]) == (11, 4)
        assert [figures[name] for name in ("missing", "twice", "left", "strays", "holes")] == [0] * 5

    @pytest.mark.rule("ATM-2", "ATM-5")
    def test_money_moves_once(self) -> None:
        """A few transfers and a kill: the books reconcile."""
        figures = run_for_figures("ledger", "--transfers", "100", "--accounts", "20", "--kills", "1")
        assert (figures["discrepancies"], figures["missing"], figures["failed"]) == (0, 0, 0)

    def test_the_pages_of_the_admin_are_measured(self) -> None:
        """Each page of a small batch is the right one, and takes few statements."""
        figures = run_for_figures("admin", "--rows", "20000", "--requests", "2")
        assert figures.keys() >= {"p95_ms", "worst_p95_ms", "progress_endpoint_ms", "progress_endpoint_uncached_ms"}
        assert 0 < figures["max_queries"] <= 12

    def test_prune_ends_in_a_line_of_json(self) -> None:
        """A few old rows are deleted while a worker is busy."""
        figures = run_for_figures("prune", "--rows", "2000", "--load", "300000", "--seconds", "0.5")
        assert figures.keys() >= {"pruned_rows_per_s", "vs_without"}

    def test_recovery_ends_in_a_line_of_json(self) -> None:
        """Both kinds of death are measured."""
        figures = run_for_figures("recovery", "--rounds", "1", "--heartbeat", "0.2")
        assert figures.keys() >= {"child_killed_s", "host_lost_s"}

    def test_the_large_batch_may_be_small(self) -> None:
        """On few rows the benchmark of fairness still runs to its end."""
        figures = run_for_figures("fairness", "--rows", "2000", "--queries", "2")
        assert figures.keys() >= {"slow_query_p99_s", "small_batch_share"}

    def test_latency_ends_in_a_line_of_json(self) -> None:
        """A few submits are answered."""
        assert run_for_figures("latency", "--submits", "3").keys() >= {"p50_ms", "p99_ms"}

    def test_idle_ends_in_a_line_of_json(self) -> None:
        """The statements of an idle worker are counted: there are some."""
        figures = run_for_figures("idle", "--seconds", "2")
        assert figures.keys() >= {"cpu_percent", "statements_per_min"}
        assert figures["statements_per_min"] > 0

    def test_without_peers_there_is_ours(self, tmp_path) -> None:
        """Each peer that is not installed is named, with the reason, and the figures are those that there are."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.peers", "--rows", "2000", "--rounds", "1"),
                *("--offline", "--environments", str(tmp_path)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert all(f"{peer.name}: not available: it is not installed" in done.stdout for peer in peers.PEERS)
        assert json.loads(done.stdout.splitlines()[-1]).keys() == {"ours_rows_per_s"}


class PeersTests:
    def test_each_peer_has_a_program(self) -> None:
        """The table names the module that is run for a peer."""
        folder = ROOT / "benchmarks" / "peers"
        assert [peer.name for peer in peers.PEERS if not (folder / f"{peer.module}.py").exists()] == []

    def test_compares_with_the_fastest(self) -> None:
        """All rates are shown, and how many times the fastest peer's ours is, also where that is less than once."""
        assert peers.figures(300.0, {"django_ox": 200.0, "pgqueuer": 400.0}) == {
            "ours_rows_per_s": 300.0,
            "django_ox_per_s": 200.0,
            "pgqueuer_per_s": 400.0,
            "fastest_peer_per_s": 400.0,
            "vs_fastest_peer": 0.75,
        }

    def test_reports_how_each_peer_was_set(self, capsys) -> None:
        """The table has the median rate, the versions and the settings of each peer, and names the fastest."""
        slow, fast = peers.PEERS[0], peers.PEERS[1]
        peers.report(
            100,
            [10.0, 30.0, 20.0],
            {
                slow: [peers.Run(3.0, "slow 1.0", "--slowly")],
                fast: [peers.Run(rate, "fast 2.0", "--fast") for rate in (4.0, 9.0, 5.0)],
            },
        )
        told = capsys.readouterr().out
        assert f"{fast.name}: 5 tasks/s, {fast.tasks:,} tasks\n  fast 2.0\n  --fast" in told
        assert f"the fastest peer is {fast.name}" in told
        assert json.loads(told.splitlines()[-1])["vs_fastest_peer"] == 4.0

    def test_leaves_out_a_peer_that_fails_and_says_why(self, capsys) -> None:
        """A peer that fails in a round is not among the figures; what it complained of is printed."""
        failing, working = peers.PEERS[0], peers.PEERS[1]
        run = peers.Run(3.0, "", "")

        def fail() -> peers.Run:
            raise peers.PeerFailed("no such broker")

        ours, theirs = peers.run_rounds(2, lambda: 6.0, {failing: fail, working: lambda: run})
        assert (ours, theirs) == ([6.0, 6.0], {working: [run, run]})
        assert capsys.readouterr().out.count(f"{failing.name}: not available: no such broker") == 1

    def test_takes_an_environment_that_is_there(self, tmp_path) -> None:
        """An environment made for the same requirements is used again; one made for others is not."""
        (tmp_path / ".made").write_text("one~=1.0\ntwo~=2.0")
        assert environments.python_of(tmp_path, ("one~=1.0", "two~=2.0"), (3, 11)) == tmp_path / "bin" / "python"
        with pytest.raises(environments.Unavailable, match=r"not installed"):
            environments.python_of(tmp_path, ("one~=1.1", "two~=2.0"), (3, 11), offline=True)

    def test_says_which_python_is_missing(self) -> None:
        """A peer that needs a Python nobody has is not available."""
        with pytest.raises(environments.Unavailable, match=r"it needs Python 3\.99 or later, and none was found"):
            environments.interpreter((3, 99))
