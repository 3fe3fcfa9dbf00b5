"""What is opened below a directory of strangers, and what is not."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from alya_django.intake import nofollow
from alya_django.intake.nofollow import NotOrdinary, below, directory, oddity, open_file


@pytest.fixture
def here(tmp_path):
    """A directory, open, with a file of root's beside it."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "in").mkdir()
    with directory(tmp_path / "in") as descriptor:
        yield descriptor


def link(path):
    path.symlink_to("../secret")


def nowhere(path):
    path.symlink_to("nowhere")


def hard_link(path):
    path.hardlink_to(path.parent.parent / "secret")


def unix_socket(path):
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        # A path of the whole length would be too long for a socket.
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            bound.bind(path.name)
        finally:
            os.chdir(before)


ODD = {
    "link": (link, "is a link"),
    "link to nowhere": (nowhere, "is a link"),
    "hard link": (hard_link, "has 2 names"),
    "pipe": (os.mkfifo, "is a pipe"),
    "socket": (unix_socket, "is a socket"),
    "directory": (os.mkdir, "is a directory"),
}


class FileTests:
    @pytest.mark.rule("INF-11")
    @pytest.mark.parametrize(("make", "said"), ODD.values(), ids=ODD)
    def test_only_ordinary_files_are_opened(self, here, tmp_path, make, said) -> None:
        """At once: nothing is followed, and nothing waited for."""
        make(tmp_path / "in" / "odd")
        with pytest.raises(NotOrdinary, match=f"^{said}$"):
            open_file(here, "odd")

    @pytest.mark.rule("INF-11")
    @pytest.mark.parametrize(("make", "said"), ODD.values(), ids=ODD)
    def test_nor_what_is_put_there_after_the_look(self, here, tmp_path, monkeypatch, make, said) -> None:
        """The file that was opened is asked, not the name."""
        (tmp_path / "in" / "odd").write_bytes(b"honest")
        look = os.stat

        def look_and_swap(name, **options):
            status = look(name, **options)
            (tmp_path / "in" / "odd").unlink()
            make(tmp_path / "in" / "odd")
            return status

        monkeypatch.setattr(nofollow.os, "stat", look_and_swap)
        with pytest.raises((NotOrdinary, OSError)):
            open_file(here, "odd")

    @pytest.mark.rule("INF-11")
    def test_a_device_is_not_even_opened(self, monkeypatch) -> None:
        """Opening may already do something to it."""
        monkeypatch.setattr(nofollow.os, "open", None)
        assert oddity(os.stat("/dev/null")) == "is a device"
        with pytest.raises(NotOrdinary, match=r"^is a device$"):
            open_file(-1, "/dev/null")

    def test_a_file_can_be_read(self, here, tmp_path) -> None:
        """As bytes."""
        (tmp_path / "in" / "a").write_bytes(b"content")
        with open_file(here, "a") as file:
            assert file.read() == b"content"


class DirectoryTests:
    @pytest.mark.rule("INF-11")
    def test_no_part_of_the_way_may_be_a_link(self, tmp_path, here) -> None:
        """Neither to the watched directory nor below it."""
        (tmp_path / "in" / "a" / "b").mkdir(parents=True)
        (tmp_path / "in" / "link").symlink_to("a")
        (tmp_path / "other").symlink_to("in")
        with below(here, ["a", "b"]) as descriptor:
            assert os.listdir(descriptor) == []
        for parts in (["link"], ["link", "b"]):
            with pytest.raises(NotADirectoryError), below(here, parts):
                pass
        for path in (tmp_path / "other", tmp_path / "other" / "a"):
            with pytest.raises(NotADirectoryError), directory(path):
                pass

    def test_nothing_stays_open(self, tmp_path, here) -> None:
        """However it ends."""
        before = os.listdir("/dev/fd")
        with below(here, []), directory(tmp_path):
            pass
        with pytest.raises(FileNotFoundError), below(here, ["none"]):
            pass
        (tmp_path / "in" / "link").symlink_to("a")
        with pytest.raises(NotOrdinary):
            open_file(here, "link")
        assert len(os.listdir("/dev/fd")) == len(before)
