"""The example project, with the ops of the acceptance tests beside its own."""

import json
import os

from example_project.settings import *  # noqa: F403

ALYA = json.loads(os.environ.get("ALYA", "{}"))

INSTALLED_APPS = [*INSTALLED_APPS, "tests.acceptance.ops"]  # noqa: F405
