"""What is found below a directory, and what is told of."""

from __future__ import annotations

import os

import pytest

from alya_django.intake import arrivals as module
from alya_django.intake.arrivals import LEVELS_MAX, arrivals
from alya_django.intake.nofollow import directory
from alya_django.intake.patterns import Mapping, Patterns
from tests.intake.files import register

pytestmark = pytest.mark.usefixtures("registry")


@pytest.fixture
def found(tmp_path):
    """Return the paths that match a pattern, and what was told of others."""
    register()

    def find(pattern):
        told = []
        with directory(tmp_path) as descriptor:
            patterns = Patterns.of([Mapping(pattern, "txn")])
            of_all = arrivals(descriptor, patterns, lambda parts, reason: told.append(("/".join(parts), reason)))
        return ["/".join(arrival.parts) for arrival in of_all], told

    return find


class ArrivalTests:
    @pytest.mark.rule("INF-11")
    def test_looks_no_deeper_than_patterns_ask_for(self, tmp_path, found, monkeypatch) -> None:
        """What strangers make elsewhere costs nothing."""
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "other").mkdir()
        (tmp_path / "a" / "x.csv").touch()
        looked = []
        below = module.below
        monkeypatch.setattr(module, "below", lambda start, parts: looked.append(parts) or below(start, parts))
        assert found("a/*.csv") == (["a/x.csv"], [])
        assert looked == [(), ("a",)]

    @pytest.mark.rule("INF-11")
    def test_tells_of_what_is_too_deep(self, tmp_path, found) -> None:
        """Directories within directories cost neither the look nor the file that lies in the first."""
        (tmp_path / "first.csv").touch()
        descriptor = os.open(tmp_path, os.O_RDONLY)
        for _ in range(2 * LEVELS_MAX):
            os.mkdir("d", dir_fd=descriptor)
            deeper = os.open("d", os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        os.close(os.open("last.csv", os.O_CREAT, dir_fd=descriptor))
        os.close(descriptor)
        deepest = "/".join(["d"] * (LEVELS_MAX + 1))
        assert found("**/*.csv") == (
            ["first.csv"],
            [(deepest, f"is not looked into: it is more than {LEVELS_MAX} levels deep")],
        )

    @pytest.mark.rule("INF-11")
    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (PermissionError(13, "Permission denied"), [("a", "cannot be looked into: Permission denied")]),
            (FileNotFoundError(2, "No such file or directory"), []),
            (NotADirectoryError(20, "Not a directory"), []),
        ],
    )
    def test_goes_on_where_a_directory_cannot_be_looked_into(self, tmp_path, found, monkeypatch, error, told) -> None:
        """One that is shut is told of; one that has vanished, or was swapped for a link, is none any more."""
        (tmp_path / "a").mkdir()
        (tmp_path / "first.csv").touch()
        below = module.below

        def refuse(start, parts):
            if parts:
                raise error
            return below(start, parts)

        monkeypatch.setattr(module, "below", refuse)
        assert found("**/*.csv") == (["first.csv"], told)

    def test_a_file_may_vanish_as_it_is_listed(self, tmp_path, found, monkeypatch) -> None:
        """Its sender has taken it back."""
        (tmp_path / "a.csv").touch()
        below = Patterns.below

        def vanish(self, name):
            (tmp_path / name).unlink()
            return below(self, name)

        monkeypatch.setattr(Patterns, "below", vanish)
        assert found("*.csv") == ([], [])
