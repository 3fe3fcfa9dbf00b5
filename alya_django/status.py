"""The states of batches and rows, and the two kinds of batch."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """
    Where a batch or a row is. The last three are final: no verb leaves them.

    A row is never WAIT. Stored as the values, shown as the labels.
    """

    WAIT = "wait", _("wait")
    QUEUED = "queued", _("queued")
    IN_PROGRESS = "inprog", _("in progress")
    SUCCESS = "success", _("success")
    FAILED = "failed", _("failed")
    ABORTED = "aborted", _("aborted")

    @property
    def is_final(self) -> bool:
        return self in FINAL

    @classmethod
    def of_finished(cls, *, nfailed: int, naborted: int = 0) -> "Status":
        """Return the final state of a batch whose rows have all ended."""
        if naborted:
            return cls.ABORTED
        return cls.FAILED if nfailed else cls.SUCCESS


FINAL = frozenset({Status.SUCCESS, Status.FAILED, Status.ABORTED})
PENDING = frozenset({Status.QUEUED, Status.IN_PROGRESS})


class Kind(TextChoices):
    """A batch of many rows, or a slow query: a batch of one."""

    BATCH = "B", _("batch")
    SLOW_QUERY = "Q", _("slow query")
