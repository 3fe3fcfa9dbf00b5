"""
Batches of many rows and slow queries for Django.

Importing this needs no models; ``from alya_django import batches, slow_queries`` does, once apps are loaded.
"""

from alya_django.answers import (
    BatchDetails,
    BatchResult,
    ErrorMessage,
    OutputFile,
    QueryAnswer,
    Receipt,
    RowOutcome,
    Summary,
)
from alya_django.checkers import BadFile, FaultyLine, Route, checkers, register_file_checker
from alya_django.control_totals import ControlTotals
from alya_django.exceptions import (
    AlreadyDone,
    AlreadyRegistered,
    AlyaError,
    FormatFailed,
    InvalidInput,
    InvalidState,
    NotFound,
    WrongType,
)
from alya_django.output_formats import OutputFormat, OutputTotals
from alya_django.processors import (
    BatchInput,
    BatchProcessor,
    InitBlock,
    Initializer,
    QueryResult,
    RetryLater,
    Row,
    RowFailed,
    RowResult,
    SlowQueryProcessor,
)
from alya_django.registry import (
    register_batch_processor,
    register_initializer,
    register_slow_query_processor,
    registry,
)
from alya_django.status import Status

__version__ = "0.1.0"

__all__ = [
    "AlreadyDone",
    "AlreadyRegistered",
    "AlyaError",
    "BadFile",
    "BatchDetails",
    "BatchInput",
    "BatchProcessor",
    "BatchResult",
    "ControlTotals",
    "ErrorMessage",
    "FaultyLine",
    "FormatFailed",
    "InitBlock",
    "Initializer",
    "InvalidInput",
    "InvalidState",
    "NotFound",
    "OutputFile",
    "OutputFormat",
    "OutputTotals",
    "QueryAnswer",
    "QueryResult",
    "Receipt",
    "RetryLater",
    "Route",
    "Row",
    "RowFailed",
    "RowOutcome",
    "RowResult",
    "SlowQueryProcessor",
    "Status",
    "Summary",
    "WrongType",
    "checkers",
    "register_batch_processor",
    "register_file_checker",
    "register_initializer",
    "register_slow_query_processor",
    "registry",
]
