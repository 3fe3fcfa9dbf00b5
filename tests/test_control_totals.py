from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alya_django import ControlTotals, InvalidInput
from alya_django.control_totals import AMOUNT_CHARS_MAX, Sums, amount, differences

AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**30), max_value=10**30)
NO_AMOUNTS = ["", " 1", "1,00", "1e5", "NaN", "Infinity", "1_000", "٣", "--1", ".", None, True, [], "9" * 101, 10**100]


class AmountTests:
    @pytest.mark.rule("FXR-19")
    @pytest.mark.parametrize("value", ["0", "12.50", "-3.", "+.5", "007", 12, -1, "9" * AMOUNT_CHARS_MAX])
    def test_is_a_decimal_number_as_text(self, value):
        """A text or a whole number becomes exactly the number that it says."""
        assert amount(value, "amount") == Decimal(value)

    @pytest.mark.rule("FXR-19")
    @pytest.mark.parametrize("value", NO_AMOUNTS, ids=repr)
    def test_refuses_what_is_none(self, value):
        """Neither exponents nor what Decimal takes beside, nor another script."""
        with pytest.raises(InvalidInput) as caught:
            amount(value, "amount")
        assert str(caught.value).endswith(" is no amount.")
        assert caught.value.field == "amount"

    def test_says_what_to_give_instead_of_a_float(self):
        """A float is not what was written."""
        with pytest.raises(InvalidInput) as caught:
            amount(0.1, "amount")
        assert str(caught.value) == "amount: 0.1 is no amount (give amounts as texts)."


class SumsTests:
    @pytest.mark.rule("FXR-19")
    @given(st.lists(AMOUNTS, max_size=50))
    def test_is_exact(self, values):
        """However large and however many, nothing is rounded."""
        sums = Sums(["amount"])
        for value in values:
            sums.add(sums.amounts({"amount": f"{value:f}"}))
        with localcontext(prec=1000):
            assert Decimal(sums.as_json()["amount"]) == sum(values, Decimal(0))

    def test_does_not_round_what_is_large_and_small(self):
        """The widest pair of amounts there can be adds up to all of its digits."""
        sums = Sums(["a"])
        sums.add(sums.amounts({"a": "9" * 100}))
        sums.add(sums.amounts({"a": "." + "0" * 98 + "1"}))
        assert sums.as_json() == {"a": f"{'9' * 100}.{'0' * 98}1"}

    @pytest.mark.parametrize("input", [{}, {"a": "1"}, "text", None, {"a": "1", "b": "x"}], ids=repr)
    def test_names_the_field_that_a_row_lacks(self, input):
        """Each field must be there."""
        with pytest.raises(InvalidInput, match=r"^[ab]: .* is no amount\.$"):
            Sums(["a", "b"]).amounts(input)


class DeclarationTests:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"count": "3"}, "count: must be a whole number, not '3'."),
            ({"count": True}, "count: must be a whole number, not True."),
            ({"sums": {"a": "x"}}, "sums.a: 'x' is no amount."),
            ({"sums": {"a": 1.5}}, "sums.a: 1.5 is no amount (give amounts as texts)."),
            ({"sums": {"a": Decimal("NaN")}}, "sums.a: 'NaN' is no amount."),
            ({"sums": {"a": True}}, "sums.a: True is no amount."),
        ],
    )
    def test_refuses_what_is_none(self, arguments, message):
        """A count is a whole number and a sum an amount."""
        with pytest.raises(InvalidInput) as caught:
            ControlTotals(**arguments)
        assert str(caught.value) == message

    def test_is_stored_as_text(self):
        """An amount is written without exponent."""
        assert ControlTotals(3, {"a": Decimal("1E+2"), "b": 7, "c": "1.50"}).as_json() == {
            "count": 3,
            "sums": {"a": "100", "b": "7", "c": "1.50"},
        }


class DifferenceTests:
    @pytest.mark.parametrize(
        ("declared", "found"),
        [
            ({"count": 2, "sums": {"a": "1.0"}}, []),
            ({"count": None, "sums": {}}, []),
            ({"count": 3, "sums": {}}, ["3 rows declared, 2 received"]),
            ({"count": 3, "sums": {"a": "2"}}, ["3 rows declared, 2 received", "a: 2 declared, 1.00 received"]),
        ],
    )
    def test_says_what_is_not_as_declared(self, declared, found):
        """Only what was declared is compared, and numbers by what they are worth."""
        assert differences(declared, {"count": 2, "sums": {"a": "1.00"}}, "received") == found

    def test_compares_what_both_have(self):
        """A count that is not known is not compared."""
        assert differences({"count": 3, "sums": {}}, {"sums": {}}, "succeeded") == []
