class AlyaElsewhere:
    """Keep Alya's tables in a database of their own, and nothing else there."""

    def db_for_read(self, model, **hints):
        return self._db(model._meta.app_label)

    def db_for_write(self, model, **hints):
        return self._db(model._meta.app_label)

    def allow_migrate(self, db, app_label, **hints):
        return (db == "alya") == (app_label == "alya_django")

    def _db(self, app_label):
        return "alya" if app_label == "alya_django" else None
