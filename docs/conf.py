"""How Sphinx builds these pages; autodoc imports the package, so Django is set up on an empty SQLite."""

import django
from django.conf import settings

import alya_django

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": ":memory:",
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        }
    },
    INSTALLED_APPS=["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "alya_django"],
    USE_TZ=True,
)
django.setup()

project = "alya_django"
copyright = "The alya_django maintainers"
release = alya_django.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# Anchors for links such as behaviour.md#sub-submitting-a-batch.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_type_aliases = {"JSON": "JSON"}
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"alya_django {release}"


def setup(app):
    """Have signatures say JSON, the name, where autodoc says what kind of reference it is."""
    app.connect("autodoc-process-signature", lambda *event: tuple(map(_plain, event[-2:])))


def _plain(text):
    return text and text.replace("TypeAliasForwardRef('JSON')", "JSON")
