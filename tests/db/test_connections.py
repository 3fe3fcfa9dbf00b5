from __future__ import annotations

import pytest
from django.db import connection

from alya_django.db import database

pytestmark = pytest.mark.django_db(transaction=True)


def is_watched_by_server() -> bool:
    """Tell whether the server would soon miss the client of a new connection."""
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT CURRENT_SETTING('tcp_keepalives_idle')")
        return cursor.fetchone() == ("10",)


class KeepAliveTests:
    def test_the_server_watches_new_connections(self) -> None:
        """While a worker lives, and no longer."""
        options = connection.settings_dict["OPTIONS"]
        with database("default").keep_alive():
            assert is_watched_by_server()
            assert connection.settings_dict["OPTIONS"]["keepalives_idle"] == 10
        assert not is_watched_by_server()
        assert connection.settings_dict["OPTIONS"] == options

    def test_nothing_is_set_behind_a_pooler(self, settings) -> None:
        """In transaction mode it would stay with a connection that others get next."""
        settings.ALYA = {"LISTEN": False}
        with database("default").keep_alive():
            assert not is_watched_by_server()
