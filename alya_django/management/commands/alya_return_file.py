"""``manage.py alya_return_file``: write the failed rows of a batch to a file that goes back to who sent them."""

from __future__ import annotations

import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, BinaryIO

from django.core.files.base import File

from alya_django.exceptions import AlyaError, InvalidInput
from alya_django.intake import return_file
from alya_django.intake.objects import plain_name
from alya_django.management.batch_commands import BatchCommand, find


class Command(BatchCommand):
    help = (
        "Writes the failed rows of a finished batch to a CSV file, to be corrected and received with "
        "alya_submit --parent, and prints the file's path."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--output",
            default="",
            metavar="PATH",
            help="The file, or a directory for it; by default the current one, with the name of what was received.",
        )
        parser.add_argument("--overwrite", action="store_true", help="Replace the file if it is there.")

    def act(self, options: dict[str, Any]) -> None:
        batch_id = find(options["id"]).id
        with return_file(batch_id) as file:
            path = _path(options["output"], plain_name(f"{file.name}"))
            with _open(path, overwrite=options["overwrite"]) as target:
                size = _copy(file, target)
        self.tell(f"{path}", {"batch_id": str(batch_id), "path": f"{path}", "size": size})


def _path(output: str, name: str) -> Path:
    path = Path(output)
    if path.is_dir():
        return path / name
    if output.endswith("/"):
        # Path drops the slash, and a file would take the place of the directory that was meant.
        raise InvalidInput(f"there is no directory {path}.", field="output")
    return path


def _open(path: Path, *, overwrite: bool) -> BinaryIO:
    try:
        return path.open("wb" if overwrite else "xb")
    except FileExistsError:
        raise AlyaError(f"{path} is there already; --overwrite replaces it.") from None
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}.", field="output") from error


def _copy(file: File[Any], target: BinaryIO) -> int:
    """Copy what was written and return its size."""
    shutil.copyfileobj(file, target)
    return target.tell()
