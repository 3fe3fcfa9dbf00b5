from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from alya_django import BatchDetails, BatchResult, ErrorMessage, QueryAnswer, RowOutcome, Status, Summary
from alya_django.status import Kind

pytestmark = pytest.mark.sqlite

AT = datetime(2013, 1, 1, tzinfo=UTC)


def summary(**values):
    counts = {"nrows": 3, "nsuccess": 0, "nfailed": 0, "naborted": 0}
    return Summary(**{"status": Status.QUEUED, "kind": Kind.BATCH, **counts, **values})


class ErrorMessageTests:
    def test_needs_no_more_than_its_code(self):
        """Field, texts and number are optional; the number is given by its name."""
        message = ErrorMessage("insufficient_funds")
        assert (message.errcode, message.field, message.vals, message.msgid) == ("insufficient_funds", "", (), 0)

    def test_stores_only_what_says_something(self):
        """The stored form leaves an empty field and empty texts out."""
        assert ErrorMessage("odd").as_json() == {"msgid": 0, "errcode": "odd"}
        assert ErrorMessage("odd", "line", ("3", "5"), msgid=17).as_json() == {
            "msgid": 17,
            "errcode": "odd",
            "field": "line",
            "vals": ["3", "5"],
        }

    @pytest.mark.parametrize(
        "message", [ErrorMessage("odd"), ErrorMessage("odd", "line"), ErrorMessage("odd", vals=("3",), msgid=17)]
    )
    def test_is_read_back_as_it_was_stored(self, message):
        """Storing and reading change nothing."""
        assert ErrorMessage.from_json(message.as_json()) == message

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            ({"errcode": ""}, "errcode, field and vals are strings, errcode is not empty."),
            ({"errcode": 5}, "errcode, field and vals are strings, errcode is not empty."),
            ({"errcode": "odd", "field": None}, "errcode, field and vals are strings, errcode is not empty."),
            ({"errcode": "odd", "vals": "abc"}, "errcode, field and vals are strings, errcode is not empty."),
            ({"errcode": "odd", "vals": (3,)}, "errcode, field and vals are strings, errcode is not empty."),
            ({"errcode": "odd", "msgid": "3"}, "msgid is a number."),
        ],
        ids=str,
    )
    def test_is_made_of_texts(self, arguments, fault):
        """Whoever gives a part of another type learns it where the message is made."""
        with pytest.raises(TypeError) as caught:
            ErrorMessage(**arguments)
        assert str(caught.value).startswith("ErrorMessage(errcode=")
        assert str(caught.value).endswith(f"): {fault}")


class TryLaterTests:
    @pytest.mark.rule("DON-1", "SQD-1")
    @pytest.mark.parametrize(
        ("status", "try_later"),
        [
            (Status.WAIT, True),
            (Status.QUEUED, True),
            (Status.IN_PROGRESS, True),
            (Status.SUCCESS, False),
            (Status.FAILED, False),
            (Status.ABORTED, False),
        ],
    )
    def test_is_true_until_the_state_is_final(self, status, try_later):
        """A caller asks again exactly as long as the state may change."""
        assert summary(status=status).try_later is try_later
        assert QueryAnswer(status=status).try_later is try_later


class ImmutabilityTests:
    @pytest.mark.parametrize(
        "answer",
        [
            ErrorMessage("odd"),
            summary(),
            QueryAnswer(status=Status.QUEUED),
            BatchResult(status=Status.QUEUED, kind=Kind.BATCH, nrows=1, nsuccess=0, nfailed=0, naborted=0),
            RowOutcome(
                line=1,
                status=Status.QUEUED,
                result=None,
                messages=(),
                attempts=0,
                done_by="",
                requested_at=AT,
                claimed_at=None,
                done_at=None,
            ),
            BatchDetails(
                id=uuid4(),
                app="bank",
                op="echo",
                kind=Kind.BATCH,
                context={},
                input_file="",
                requested_by="",
                status=Status.QUEUED,
                requested_at=AT,
                started_at=None,
                done_at=None,
                nrows=1,
                nsuccess=0,
                nfailed=0,
                naborted=0,
                output_files={},
                parent=None,
            ),
        ],
        ids=lambda answer: type(answer).__name__,
    )
    def test_answers_are_frozen_and_slotted(self, answer):
        """What a verb answers cannot be changed, and has no room for more."""
        name = dataclasses.fields(answer)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(answer, name, None)
        assert not hasattr(answer, "__dict__")

    def test_batch_result_is_a_summary_with_rows(self):
        """Whoever takes a summary takes a result too."""
        result = BatchResult(status=Status.QUEUED, kind=Kind.BATCH, nrows=1, nsuccess=0, nfailed=0, naborted=0)
        assert isinstance(result, Summary)
        assert result.rows == ()
        assert result.try_later
