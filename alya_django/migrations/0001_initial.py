import django.db.models.deletion
import django.db.models.expressions
import django.db.models.fields.json
import django.db.models.functions.datetime
import django.db.models.functions.text
import uuid
from django.db import migrations, models

from alya_django.db import database


def tune(apps, schema_editor):
    database(schema_editor.connection.alias).tune()


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Worker',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=255, unique=True, verbose_name='name')),
                ('host', models.CharField(max_length=255, verbose_name='host')),
                ('pid', models.IntegerField(verbose_name='pid')),
                ('version', models.CharField(max_length=40, verbose_name='version')),
                ('ops', models.JSONField(default=list, verbose_name='ops')),
                ('started', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='started')),
                ('heartbeat', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='heartbeat')),
                ('rate', models.FloatField(db_default=0.0, default=0.0, verbose_name='rows per second')),
                ('is_stopping', models.BooleanField(db_default=False, default=False, verbose_name='stopping')),
            ],
            options={
                'verbose_name': 'worker',
                'verbose_name_plural': 'workers',
                'db_table': 'alya_workers',
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='Batch',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('app', models.CharField(max_length=255, verbose_name='app')),
                ('op', models.CharField(max_length=255, verbose_name='op')),
                ('kind', models.CharField(choices=[('B', 'batch'), ('Q', 'slow query')], max_length=1, verbose_name='kind')),
                ('context', models.JSONField(default=dict, verbose_name='context')),
                ('input_file', models.CharField(blank=True, default='', max_length=255, verbose_name='input file')),
                ('requested_by', models.CharField(blank=True, default='', max_length=255, verbose_name='requested by')),
                ('unique_key', models.CharField(blank=True, max_length=255, null=True, verbose_name='unique key')),
                ('weight', models.FloatField(db_default=1.0, default=1.0, verbose_name='weight')),
                ('status', models.CharField(choices=[('wait', 'wait'), ('queued', 'queued'), ('inprog', 'in progress'), ('success', 'success'), ('failed', 'failed'), ('aborted', 'aborted')], max_length=7, verbose_name='status')),
                ('held_at', models.DateTimeField(blank=True, null=True, verbose_name='held at')),
                ('hold_reason', models.TextField(blank=True, db_default='', default='', verbose_name='hold reason')),
                ('nforgiven', models.PositiveIntegerField(db_default=0, default=0, verbose_name='forgiven')),
                ('requested_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='requested at')),
                ('started_at', models.DateTimeField(blank=True, null=True, verbose_name='started at')),
                ('done_at', models.DateTimeField(blank=True, null=True, verbose_name='done at')),
                ('nrows', models.PositiveIntegerField(default=0, verbose_name='rows')),
                ('nsuccess', models.PositiveIntegerField(blank=True, null=True, verbose_name='success')),
                ('nfailed', models.PositiveIntegerField(blank=True, null=True, verbose_name='failed')),
                ('naborted', models.PositiveIntegerField(blank=True, null=True, verbose_name='aborted')),
                ('output_files', models.JSONField(default=dict, verbose_name='output files')),
                ('control_totals', models.JSONField(blank=True, null=True, verbose_name='control totals')),
                ('totals_mismatch', models.TextField(blank=True, db_default='', default='', verbose_name='mismatch of totals')),
                ('turn', models.FloatField(db_default=0.0, default=0.0, verbose_name='turn')),
                ('drained', models.BooleanField(db_default=False, default=False, verbose_name='drained')),
                ('finisher', models.UUIDField(blank=True, null=True, verbose_name='finisher')),
                ('finisher_until', models.DateTimeField(blank=True, null=True, verbose_name='finisher until')),
                ('marked_done_at', models.DateTimeField(blank=True, null=True, verbose_name='marked done at')),
                ('mark_done_error', models.TextField(blank=True, db_default='', default='', verbose_name='error of mark_done')),
                ('pruned_at', models.DateTimeField(blank=True, null=True, verbose_name='pruned at')),
                ('parent', models.ForeignKey(blank=True, db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='children', to='alya_django.batch')),
                ('root', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='descendants', to='alya_django.batch')),
            ],
            options={
                'verbose_name': 'batch',
                'verbose_name_plural': 'batches',
                'db_table': 'alya_batches',
                'permissions': (('submit_batch', 'Can submit batches'), ('release_batch', 'Can release batches'), ('abort_batch', 'Can abort batches'), ('retry_batch', 'Can retry failed rows'), ('download_output', 'Can download output files'), ('view_input', 'Can view the input of rows')),
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='BatchFile',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('object_id', models.CharField(max_length=1024, unique=True, verbose_name='object')),
                ('error_object_id', models.CharField(blank=True, default='', max_length=1024, verbose_name='error file')),
                ('file_name', models.CharField(max_length=255, verbose_name='file name')),
                ('file_type', models.CharField(max_length=255, verbose_name='file type')),
                ('content_type', models.CharField(max_length=255, verbose_name='content type')),
                ('size', models.BigIntegerField(default=0, verbose_name='size')),
                ('checksum', models.CharField(blank=True, default='', max_length=64, verbose_name='checksum')),
                ('unique_key', models.CharField(blank=True, max_length=255, null=True, unique=True, verbose_name='unique key')),
                ('is_accepted', models.BooleanField(blank=True, null=True, verbose_name='accepted')),
                ('is_repeat', models.BooleanField(default=False, verbose_name='repeat')),
                ('nfaulty', models.PositiveIntegerField(default=0, verbose_name='faulty lines')),
                ('error_message', models.TextField(blank=True, default='', verbose_name='error')),
                ('metadata', models.JSONField(default=dict, verbose_name='metadata')),
                ('received_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='received at')),
                ('processed_at', models.DateTimeField(blank=True, null=True, verbose_name='processed at')),
                ('batch', models.ForeignKey(blank=True, db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='files', to='alya_django.batch')),
            ],
            options={
                'verbose_name': 'file',
                'verbose_name_plural': 'files',
                'db_table': 'alya_batch_files',
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='BatchProgress',
            fields=[
                ('pk', models.CompositePrimaryKey('batch_id', 'slot', blank=True, editable=False, primary_key=True, serialize=False)),
                ('slot', models.SmallIntegerField()),
                ('nsuccess', models.PositiveIntegerField(default=0)),
                ('nfailed', models.PositiveIntegerField(default=0)),
                ('nput_off', models.IntegerField(db_default=0, default=0)),
                ('moved_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('batch', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='progress', to='alya_django.batch')),
            ],
            options={
                'db_table': 'alya_batch_progress',
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='BatchErrors',
            fields=[
                ('batch', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='errors', serialize=False, to='alya_django.batch')),
                ('counts', models.JSONField(default=dict)),
            ],
            options={
                'db_table': 'alya_batch_errors',
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='BatchRow',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('line', models.PositiveIntegerField(verbose_name='line')),
                ('input', models.JSONField(verbose_name='input')),
                ('status', models.CharField(choices=[('wait', 'wait'), ('queued', 'queued'), ('inprog', 'in progress'), ('success', 'success'), ('failed', 'failed'), ('aborted', 'aborted')], db_default='queued', default='queued', max_length=7, verbose_name='status')),
                ('result', models.JSONField(blank=True, null=True, verbose_name='result')),
                ('messages', models.JSONField(blank=True, null=True, verbose_name='messages')),
                ('output_lines', models.JSONField(blank=True, null=True, verbose_name='output lines')),
                ('requested_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='requested at')),
                ('claimed_at', models.DateTimeField(blank=True, null=True, verbose_name='claimed at')),
                ('done_at', models.DateTimeField(blank=True, null=True, verbose_name='done at')),
                ('retry_at', models.DateTimeField(blank=True, null=True, verbose_name='retry at')),
                ('done_by', models.CharField(blank=True, max_length=255, null=True, verbose_name='done by')),
                ('claim', models.BigIntegerField(blank=True, null=True, verbose_name='claim')),
                ('attempts', models.IntegerField(db_default=0, default=0, verbose_name='attempts')),
                ('lost', models.IntegerField(db_default=0, default=0, verbose_name='lost')),
                ('retries', models.IntegerField(db_default=0, default=0, verbose_name='retries')),
                ('batch', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='rows', to='alya_django.batch')),
            ],
            options={
                'verbose_name': 'row',
                'verbose_name_plural': 'rows',
                'db_table': 'alya_batchrows',
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='BusinessKey',
            fields=[
                ('digest', models.UUIDField(primary_key=True, serialize=False)),
                ('line', models.PositiveIntegerField()),
                ('received_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('batch', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='business_keys', to='alya_django.batch')),
            ],
            options={
                'db_table': 'alya_business_keys',
                'default_permissions': (),
            },
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('drained', False), ('held_at__isnull', True), ('kind', 'B'), ('status__in', ['inprog', 'queued'])), fields=['turn', 'requested_at', 'id'], name='alya_batch_by_turn'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('drained', False), ('held_at__isnull', True), ('kind', 'B'), ('status__in', ['inprog', 'queued'])), fields=['requested_at', 'id'], name='alya_batch_by_age'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('status__in', ['inprog', 'queued'])), fields=['status', 'kind', 'app', 'op'], name='alya_batch_pending'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(fields=['app', 'op', '-requested_at'], name='alya_batch_by_op'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(fields=['-requested_at', 'id'], name='alya_batch_latest'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('kind', 'B')), fields=['-requested_at', 'id'], name='alya_batch_latest_of_many'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('nfailed__gt', 0)), fields=['-requested_at', 'id'], name='alya_batch_with_failures'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(fields=['status', '-requested_at', 'id'], name='alya_batch_by_status'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('input_file__gt', '')), fields=['input_file'], name='alya_batch_by_file', opclasses=('varchar_pattern_ops',)),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('marked_done_at__isnull', True), ('status__in', ['aborted', 'failed', 'success'])), fields=['done_at'], name='alya_batch_not_marked_done'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('root__isnull', False)), fields=['root'], name='alya_batch_by_root'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('pruned_at__isnull', False)), fields=['id'], name='alya_batch_pruned'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.UniqueConstraint(fields=('app', 'op', 'unique_key'), name='alya_batch_unique_key'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['B', 'Q'])), name='alya_batch_kind'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['wait', 'queued', 'inprog', 'success', 'failed', 'aborted'])), name='alya_batch_status'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(('app', django.db.models.functions.text.Lower('app')), ('op', django.db.models.functions.text.Lower('op'))), name='alya_batch_lower_case'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(('weight__gt', 0), ('weight__lte', 1000)), name='alya_batch_weight'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('done_at__isnull', False), ('naborted__isnull', False), ('nfailed__isnull', False), ('nrows', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('nsuccess'), '+', models.F('nfailed')), '+', models.F('naborted'))), ('nsuccess__isnull', False), ('status__in', ['aborted', 'failed', 'success'])), models.Q(models.Q(('status__in', ['aborted', 'failed', 'success']), _negated=True), ('done_at__isnull', True), ('naborted__isnull', True), ('nfailed__isnull', True), ('nsuccess__isnull', True)), _connector='OR'), name='alya_batch_final'),
        ),
        migrations.AddIndex(
            model_name='batchfile',
            index=models.Index(condition=models.Q(('batch__isnull', True)), fields=['id'], name='alya_file_no_batch'),
        ),
        migrations.AddIndex(
            model_name='batchfile',
            index=models.Index(fields=['file_type', '-id'], name='alya_file_by_type'),
        ),
        migrations.AddConstraint(
            model_name='batchfile',
            constraint=models.UniqueConstraint(condition=models.Q(('is_accepted', True), ('is_repeat', False)), fields=('file_type', 'checksum'), name='alya_file_once'),
        ),
        migrations.AddConstraint(
            model_name='batchfile',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('batch__isnull', False), ('is_accepted', True)), models.Q(models.Q(('is_accepted__isnull', True), ('is_accepted', False), _connector='OR'), ('batch__isnull', True)), _connector='OR'), name='alya_file_decided'),
        ),
        migrations.AddIndex(
            model_name='batchrow',
            index=models.Index(condition=models.Q(('retry_at__isnull', True), ('status', 'queued')), fields=['batch', 'line'], name='alya_row_queued'),
        ),
        migrations.AddIndex(
            model_name='batchrow',
            index=models.Index(condition=models.Q(('retry_at__isnull', False), ('status', 'queued')), fields=['batch', 'retry_at'], name='alya_row_requeued'),
        ),
        migrations.AddIndex(
            model_name='batchrow',
            index=models.Index(condition=models.Q(('claim__isnull', False)), fields=['claim'], name='alya_row_claimed'),
        ),
        migrations.AddIndex(
            model_name='batchrow',
            index=models.Index(condition=models.Q(('line', 0), ('retry_at__isnull', True), ('status', 'queued')), fields=['id'], name='alya_row_slow_query'),
        ),
        migrations.AddIndex(
            model_name='batchrow',
            index=models.Index(condition=models.Q(('line', 0), ('retry_at__isnull', False), ('status', 'queued')), fields=['retry_at'], name='alya_row_slow_requeued'),
        ),
        migrations.AddIndex(
            model_name='batchrow',
            index=models.Index(condition=models.Q(('status', 'failed')), fields=['batch', 'line'], name='alya_row_failed'),
        ),
        migrations.AddIndex(
            model_name='batchrow',
            index=models.Index(models.F('batch'), django.db.models.functions.text.Left(django.db.models.fields.json.KeyTextTransform('errcode', django.db.models.fields.json.KeyTransform('0', 'messages')), 255), models.F('line'), condition=models.Q(('status', 'failed')), name='alya_row_errcode'),
        ),
        migrations.AddConstraint(
            model_name='batchrow',
            constraint=models.UniqueConstraint(fields=('batch', 'line'), name='alya_row_line'),
        ),
        migrations.AddConstraint(
            model_name='batchrow',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['queued', 'inprog', 'success', 'failed', 'aborted'])), name='alya_row_status'),
        ),
        migrations.AddConstraint(
            model_name='batchrow',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('claim__isnull', False), ('status', 'inprog')), models.Q(models.Q(('status', 'inprog'), _negated=True), ('claim__isnull', True)), _connector='OR'), name='alya_row_claim'),
        ),
        migrations.RunPython(tune, migrations.RunPython.noop, elidable=False),
    ]
