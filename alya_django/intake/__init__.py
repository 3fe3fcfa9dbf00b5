"""Files in: check them, keep them, make batches of their lines. Importing this needs Django's apps to be loaded."""

from alya_django.checkers import BadFile, FaultyLine, checkers, register_file_checker
from alya_django.intake.csv_reader import read_csv
from alya_django.intake.receive import process

__all__ = ["BadFile", "FaultyLine", "checkers", "process", "read_csv", "register_file_checker"]
