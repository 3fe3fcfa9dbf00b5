"""The example project, with the ops of the acceptance tests beside its own."""

import json
import os

from example_project.settings import *  # noqa: F403

ALYA = json.loads(os.environ.get("ALYA", "{}"))

INSTALLED_APPS = [*INSTALLED_APPS, "tests.acceptance.ops"]  # noqa: F405

# Two releases of one project, each with an op that the other does not know; they sweep as often as a test asks.
RELEASE = os.environ.get("ACCEPTANCE_RELEASE")
if RELEASE:
    ALYA = {"CONFIG_FAILURE_SECONDS": float(os.environ["ACCEPTANCE_CONFIG_FAILURE_SECONDS"]), "SWEEP_SECONDS": 0.2}
