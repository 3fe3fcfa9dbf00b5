from __future__ import annotations

import gzip
import io

import pytest

from alya_django import BadFile, BatchInput, FaultyLine, Route
from example_project.bank.checkers import SCREENING, TRANSFERS, check_partner, check_payments
from example_project.flights.checkers import check_flights
from example_project.flights.management.commands.demo import FILE

PAYMENTS = "debtor,creditor,amount,text\n"
FLIGHTS = "dep_time,arr_delay,carrier,flight,origin,dest\n"


def payments(content: str) -> list[BatchInput | FaultyLine]:
    """Return what the bank makes of a file."""
    return list(check_payments(io.BytesIO(content.encode()), "TXN1.csv", {}))


def partner(content: str) -> list[Route | BatchInput | FaultyLine]:
    """Return what the bank makes of a partner's file."""
    return list(check_partner(io.BytesIO(content.encode()), "acme.csv", {}))


def flights(content: str) -> list[BatchInput | FaultyLine]:
    """Return what becomes of a file of flights."""
    return list(check_flights(io.BytesIO(content.encode()), "flights.csv", {}))


class PaymentsTests:
    def test_makes_a_transfer_of_each_line(self) -> None:
        """With the number that it has in the file, and the input that the processor wants."""
        assert payments(f"{PAYMENTS}1001,1002,12.34,Rent\n\n1003,1001,5,\n") == [
            BatchInput(2, {"debtor": "1001", "creditor": "1002", "amount": "12.34", "text": "Rent"}),
            BatchInput(4, {"debtor": "1003", "creditor": "1001", "amount": "5", "text": ""}),
        ]

    def test_finds_its_columns_wherever_they_are(self) -> None:
        """The order is the sender's, and columns of which the bank knows nothing are passed over."""
        assert payments("ours,text,amount,creditor,debtor\n7,Rent,1.00,1002,1001\n") == [
            BatchInput(2, {"debtor": "1001", "creditor": "1002", "amount": "1.00", "text": "Rent"})
        ]

    @pytest.mark.parametrize(
        "amount", ["", "0", "0.00", "12,34", "12.3", "-1.00", "1e3", " 1", "NaN", "\u0661", "1000000000000000"]
    )
    def test_names_an_amount_that_is_none(self, amount: str) -> None:
        """Only whole numbers above zero, and those with two digits after the point, are amounts."""
        (fault,) = payments(f'{PAYMENTS}1001,1002,"{amount}",Rent\n')
        assert fault == FaultyLine(2, f"{amount!r} is no amount such as 12.34")

    @pytest.mark.parametrize("side", ["debtor", "creditor"])
    def test_names_the_account_that_is_missing(self, side: str) -> None:
        """Whether there is such an account is for the processor to say: a checker asks no ledger."""
        order = {"debtor": "1001", "creditor": "9999", side: ""}
        (fault,) = payments(f"{PAYMENTS}{order['debtor']},{order['creditor']},1.00,Rent\n")
        assert fault == FaultyLine(2, f"{side} is missing")
        assert isinstance(payments(f"{PAYMENTS}1001,9999,1.00,Rent\n")[0], BatchInput)

    def test_passes_on_what_the_reader_finds(self) -> None:
        """A line with too few values is faulty, and the others go on."""
        assert payments(f"{PAYMENTS}1001,1002\n1001,1002,1.00,Rent\n") == [
            FaultyLine(2, "has 2 values, not 4"),
            BatchInput(3, {"debtor": "1001", "creditor": "1002", "amount": "1.00", "text": "Rent"}),
        ]

    def test_refuses_a_file_that_lacks_a_column(self) -> None:
        """Nothing of it can be a transfer."""
        with pytest.raises(BadFile) as caught:
            payments("debtor,creditor,text\n1001,1002,Rent\n")
        assert caught.value.reason == "The header lacks 'amount'."


class PartnerTests:
    def test_sends_payments_and_names_where_they_belong(self) -> None:
        """The header tells which of both a file is; what is wrong with a line is said as of payments."""
        assert partner("debtor,creditor,amount\n1001,1002\n1001,1002,5\n1001,1002,x\n") == [
            FaultyLine(2, "has 2 values, not 3"),
            TRANSFERS,
            BatchInput(3, {"debtor": "1001", "creditor": "1002", "amount": "5"}),
            FaultyLine(4, "'x' is no amount such as 12.34"),
        ]
        assert partner('id,name\n7,Ann\n8,""\n') == [
            SCREENING,
            BatchInput(2, {"id": "7", "name": "Ann"}),
            FaultyLine(3, "name is missing"),
        ]

    def test_takes_a_file_of_neither_for_payments(self) -> None:
        """It lacks what payments need, which every line says."""
        assert partner("day\nmonday\n") == [TRANSFERS, FaultyLine(2, "debtor is missing")]


class FlightsTests:
    def test_reads_the_flights_of_january_2013(self) -> None:
        """The columns that the processor wants, of all 27 004 flights; real lines have holes, and none is faulty."""
        with gzip.open(FILE) as file:
            found = list(check_flights(file, FILE.name, {}))
        assert [line.line for line in found] == list(range(2, 27_006))
        assert all(isinstance(line, BatchInput) for line in found)
        assert found[0].input == {
            "dep_time": "517",
            "arr_delay": "11",
            "carrier": "UA",
            "flight": "1545",
            "origin": "EWR",
            "dest": "IAH",
        }

    def test_takes_flights_that_did_not_arrive(self) -> None:
        """That a flight was cancelled or diverted is no fault of the file."""
        found = flights(f"{FLIGHTS}NA,NA,UA,1545,EWR,IAH\n517,NA,UA,1545,EWR,IAH\n517,-3,UA,1545,EWR,IAH\n")
        assert [(line.input["dep_time"], line.input["arr_delay"]) for line in found] == [
            ("NA", "NA"),
            ("517", "NA"),
            ("517", "-3"),
        ]

    @pytest.mark.parametrize("missing", ["", "NA"])
    @pytest.mark.parametrize("column", ["carrier", "flight", "origin", "dest"])
    def test_names_what_is_missing(self, column: str, missing: str) -> None:
        """Without it nobody knows which flight it was."""
        flight = {"carrier": "UA", "flight": "1545", "origin": "EWR", "dest": "IAH", column: missing}
        assert flights(f"{FLIGHTS}517,11,{','.join(flight.values())}\n") == [FaultyLine(2, f"{column} is missing")]

    @pytest.mark.parametrize("delay", ["", "late", "1.5", "--3", "-"])
    def test_names_a_delay_that_is_no_number(self, delay: str) -> None:
        """The processor would fail over it."""
        assert flights(f"{FLIGHTS}517,{delay},UA,1545,EWR,IAH\n") == [FaultyLine(2, f"{delay!r} is no delay")]

    def test_refuses_a_file_that_lacks_a_column(self) -> None:
        """It is a file of something else."""
        with pytest.raises(BadFile) as caught:
            flights("dep_time,carrier,flight,origin\n517,UA,1545,EWR\n")
        assert caught.value.reason == "The header lacks 'arr_delay', 'dest'."
