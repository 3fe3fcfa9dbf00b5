from __future__ import annotations

import threading

import pytest

from alya_django import AlreadyRegistered, InvalidInput, checkers, register_file_checker
from alya_django.checkers import CheckerRegistry, FileChecker, Route

TRANSFERS, FEES = Route("bank", "transfer"), Route("Bank", "FEES")
BY_ROUTES = {"app": None, "op": None}


def check(file, file_name, context):
    yield from ()


@pytest.fixture(autouse=True)
def _nothing_registered(registry):
    """An empty registry for each test."""


class RegisterTests:
    @pytest.mark.rule("FXR-10")
    def test_has_one_checker_for_a_type(self):
        """A second checker for a type is refused and changes nothing; another type is fine."""
        register_file_checker("txn", check, app="bank", op="transfer")
        with pytest.raises(AlreadyRegistered) as caught:
            register_file_checker("txn", lambda file, file_name, context: [], app="bank", op="transfer")
        assert str(caught.value) == "There is a checker for the file type 'txn' already."
        assert (caught.value.app, caught.value.op) == ("bank", "transfer")
        register_file_checker("fees", check, app="bank", op="fees")
        assert [(entry.file_type, entry.check) for entry in checkers] == [("fees", check), ("txn", check)]

    def test_the_same_once_more_changes_nothing(self):
        """A module that is loaded twice registers once; with another op it would be another checker."""
        register_file_checker("txn", check, app="bank", op="transfer")
        register_file_checker("txn", check, app="Bank", op="Transfer")
        with pytest.raises(AlreadyRegistered):
            register_file_checker("txn", check, app="bank", op="fees")
        assert list(checkers) == [FileChecker("txn", (Route("bank", "transfer"),), check)]

    def test_is_a_decorator_without_a_checker(self):
        """The function that is decorated stays what it is."""
        decorated = register_file_checker("txn", app="bank", op="transfer")(check)
        assert decorated is check
        assert "txn" in checkers

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"file_type": ""}, "file_type: is empty."),
            ({"file_type": 7}, "file_type: must be a string, not int."),
            ({"file_type": "a\0b"}, "file_type: has a NUL character."),
            ({"app": "two words"}, "app: 'two words' is no name: it takes letters a-z, digits, '_', '.' and '-', "),
            ({"op": None}, "op: must be a string, not NoneType."),
            ({"check": 7}, "check: 7 cannot be called."),
            ({"upload": "yes"}, "upload: must be True or False, not 'yes'."),
            ({"app": "Alya"}, "app: 'Alya' is the app of Alya's own slow queries"),
            ({"app": None}, "app: must be a string, not NoneType."),
            ({"routes": TRANSFERS}, "routes: go instead of app and op, not with them."),
            ({"routes": [TRANSFERS], "op": None}, "routes: go instead of app and op, not with them."),
            ({**BY_ROUTES, "routes": []}, "routes: must be different Routes, at least one, not []."),
            ({**BY_ROUTES, "routes": "bank/fee"}, "routes: must be different Routes, at least one, not 'bank/fee'."),
            ({**BY_ROUTES, "routes": [("bank", "fee")]}, "routes: must be different Routes, at least one, not "),
            ({**BY_ROUTES, "routes": [TRANSFERS, TRANSFERS]}, "routes: must be different Routes, at least one, not "),
        ],
    )
    def test_refuses_what_cannot_be_one(self, arguments, message):
        """The error names the argument, and nothing is registered."""
        given = {"file_type": "txn", "check": check, "app": "bank", "op": "transfer", **arguments}
        with pytest.raises(InvalidInput) as caught:
            register_file_checker(given.pop("file_type"), given.pop("check"), **given)
        assert str(caught.value).startswith(message)
        assert not checkers


class RouteTests:
    @pytest.mark.rule("FXR-41")
    def test_is_an_app_and_an_op(self):
        """In lower case, as all names are; it is written as people write it."""
        assert (FEES.app, FEES.op, str(FEES)) == ("bank", "fees", "bank/fees")
        assert Route("bank", "fees") == FEES

    @pytest.mark.rule("FXR-41")
    @pytest.mark.parametrize(
        ("names", "field"),
        [(("", "fee"), "app"), (("bank", None), "op"), (("bank", "a b"), "op"), (("ALYA", "x"), "app")],
    )
    def test_refuses_what_is_no_name(self, names, field):
        """The app of Alya's own slow queries is none to send files to."""
        with pytest.raises(InvalidInput) as caught:
            Route(*names)
        assert caught.value.field == field

    @pytest.mark.rule("FXR-41", "FXR-10")
    def test_may_be_one_of_several_of_a_type(self):
        """They keep their order; the same in another order is another checker."""
        register_file_checker("orders", check, routes=[TRANSFERS, FEES])
        register_file_checker("orders", check, routes=(TRANSFERS, FEES))
        register_file_checker("fees", check, routes=FEES)
        assert [(entry.routes, entry.apps) for entry in checkers] == [
            ((FEES,), {"bank"}),
            ((TRANSFERS, FEES), {"bank"}),
        ]
        assert repr(checkers) == "<CheckerRegistry: fees (bank/fees), orders (bank/transfer, bank/fees)>"
        with pytest.raises(AlreadyRegistered):
            register_file_checker("orders", check, routes=[FEES, TRANSFERS])


class RegistryTests:
    def test_shows_what_it_has(self):
        """Its length, order and representation are those of the types."""
        assert repr(checkers) == "<CheckerRegistry: empty>"
        register_file_checker("txn", check, app="bank", op="transfer")
        register_file_checker("fees", check, app="bank", op="fees")
        assert len(checkers) == 2
        assert "other" not in checkers
        assert repr(checkers) == "<CheckerRegistry: fees (bank/fees), txn (bank/transfer)>"

    @pytest.mark.rule("FXR-9")
    def test_can_be_read_while_others_register(self):
        """A reader sees whole tables only: iterating never meets one that changes."""
        registry = CheckerRegistry()
        seen = []

        def read():
            while len(seen) < 200 or seen[-1] < 200:
                seen.append(sum(1 for _ in registry))

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(200):
            registry.register(FileChecker(f"type{number}", (Route("bank", "transfer"),), check))
        reader.join(timeout=30)
        assert seen == sorted(seen)
        assert seen[-1] == 200
