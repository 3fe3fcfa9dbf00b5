"""The rules of docs/reference/behaviour.md against the tests that carry their ids, read and not run."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent
DOCUMENT = TESTS.parent / "docs" / "reference" / "behaviour.md"
RULE = re.compile(r"^- \*\*([A-Z]+-\d+)\*\* ", re.MULTILINE)
MARKER = "pytest.mark.rule"


class BehaviourTests:
    def test_states_every_rule_once(self) -> None:
        """No id stands before two rules of the document, and there are rules."""
        rules = Counter(documented())
        twice = sorted(rule for rule, count in rules.items() if count > 1)
        assert rules, f"{DOCUMENT} states no rule."
        assert not twice, f"Stated more than once: {', '.join(twice)}."

    def test_every_rule_is_tested(self) -> None:
        """Each rule of the document is named by a test."""
        tested = named()
        untested = [rule for rule in documented() if rule not in tested]
        assert not untested, f"{len(untested)} rules that no test names: {', '.join(untested)}."

    def test_every_test_names_a_rule_of_the_document(self) -> None:
        """No test names a rule that the document does not state."""
        rules = set(documented())
        unknown = [f"{rule} ({', '.join(files)})" for rule, files in sorted(named().items()) if rule not in rules]
        assert not unknown, f"Rules that {DOCUMENT.name} does not state: {'; '.join(unknown)}."


def documented() -> list[str]:
    """Return the ids of the document's rules, in its order."""
    return RULE.findall(DOCUMENT.read_text(encoding="utf-8"))


def named() -> dict[str, list[str]]:
    """Return the ids that tests name, each with the files that do."""
    files: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for rule in sorted(set(_marked(ast.parse(path.read_text(encoding="utf-8"))))):
            files.setdefault(rule, []).append(path.relative_to(TESTS).as_posix())
    return files


def _marked(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == MARKER:
            yield from (ast.literal_eval(argument) for argument in node.args)
