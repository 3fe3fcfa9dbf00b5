"""Settings of the benchmarks, with a storage that can be taken away."""

import os

from benchmarks.settings import *  # noqa: F403
from benchmarks.settings import STORAGES

STORAGES = {
    **STORAGES,
    "default": {
        "BACKEND": "benchmarks.mischief.storage.ShakyStorage",
        "OPTIONS": {"location": os.environ["STORAGE_DIR"]},
    },
}
