"""Who has a file in hand, seen from a second process, which here is a second descriptor."""

from __future__ import annotations

import os
import time

import pytest

from alya_django.intake import claims
from alya_django.intake.arrivals import arrivals
from alya_django.intake.claims import Refused, claim, open_folder, resume, tokens
from alya_django.intake.patterns import Mapping, Patterns
from tests.intake.files import register

pytestmark = pytest.mark.usefixtures("registry")


@pytest.fixture
def source(tmp_path):
    """A file that has arrived."""
    path = tmp_path / "TXN1.csv"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def folder(tmp_path):
    with open_folder(tmp_path) as opened:
        yield opened


@pytest.fixture
def patterns():
    register()
    return Patterns.of([Mapping("**/*.csv", "txn")])


@pytest.fixture
def arrival(source, folder, patterns):
    """What was seen of the file."""
    (found,) = arrivals(folder.directory, patterns, lambda parts, reason: None)
    return found


@pytest.fixture
def processing(tmp_path):
    """What lies in the folder of the claims."""
    return lambda: sorted(path.name for path in (tmp_path / ".processing").iterdir())


class ClaimTests:
    @pytest.mark.rule("INF-3")
    def test_takes_the_file_out_of_sight(self, source, folder, arrival, processing) -> None:
        """It is renamed, on its own file system, into a folder that nobody else can read."""
        inode = source.stat().st_ino
        with claim(folder, arrival) as claimed:
            assert not source.exists()
            assert folder.held_status(claimed.token).st_ino == inode
            assert (source.parent / ".processing").stat().st_mode & 0o777 == 0o700
            assert (claimed.source, claimed.file_type, claimed.deaths) == (source, "txn", 0)
            assert claimed.file.read() == b"content"
            claimed.remove()
            assert folder.held_status(claimed.token) is None
        assert processing() == []

    @pytest.mark.rule("INF-3")
    def test_is_not_taken_up_while_somebody_works_on_it(self, folder, arrival, patterns) -> None:
        """Whoever else looks sees the claim, and leaves it."""
        with claim(folder, arrival) as claimed, resume(folder, claimed.token, patterns) as other:
            assert other is None
            assert tokens(folder) == [claimed.token]

    @pytest.mark.rule("INF-6", "INF-12")
    def test_is_taken_up_with_all_that_was_known(self, folder, arrival, patterns) -> None:
        """Once nobody holds it: with its token, where it lay, and the type that the patterns say."""
        with claim(folder, arrival) as claimed:
            pass
        with resume(folder, claimed.token, patterns) as resumed:
            assert (resumed.token, resumed.source, resumed.file_type) == (claimed.token, claimed.source, "txn")

    @pytest.mark.rule("INF-3")
    def test_comes_too_late_for_a_file_that_is_gone(self, source, folder, arrival, processing) -> None:
        """Another daemon was faster, or the sender has taken it back."""
        source.unlink()
        with claim(folder, arrival) as claimed:
            assert claimed is None
        assert processing() == []

    def test_comes_too_late_for_a_file_that_another_has_just_moved(
        self, source, folder, arrival, processing, monkeypatch
    ) -> None:
        """Between the opening and the move."""
        begin = claims._begin

        def move_first(*arguments):
            source.unlink()
            begin(*arguments)

        monkeypatch.setattr(claims, "_begin", move_first)
        with claim(folder, arrival) as claimed:
            assert claimed is None
        assert processing() == []

    @pytest.mark.rule("INF-5")
    def test_takes_no_other_file_than_was_looked_at(self, source, folder, arrival) -> None:
        """One that has come under its name has to be looked at first."""
        new = source.with_name("new")
        new.write_bytes(b"half of it")
        new.rename(source)
        with claim(folder, arrival) as claimed:
            assert claimed is None
        assert source.exists()

    @pytest.mark.rule("INF-5")
    def test_leaves_another_file_that_it_has_moved_to_be_taken_up(
        self, source, folder, arrival, patterns, monkeypatch
    ) -> None:
        """It came under the name at the last moment: nobody has looked at it yet. No death is counted."""
        begin = claims._begin

        def swap_first(*arguments):
            (source.parent / "new").write_bytes(b"half of it")
            (source.parent / "new").rename(source)
            begin(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(claims, "_begin", swap_first)
            with claim(folder, arrival) as claimed:
                assert claimed is None
        (token,) = tokens(folder)
        with resume(folder, token, patterns) as resumed:
            assert (resumed.file.read(), resumed.source, resumed.deaths) == (b"half of it", source, 0)

    def test_leaves_nothing_where_the_file_cannot_be_moved(
        self, source, folder, arrival, processing, monkeypatch
    ) -> None:
        """Such as one on another file system."""

        def rename(*arguments, **options):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(claims.os, "rename", rename)
        with pytest.raises(Refused, match="cross-device"), claim(folder, arrival):
            pass
        assert (processing(), source.exists()) == ([], True)

    def test_is_given_up_where_it_was_taken_for_a_leftover(self, source, folder, arrival, monkeypatch) -> None:
        """Between the making of a claim and its lock another daemon may lock it; then the file stays."""
        monkeypatch.setattr(claims, "_lock", lambda descriptor: False)
        with claim(folder, arrival) as claimed:
            assert claimed is None
        assert source.exists()

    def test_can_set_a_file_aside(self, folder, arrival) -> None:
        """It stays in the folder, and is no claim any more."""
        with claim(folder, arrival) as claimed:
            aside = claimed.set_aside()
        assert (aside.read_bytes(), tokens(folder)) == (b"content", [])

    def test_may_lose_its_folder(self, source, folder, arrival) -> None:
        """Whoever owns the directory can remove the folder as long as it is empty; the file stays."""
        (source.parent / ".processing").rmdir()
        with claim(folder, arrival) as claimed:
            assert claimed is None
        assert source.exists()


class ResumeTests:
    def test_is_of_no_use_for_a_claim_that_is_gone(self, folder, patterns) -> None:
        """Its process has done it meanwhile."""
        with resume(folder, "none", patterns) as resumed:
            assert resumed is None

    def test_removes_a_claim_without_a_file(self, folder, arrival, patterns) -> None:
        """Its process died before it moved the file, or after it removed it."""
        with claim(folder, arrival) as claimed:
            os.unlink(f"{claimed.token}.file", dir_fd=folder.processing)
        with resume(folder, claimed.token, patterns) as resumed:
            assert resumed is None
        assert tokens(folder) == []

    def test_sees_that_the_claim_was_removed_while_it_waited(self, folder, arrival, patterns, monkeypatch) -> None:
        """The lock is then one of a file that has no name any more."""
        with claim(folder, arrival) as claimed:
            pass
        lock = claims._lock

        def remove_first(descriptor):
            folder.remove_claim(claimed.token)
            return lock(descriptor)

        monkeypatch.setattr(claims, "_lock", remove_first)
        with resume(folder, claimed.token, patterns) as resumed:
            assert resumed is None

    def test_cannot_open_what_it_may_not(self, folder, arrival, patterns, monkeypatch) -> None:
        """It is told of, and stays as it is."""
        with claim(folder, arrival) as claimed:
            pass

        def refuse(start, name):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(claims, "open_file", refuse)
        with pytest.raises(Refused, match="Permission denied"), resume(folder, claimed.token, patterns):
            pass
        assert tokens(folder) == [claimed.token]

    @pytest.mark.rule("INF-13")
    def test_knows_how_many_have_died_over_it(self, folder, arrival, patterns) -> None:
        """Whoever ends in any other way, and whoever was told to stop before, is not among them."""
        with claim(folder, arrival) as claimed:
            pass
        deaths = []
        for end in (die, go_on, stop_and_die, die, go_on):
            pid = os.fork()
            if pid == 0:
                end(resume(folder, claimed.token, patterns))
            deaths.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        assert deaths == [0, 1, 1, 1, 2]


def die(taking):
    """Take a claim up and die of it, saying how many have before."""
    os._exit(taking.__enter__().deaths)


def stop_and_die(taking):
    claimed = taking.__enter__()
    claimed.forgive()
    os._exit(claimed.deaths)


def go_on(taking):
    with taking as claimed:
        pass
    os._exit(claimed.deaths)


class FolderTests:
    def test_may_be_there_already(self, tmp_path) -> None:
        """It is made once."""
        for _ in range(2):
            with open_folder(tmp_path) as folder:
                assert tokens(folder) == []

    @pytest.mark.rule("INF-12")
    @pytest.mark.parametrize("place", [lambda path: path.symlink_to("/tmp"), lambda path: path.touch()])
    def test_must_be_a_directory(self, tmp_path, place) -> None:
        """A link would lead the files elsewhere."""
        place(tmp_path / ".processing")
        with pytest.raises(Refused, match=r"\.processing is no directory"), open_folder(tmp_path):
            pass

    @pytest.mark.rule("INF-12")
    def test_must_be_its_users_own(self, tmp_path, monkeypatch) -> None:
        """Neither another's, nor one that others can write to or read."""
        (tmp_path / ".processing").mkdir(mode=0o700)
        for mode in (0o770, 0o707, 0o750, 0o701):
            (tmp_path / ".processing").chmod(mode)
            with pytest.raises(Refused, match=f"with mode {mode:o}"), open_folder(tmp_path):
                pass
        (tmp_path / ".processing").chmod(0o700)
        other = os.geteuid() + 1
        monkeypatch.setattr(claims.os, "geteuid", lambda: other)
        with pytest.raises(Refused, match=f"it must be of user {other}"), open_folder(tmp_path):
            pass

    def test_claims_may_vanish_while_they_are_listed(self, folder, monkeypatch) -> None:
        """Another daemon ends its own at any moment."""
        scan = os.scandir

        class Vanishing:
            def __init__(self, entry):
                self.name = entry.name

            def stat(self, *, follow_symlinks):
                raise FileNotFoundError

        class Scan:
            def __init__(self, descriptor):
                self.entries = scan(descriptor)

            def __enter__(self):
                return map(Vanishing, self.entries)

            def __exit__(self, *exception):
                self.entries.close()

        os.close(os.open("gone.claim", os.O_CREAT, dir_fd=folder.processing))
        monkeypatch.setattr(claims.os, "scandir", Scan)
        assert tokens(folder) == []

    def test_lists_first_what_was_left_alone_longest(self, folder) -> None:
        """What has just been tried in vain does not go before the others."""
        for token, age in (("a", 10), ("b", 30), ("c", 20)):
            os.close(os.open(f"{token}.claim", os.O_CREAT, dir_fd=folder.processing))
            when = time.time() - age
            os.utime(f"{token}.claim", (when, when), dir_fd=folder.processing)
        assert tokens(folder) == ["b", "c", "a"]
