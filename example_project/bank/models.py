"""Accounts, the ledger between them, and who asked for which statement. Money is a whole number of cents."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class Account(models.Model):
    """An account and its balance, which is the sum of its entries. Only the bank's own may be below zero."""

    class Kind(models.TextChoices):
        PRIVATE = "private"
        BUSINESS = "business"
        BANK = "bank"

    number = models.CharField(max_length=20, unique=True)
    holder = models.CharField(max_length=100)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.PRIVATE)
    cents = models.BigIntegerField(default=0)

    class Meta:
        ordering = ("number",)
        constraints = (
            models.CheckConstraint(
                condition=models.Q(cents__gte=0) | models.Q(kind="bank"), name="bank_account_covered"
            ),
        )

    def __str__(self) -> str:
        return f"{self.number} {self.holder}"


class Limit(models.Model):
    """The most that accounts of a kind may transfer at once; a kind without a limit may transfer any amount."""

    kind = models.CharField(max_length=8, choices=Account.Kind.choices, primary_key=True)
    cents = models.PositiveBigIntegerField()

    def __str__(self) -> str:
        return f"{self.kind}: {self.cents}"


class Entry(models.Model):
    """
    One side of a transfer: what an account gained, or lost where ``cents`` is below zero.

    ``reference`` names the transfer. An account has it once: the guard against moving money twice.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries")
    counterpart = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    cents = models.BigIntegerField()
    reference = models.CharField(max_length=100)
    text = models.CharField(max_length=140, blank=True, default="")
    batch_id = models.UUIDField(null=True, blank=True, db_index=True)
    line = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "entries"
        indexes = (models.Index(fields=("account", "created_at"), name="bank_entry_by_account"),)
        constraints = (
            models.UniqueConstraint(fields=("reference", "account"), name="bank_entry_once"),
            models.CheckConstraint(condition=~models.Q(cents=0), name="bank_entry_not_zero"),
        )

    def __str__(self) -> str:
        return f"{self.reference}: {self.cents}"


class Statement(models.Model):
    """A statement that somebody asked for. What it says is the answer of the slow query of the same id."""

    query_id = models.UUIDField(primary_key=True, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    first_day = models.DateField()
    last_day = models.DateField()
    requested_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ("-requested_at", "query_id")
        indexes = (models.Index(fields=("owner", "-requested_at"), name="bank_statement_by_owner"),)

    def __str__(self) -> str:
        return f"{self.account_id}, {self.first_day} to {self.last_day}"
