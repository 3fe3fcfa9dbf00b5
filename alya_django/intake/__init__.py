"""Files in: check them, keep them, make batches of their lines. Importing this needs Django's apps to be loaded."""

from alya_django.checkers import BadFile, FaultyLine, Route, checkers, register_file_checker
from alya_django.intake.csv_reader import read_csv
from alya_django.intake.receive import process
from alya_django.intake.returns import return_file
from alya_django.intake.xlsx_reader import read_xlsx

__all__ = [
    "BadFile",
    "FaultyLine",
    "Route",
    "checkers",
    "process",
    "read_csv",
    "read_xlsx",
    "register_file_checker",
    "return_file",
]
