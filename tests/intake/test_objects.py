from __future__ import annotations

import io

import pytest

from alya_django import BadFile
from alya_django.intake.objects import NAME_BYTES_MAX, object_name, sanitise, save

# The characters that Alya's sanitizeFilename replaces, one by one.
SANITISED = {
    "plain.txt": "plain.txt",
    "two words.txt": "two_words.txt",
    "a/b.txt": "a_b.txt",
    "a\\b.txt": "a_b.txt",
    "a:b.txt": "a_b.txt",
    "a*b.txt": "a_b.txt",
    "a?b.txt": "a_b.txt",
    'a"b.txt': "a_b.txt",
    "a<b>c.txt": "a_b_c.txt",
    "a|b.txt": "a_b.txt",
    "ä!@#.txt": "ä!@#.txt",
    "x" * 120: "x" * 120,
}


def last(name: str) -> str:
    return name.rpartition("/")[2]


class NameTests:
    @pytest.mark.rule("FXR-5")
    @pytest.mark.parametrize(("given", "expected"), SANITISED.items())
    def test_replaces_what_means_something_elsewhere(self, given, expected):
        """Each of those characters becomes an underscore; all others stay."""
        assert sanitise(given) == expected
        assert last(object_name("in", given)) == expected

    @pytest.mark.rule("FXR-5")
    def test_is_never_the_same_twice(self):
        """Two files of one name are two objects."""
        assert len({object_name("in", "TXN.csv") for _ in range(1000)}) == 1000

    @pytest.mark.rule("FXR-5")
    @pytest.mark.parametrize(
        "given",
        [
            "",
            ".",
            "..",
            "../../etc/passwd",
            "/etc/passwd",
            "..\\..\\boot.ini",
            ".htaccess",
            "a\0b",
            "a\nb",
            "\ud800.csv",
            "\u202egpj.exe",
            "../" * 500,
        ],
        ids=repr,
    )
    def test_stays_below_the_prefix(self, given):
        """Whatever the name, the object is in a folder of its own, is not hidden, and can be encoded."""
        prefix, token, name = object_name("/in/", given).split("/")
        assert (prefix, len(token)) == ("in", 32)
        assert name not in ("", ".", "..")
        assert not name.startswith(".")
        assert name.isprintable()
        assert len(name.encode()) <= NAME_BYTES_MAX

    @pytest.mark.rule("FXR-5")
    @pytest.mark.parametrize(
        ("given", "ending"),
        [
            ("x" * 300 + ".csv", "x.csv"),
            ("ß" * 300 + ".csv", "ß.csv"),
            ("€" * 300, "€"),
            ("x" * 300 + "." + "y" * 30, "x"),
            ("x." * 300, "x."),
        ],
    )
    def test_is_cut_between_characters(self, given, ending):
        """A long name keeps its extension, and no character is split."""
        name = last(object_name("in", given))
        assert NAME_BYTES_MAX - 4 < len(name.encode()) <= NAME_BYTES_MAX
        assert name.endswith(ending)

    def test_needs_no_prefix(self):
        """Without a prefix the token comes first."""
        assert object_name("", "a.csv").count("/") == 1


class SaveTests:
    @pytest.mark.rule("FXR-14")
    def test_refuses_what_is_too_large(self, settings, tmp_path):
        """Just the limit is stored; a byte more and nothing is left in the storage."""
        backend = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": tmp_path}}
        settings.STORAGES = {**settings.STORAGES, "default": backend}
        settings.ALYA = {"FILE_BYTES_MAX": 1_000_000}
        stored = save(object_name("in", "a"), io.BytesIO(b"x" * 1_000_000))
        assert stored.size == 1_000_000
        with pytest.raises(BadFile) as caught:
            save(object_name("in", "b"), io.BytesIO(b"x" * 1_000_001))
        assert caught.value.reason == "The file is larger than 1000000 bytes, the limit."
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a"]
