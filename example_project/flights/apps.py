from django.apps import AppConfig


class FlightsConfig(AppConfig):
    name = "example_project.flights"
    label = "flights"
    verbose_name = "Flights"

    def ready(self) -> None:
        from example_project.flights import checkers, processors  # noqa: F401  (importing registers them)
