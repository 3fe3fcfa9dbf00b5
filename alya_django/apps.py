"""The Django application."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AlyaConfig(AppConfig):
    name = "alya_django"
    verbose_name = _("Batches")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from alya_django import own_queries
        from alya_django.checks import register_checks
        from alya_django.intake import uploads

        own_queries.register()
        uploads.register()
        register_checks()
