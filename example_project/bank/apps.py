from django.apps import AppConfig


class BankConfig(AppConfig):
    name = "example_project.bank"
    label = "bank"
    verbose_name = "Bank"

    def ready(self) -> None:
        from example_project.bank import checkers, night, processors  # noqa: F401  (importing registers them)
