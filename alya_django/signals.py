"""What Alya tells the rest of a project, after the commit, with ``sender=Batch``."""

from django.dispatch import Signal

batch_submitted = Signal()
"""A batch was stored. Arguments: ``batch_id``, ``app``, ``op``, ``kind``. Sent once."""

batch_finished = Signal()
"""A batch reached a final state. Argument: ``details``, a BatchDetails. Sent at most once."""

worker_lost = Signal()
"""A worker died. Arguments: ``worker``, its name; ``rows``, how many it had in hand. Sent at most once."""
