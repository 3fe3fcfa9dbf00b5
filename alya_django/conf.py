"""The settings of Alya: one dict, ``ALYA``, read when used."""

from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

DEFAULTS: dict[str, Any] = {
    "CACHE": "default",
    "STORAGE": "default",
    "OUTPUT_PREFIX": "alya",
    "INCOMING_PREFIX": "incoming",
    "FAILED_PREFIX": "failed",
    "CHUNK_ROWS": 500,
    "CHUNK_SECONDS": 0.5,
    "FLUSH_SECONDS": 0.5,
    "POLL_SECONDS": 1.0,
    "LISTEN": True,
    "STATUS_CACHE_SECONDS": 60,
    "BATCH_ROWS_MAX": 10_000_000,
    "OUTPUT_FILES_MAX": 1000,
    "DUPLICATE_DAYS": 30,
    "FILE_BYTES_MAX": 2_000_000_000,
    "UNPACKED_BYTES_MAX": 10_000_000_000,
    "RECORD_CHARS_MAX": 1_000_000,
    "COLUMNS_MAX": 16_384,
    "XLSX_BYTES_MAX": 200_000_000,
    "XLSX_CELLS_MAX": 5_000_000,
    "XLSX_MEMORY_BYTES_MAX": 2_000_000_000,
    "XLSX_SECONDS_MAX": 120,
    "UPLOADS_MAX": 20,
    "WATCH_DIRECTORIES": (),
    "WATCH_TYPES": (),
    "WATCH_SECONDS": 5.0,
    "WATCH_AGE_SECONDS": 10.0,
    "MAX_ATTEMPTS": 3,
    "RETRY_SECONDS": 1.0,
    "TIME_LIMIT_SECONDS": None,
    "HEARTBEAT_SECONDS": 5,
    "WORKER_TTL_SECONDS": 20,
    "SWEEP_SECONDS": 60,
    "CONFIG_FAILURE_SECONDS": 900,
    "ADMIN_SCOPE": None,
    "MASK_KEYS": (),
    "MASK_WITH": None,
    "LOG_PAYLOADS": False,
}


class Settings:
    """The project's ``ALYA`` over the defaults, looked up at every access so that tests can override it."""

    def __getattr__(self, name: str) -> Any:
        if name not in DEFAULTS:
            raise AttributeError(f"There is no setting ALYA[{name!r}].")
        return self.given().get(name, DEFAULTS[name])

    def given(self) -> dict[str, Any]:
        """Return what the project has set; raise ImproperlyConfigured where that is no dict."""
        given = getattr(django_settings, "ALYA", {})
        if not isinstance(given, dict):
            raise ImproperlyConfigured(f"ALYA is a {type(given).__name__}, not a dict.")
        return given


settings = Settings()
