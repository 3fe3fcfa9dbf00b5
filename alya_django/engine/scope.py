"""Which of the registered processors a worker serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from alya_django.querysets import BatchQuerySet
from alya_django.registry import Registration, registry
from alya_django.status import Kind
from alya_django.validation import fold_name


@dataclass(frozen=True, slots=True)
class Scope:
    """
    The apps, ops and kinds that a worker is narrowed to; an empty set leaves all.

    It holds for all that a worker does of its own accord: it neither claims from a batch outside its scope, nor wakes
    it, finishes it, tells of its end, or judges that nobody serves it.
    """

    apps: frozenset[str] = frozenset()
    ops: frozenset[str] = frozenset()
    kinds: frozenset[Kind] = frozenset()

    @classmethod
    def of(cls, *, apps: Iterable[str] = (), ops: Iterable[str] = (), kinds: Iterable[Kind] = ()) -> Self:
        """
        Return the scope of these names, in any case of letters.

        Raises:
            InvalidInput: One of them can be no name.
        """
        return cls(
            frozenset(fold_name(app, "app") for app in apps),
            frozenset(fold_name(op, "op") for op in ops),
            frozenset(kinds),
        )

    def registrations(self) -> list[Registration]:
        """Return the registered processors within the scope."""
        return [
            entry
            for entry in registry
            if (not self.apps or entry.app in self.apps)
            and (not self.ops or entry.op in self.ops)
            and (not self.kinds or entry.kind in self.kinds)
        ]

    def chosen(self) -> list[Registration]:
        """Return those of them that somebody has chosen: Alya's own go along uninvited, unless their app is named."""
        return [entry for entry in self.registrations() if not entry.is_own or entry.app in self.apps]

    def unserved(self) -> list[tuple[str, str]]:
        """Return the names that no processor within the scope has, each with what it is a name of."""
        served = self.chosen()
        missing: dict[str, Iterable[str]] = {
            "app": self.apps - {entry.app for entry in served},
            "op": self.ops - {entry.op for entry in served},
            "kind": {str(kind.label) for kind in self.kinds - {entry.kind for entry in served}},
        }
        return [(field, name) for field, names in missing.items() for name in sorted(names)]

    def narrow(self, batches: BatchQuerySet) -> BatchQuerySet:
        """Return those of some batches that are within the scope, whether anybody serves them or not."""
        names = {"app__in": self.apps, "op__in": self.ops, "kind__in": self.kinds}
        return batches.filter(**{field: list(wanted) for field, wanted in names.items() if wanted})
