from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from itertools import product
from pathlib import Path

import pytest

import alya_django

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def project():
    """What pyproject.toml says of the package."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def matrix():
    """The environments of tox, as pairs of a Python and a Django."""
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    pairs = set()
    for line in tox["tox"]["env_list"].split("\n"):
        if found := re.fullmatch(r"py(\d)(\d+)-django\{?([\d, ]+)\}?", line.strip()):
            pythons, djangos = [f"{found[1]}.{found[2]}"], re.split(r",\s*", found[3])
            pairs |= {(python, f"{django[0]}.{django[1]}") for python, django in product(pythons, djangos)}
    return pairs


def classified(project, prefix):
    """Return the versions that the classifiers give after a prefix."""
    pattern = re.compile(re.escape(prefix) + r"(\d+\.\d+)")
    return {found[1] for classifier in project["classifiers"] if (found := pattern.fullmatch(classifier))}


class PackagingTests:
    def test_the_classifiers_are_the_matrix(self, project, matrix) -> None:
        """What is promised is what is tested, and nothing else."""
        assert classified(project, "Programming Language :: Python :: ") == {python for python, _ in matrix}
        assert classified(project, "Framework :: Django :: ") == {django for _, django in matrix}

    def test_the_matrix_has_both_ends(self, matrix) -> None:
        """The oldest with the oldest, and the newest with the newest."""
        assert {("3.11", "5.2"), ("3.13", "6.1")} <= matrix

    def test_the_hard_dependencies_are_two(self, project) -> None:
        """All else is an extra."""
        assert [re.split(r"[><=]", dependency)[0] for dependency in project["dependencies"]] == ["Django", "psycopg"]
        assert set(project["optional-dependencies"]) == {"cli", "redis", "s3", "xlsx", "watch"}

    def test_the_version_is_one(self, project) -> None:
        """The package and its metadata agree."""
        assert project["version"] == alya_django.__version__

    def test_is_typed(self) -> None:
        """Who uses it gets its types."""
        assert Path(alya_django.__file__).with_name("py.typed").exists()
