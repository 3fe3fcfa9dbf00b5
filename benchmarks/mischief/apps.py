from django.apps import AppConfig


class MischiefConfig(AppConfig):
    name = "benchmarks.mischief"
    label = "mischief"

    def ready(self) -> None:
        from benchmarks.mischief import ops  # noqa: F401  (importing registers them)
