"""Who has a file in hand, seen from a second process, which here is a second descriptor."""

from __future__ import annotations

import os

import pytest

from alya_django import InvalidInput
from alya_django.intake import claims
from alya_django.intake.claims import claim, open_folder, resume, tokens


@pytest.fixture
def source(tmp_path):
    """A file that has arrived."""
    path = tmp_path / "TXN1.csv"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def folder(tmp_path):
    return open_folder(tmp_path)


class ClaimTests:
    @pytest.mark.rule("INF-3")
    def test_takes_the_file_out_of_sight(self, source, folder) -> None:
        """It is renamed, on its own file system, into a folder that nobody else can read."""
        inode = source.stat().st_ino
        with claim(folder, source, "txn") as claimed:
            assert not source.exists()
            assert claimed.path.parent == folder == source.parent / ".processing"
            assert claimed.path.stat().st_ino == inode
            assert folder.stat().st_mode & 0o777 == 0o700
            claimed.remove()
        assert list(folder.iterdir()) == []

    @pytest.mark.rule("INF-3")
    def test_is_not_taken_up_while_somebody_works_on_it(self, source, folder) -> None:
        """Whoever else looks sees the claim, and leaves it."""
        with claim(folder, source, "txn") as claimed, resume(folder, claimed.token) as other:
            assert other is None
            assert tokens(folder) == [claimed.token]

    @pytest.mark.rule("INF-6")
    def test_is_taken_up_with_all_that_was_known(self, source, folder) -> None:
        """Once nobody holds it: with its token, where it lay, and its type."""
        with claim(folder, source, "txn") as claimed:
            pass
        with resume(folder, claimed.token) as resumed:
            assert resumed == claimed

    @pytest.mark.rule("INF-3")
    def test_comes_too_late_for_a_file_that_is_gone(self, source, folder) -> None:
        """Another daemon was faster, or the sender has taken it back."""
        source.unlink()
        with claim(folder, source, "txn") as claimed:
            assert claimed is None
        assert list(folder.iterdir()) == []

    def test_leaves_nothing_where_the_file_cannot_be_moved(self, source, folder, monkeypatch) -> None:
        """Such as one on another file system."""

        def rename(self, target):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(type(source), "rename", rename)
        with pytest.raises(OSError, match="cross-device"), claim(folder, source, "txn"):
            pass
        assert (list(folder.iterdir()), source.exists()) == ([], True)

    def test_is_given_up_where_it_was_taken_for_a_leftover(self, source, folder, monkeypatch) -> None:
        """Between the making of a claim and its lock another daemon may lock it; then the file stays."""
        monkeypatch.setattr(claims, "_lock", lambda descriptor: False)
        with claim(folder, source, "txn") as claimed:
            assert claimed is None
        assert source.exists()

    def test_can_set_a_file_aside(self, source, folder) -> None:
        """It stays in the folder, and is no claim any more."""
        with claim(folder, source, "txn") as claimed:
            aside = claimed.set_aside()
        assert (aside.read_bytes(), tokens(folder)) == (b"content", [])


class ResumeTests:
    def test_is_of_no_use_for_a_claim_that_is_gone(self, folder) -> None:
        """Its process has done it meanwhile."""
        with resume(folder, "none") as resumed:
            assert resumed is None

    def test_removes_a_claim_without_a_file(self, source, folder) -> None:
        """Its process died before it moved the file, or after it removed it."""
        with claim(folder, source, "txn") as claimed:
            claimed.path.unlink()
        with resume(folder, claimed.token) as resumed:
            assert resumed is None
        assert tokens(folder) == []

    def test_sees_that_the_claim_was_removed_while_it_waited(self, source, folder, monkeypatch) -> None:
        """The lock is then one of a file that has no name any more."""
        with claim(folder, source, "txn") as claimed:
            pass
        lock = claims._lock

        def remove_first(descriptor):
            os.unlink(folder / f"{claimed.token}.claim")
            return lock(descriptor)

        monkeypatch.setattr(claims, "_lock", remove_first)
        with resume(folder, claimed.token) as resumed:
            assert resumed is None


class FolderTests:
    def test_may_be_there_already(self, tmp_path) -> None:
        """It is made once."""
        assert open_folder(tmp_path) == open_folder(tmp_path)

    @pytest.mark.rule("INF-5")
    def test_must_be_a_directory(self, tmp_path) -> None:
        """A link would lead the files elsewhere."""
        (tmp_path / ".processing").symlink_to("/tmp")
        with pytest.raises(InvalidInput) as caught:
            open_folder(tmp_path)
        assert str(caught.value) == f"directories: {tmp_path}/.processing is no directory."

    def test_claims_may_vanish_while_they_are_listed(self, folder, monkeypatch) -> None:
        """Another daemon ends its own at any moment."""
        (folder / "gone.claim").symlink_to(folder / "nowhere")
        assert tokens(folder) == []
