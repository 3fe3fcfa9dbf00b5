from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from alya_django.conf import DEFAULTS, settings


class SettingsTests:
    def test_a_key_left_out_has_its_default(self, settings) -> None:
        """No ALYA at all, and one of some keys, leave the others as they are."""
        from alya_django.conf import settings as ours

        del settings.ALYA
        assert DEFAULTS["CHUNK_ROWS"] == ours.CHUNK_ROWS
        settings.ALYA = {"POLL_SECONDS": 5}
        assert (5, DEFAULTS["CHUNK_ROWS"]) == (ours.POLL_SECONDS, ours.CHUNK_ROWS)

    def test_what_is_no_dict_is_said(self, settings) -> None:
        """A process that runs no checks is told, too."""
        from alya_django.conf import settings as ours

        settings.ALYA = ["CHUNK_ROWS"]
        with pytest.raises(ImproperlyConfigured, match=r"^ALYA is a list, not a dict\.$"):
            _ = ours.CHUNK_ROWS

    def test_there_is_no_other_key(self) -> None:
        """A slip in Alya's own code is an error."""
        with pytest.raises(AttributeError, match=r"There is no setting ALYA\['CHUNK'\]\."):
            _ = settings.CHUNK
