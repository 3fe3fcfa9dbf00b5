"""Money moves here and nowhere else: always between two accounts, and once for each reference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.db.models import Count, F, Sum
from django.db.models.functions import Coalesce

from alya_django import ErrorMessage, RowFailed
from example_project.bank.models import Account, Entry
from example_project.bank.money import to_text

BAD_AMOUNT = ErrorMessage("bad_amount", field="amount", msgid=101)
INSUFFICIENT_FUNDS = ErrorMessage("insufficient_funds", field="amount", msgid=102)
SAME_ACCOUNT = ErrorMessage("same_account", field="creditor", msgid=104)
NO_LIMITS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What is to be moved, and from where in which batch the order comes."""

    debtor: object
    creditor: object
    cents: int
    reference: str
    text: str = ""
    batch_id: UUID | None = None
    line: int | None = None


def post(transfer: Transfer, *, limits: Mapping[str, int] = NO_LIMITS) -> None:
    """
    Move the money and write both entries, or nothing; a reference that was posted before changes nothing.

    Args:
        limits: The most cents at once, by kind of account.

    Raises:
        RowFailed: no_such_account, same_account, bad_amount or insufficient_funds.
    """
    with transaction.atomic():
        debtor, creditor = _locked(transfer)
        # Asked under the locks: who posts the same reference at the same time has to wait for them.
        if Entry.objects.filter(reference=transfer.reference).exists():
            return
        _check(transfer, debtor, limits)
        for account, counterpart, cents in (
            (debtor, creditor, -transfer.cents),
            (creditor, debtor, transfer.cents),
        ):
            Account.objects.filter(pk=account.pk).update(cents=F("cents") + cents)
            _write(transfer, account, counterpart, cents)


def discrepancies() -> list[str]:
    """Return what does not add up, one sentence each; nothing if the books balance to the cent."""
    return [*_total(), *_one_sided(), *_balances()]


def _locked(transfer: Transfer) -> tuple[Account, Account]:
    """Return both accounts, locked in the order of their ids: two transfers cannot wait for each other."""
    numbers = {"debtor": transfer.debtor, "creditor": transfer.creditor}
    known = [number for number in numbers.values() if isinstance(number, str)]
    accounts = {
        account.number: account
        for account in Account.objects.select_for_update(no_key=True).filter(number__in=known).order_by("pk")
    }
    unknown = [field for field, number in numbers.items() if not (number in known and number in accounts)]
    if unknown:
        raise RowFailed(*(ErrorMessage("no_such_account", field=field, msgid=103) for field in unknown))
    if transfer.debtor == transfer.creditor:
        raise RowFailed(SAME_ACCOUNT)
    return accounts[transfer.debtor], accounts[transfer.creditor]


def _check(transfer: Transfer, debtor: Account, limits: Mapping[str, int]) -> None:
    limit = limits.get(debtor.kind, transfer.cents)
    if transfer.cents < 1:
        raise RowFailed(BAD_AMOUNT)
    if transfer.cents > limit:
        raise RowFailed(ErrorMessage("bad_amount", field="amount", vals=(to_text(limit),), msgid=101))
    if debtor.kind != Account.Kind.BANK and debtor.cents < transfer.cents:
        raise RowFailed(INSUFFICIENT_FUNDS)


def _write(transfer: Transfer, account: Account, counterpart: Account, cents: int) -> None:
    Entry.objects.create(
        account=account,
        counterpart=counterpart,
        cents=cents,
        reference=transfer.reference,
        text=transfer.text,
        batch_id=transfer.batch_id,
        line=transfer.line,
    )


def _total() -> Iterator[str]:
    """No money is made: what an account has, another lacks, if only the bank's own."""
    total = Account.objects.aggregate(cents=Coalesce(Sum("cents"), 0))["cents"]
    if total:
        yield f"All accounts together have {to_text(total)}, not 0.00."


def _one_sided() -> Iterator[str]:
    sides = Entry.objects.values("reference").annotate(n=Count("pk"), total=Sum("cents")).order_by("reference")
    for side in sides.exclude(n=2, total=0):
        yield f"{side['reference']} has {side['n']} entries, which add up to {to_text(side['total'])}."


def _balances() -> Iterator[str]:
    accounts = Account.objects.annotate(booked=Coalesce(Sum("entries__cents"), 0))
    for account in accounts.exclude(booked=F("cents")):
        yield f"{account.number} has {to_text(account.cents)}, its entries add up to {to_text(account.booked)}."
