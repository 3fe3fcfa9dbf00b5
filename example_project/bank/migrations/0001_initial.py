import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [  # noqa: RUF012 (as Django writes it)
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [  # noqa: RUF012 (as Django writes it)
        migrations.CreateModel(
            name="Limit",
            fields=[
                (
                    "kind",
                    models.CharField(
                        choices=[("private", "Private"), ("business", "Business"), ("bank", "Bank")],
                        max_length=8,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("cents", models.PositiveBigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Account",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.CharField(max_length=20, unique=True)),
                ("holder", models.CharField(max_length=100)),
                (
                    "kind",
                    models.CharField(
                        choices=[("private", "Private"), ("business", "Business"), ("bank", "Bank")],
                        default="private",
                        max_length=8,
                    ),
                ),
                ("cents", models.BigIntegerField(default=0)),
            ],
            options={
                "ordering": ("number",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("cents__gte", 0), ("kind", "bank"), _connector="OR"),
                        name="bank_account_covered",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Entry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("cents", models.BigIntegerField()),
                ("reference", models.CharField(max_length=100)),
                ("text", models.CharField(blank=True, default="", max_length=140)),
                ("batch_id", models.UUIDField(blank=True, db_index=True, null=True)),
                ("line", models.PositiveIntegerField(blank=True, null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="entries", to="bank.account"
                    ),
                ),
                (
                    "counterpart",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="bank.account"
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "entries",
                "indexes": [models.Index(fields=["account", "created_at"], name="bank_entry_by_account")],
                "constraints": [
                    models.UniqueConstraint(fields=("reference", "account"), name="bank_entry_once"),
                    models.CheckConstraint(
                        condition=models.Q(("cents", 0), _negated=True), name="bank_entry_not_zero"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Statement",
            fields=[
                ("query_id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("first_day", models.DateField()),
                ("last_day", models.DateField()),
                ("requested_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="bank.account"
                    ),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "ordering": ("-requested_at", "query_id"),
                "indexes": [models.Index(fields=["owner", "-requested_at"], name="bank_statement_by_owner")],
            },
        ),
    ]
