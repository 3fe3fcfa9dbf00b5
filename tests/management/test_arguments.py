from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import timedelta

import pytest

from alya_django.intake.patterns import Mapping
from alya_django.management.arguments import age, count, interval, json_object, lines, mapping, seconds

pytestmark = pytest.mark.sqlite


class CountTests:
    def test_is_a_whole_number(self) -> None:
        """Above 0."""
        assert count("12") == 12

    @pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "²"])
    def test_refuses_what_is_none(self, text) -> None:
        """The text is named."""
        with pytest.raises(ArgumentTypeError) as caught:
            count(text)
        assert str(caught.value) == f"{text!r} is no whole number above 0."


class AgeTests:
    @pytest.mark.parametrize(("text", "hours"), [("0d", 0), ("36h", 36), ("90d", 90 * 24), ("2w", 14 * 24)])
    def test_is_a_number_and_a_unit(self, text, hours) -> None:
        """Hours, days or weeks."""
        assert age(text) == timedelta(hours=hours)

    @pytest.mark.parametrize("text", ["", "d", "90", "90m", "1.5d", "-1d", "90 d"])
    def test_refuses_what_is_none(self, text) -> None:
        """A number alone could be anything."""
        with pytest.raises(ArgumentTypeError) as caught:
            age(text)
        assert str(caught.value) == f"{text!r} is no age: it is a whole number and h, d or w, such as 90d."


class LinesTests:
    @pytest.mark.parametrize(("text", "named"), [("3", {3}), ("3,7", {3, 7}), ("3,5-7,6", {3, 5, 6, 7}), ("4-4", {4})])
    def test_are_numbers_and_ranges(self, text, named) -> None:
        """Both ends of a range belong to it."""
        assert lines(text) == named

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "'' is neither a line nor a range of lines."),
            ("3,x", "'x' is neither a line nor a range of lines."),
            ("7-3", "'7-3' is neither a line nor a range of lines."),
            ("3-", "'3-' is neither a line nor a range of lines."),
            ("-3", "'-3' is neither a line nor a range of lines."),
            ("1-2000000000", "these are more than 100,000 lines."),
        ],
    )
    def test_refuse_what_is_none(self, text, fault) -> None:
        """The part at fault is named, before any memory is taken for it."""
        with pytest.raises(ArgumentTypeError) as caught:
            lines(text)
        assert str(caught.value) == fault


class SecondsTests:
    @pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("2.5", 2.5)])
    def test_are_a_number(self, text, value) -> None:
        """Parts of a second too."""
        assert seconds(text) == value

    @pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf"])
    def test_refuses_what_nobody_can_wait_for(self, text) -> None:
        """The text is named."""
        with pytest.raises(ArgumentTypeError) as caught:
            seconds(text)
        assert str(caught.value) == f"{text!r} is no number of seconds."


class IntervalTests:
    def test_is_not_too_short(self) -> None:
        """To look without a rest would keep a processor busy, and 0 is no way to say: as the settings have it."""
        assert interval("0.1") == 0.1
        with pytest.raises(ArgumentTypeError) as caught:
            interval("0")
        assert str(caught.value) == "'0' is less than 0.1 seconds."


class JSONObjectTests:
    def test_is_an_object(self) -> None:
        """Of any depth."""
        assert json_object('{"sender": {"id": 1}}') == {"sender": {"id": 1}}

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("[1]", "'[1]' is no JSON object."),
            ("{", "'{' is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
        ],
    )
    def test_refuses_what_is_none(self, text, fault) -> None:
        """Whoever typed it learns where it goes wrong."""
        with pytest.raises(ArgumentTypeError) as caught:
            json_object(text)
        assert str(caught.value) == fault


class MappingTests:
    def test_is_a_pattern_and_a_type(self) -> None:
        """The last sign of equality divides them: a pattern may have one."""
        assert mapping("a=*.csv=payments") == Mapping("a=*.csv", "payments")

    @pytest.mark.parametrize("text", ["", "*.csv", "*.csv=", "=payments"])
    def test_refuses_half_of_one(self, text) -> None:
        """Both must be said."""
        with pytest.raises(ArgumentTypeError) as caught:
            mapping(text)
        assert str(caught.value) == f"{text!r} is not PATTERN=TYPE."
