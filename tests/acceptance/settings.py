"""The example project, with the ops of the acceptance tests beside its own."""

from example_project.settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "tests.acceptance.ops"]  # noqa: F405
