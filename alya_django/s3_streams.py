"""Read an object of S3 piece by piece, where django-storages would fetch it whole, by default into memory."""

from __future__ import annotations

import io
import mimetypes
import sys
from gzip import GzipFile
from typing import Any, cast

from django.core.files.base import File
from django.core.files.storage import Storage

BUFFER_BYTES = 262_144


def is_s3(file: File[Any]) -> bool:
    """Tell whether a file that a storage has opened is one of S3."""
    return _is_a("S3File", file)


def is_s3_storage(storage: Storage) -> bool:
    """Tell whether a storage is one on S3."""
    return _is_a("S3Storage", storage)


def signs_links(storage: Any) -> bool:
    """Tell whether a storage's addresses of objects are signed, and so open to those alone who were given one."""
    return bool(storage.querystring_auth and (not storage.custom_domain or storage.cloudfront_signer))


def stream(file: Any, storage: Storage) -> File[Any]:
    """Return the content of an S3File, of which nothing has been fetched yet, as a file to read as bytes."""
    content: Any = io.BufferedReader(_Object(file.obj, _parameters(file.name, storage)), BUFFER_BYTES)
    if _is_compressed(file, storage):
        content = GzipFile(fileobj=content)
    return File(content, file.name)


def _is_a(name: str, value: object) -> bool:
    # Where there is such a thing, its module has been imported.
    module = sys.modules.get("storages.backends.s3")
    return module is not None and isinstance(value, getattr(module, name))


def _parameters(name: str, storage: Any) -> dict[str, Any]:
    """Return what the storage adds to every download, such as the key of an encrypted object."""
    from s3transfer.constants import ALLOWED_DOWNLOAD_ARGS

    given = storage.get_object_parameters(name)
    return {key: value for key, value in given.items() if key in ALLOWED_DOWNLOAD_ARGS}


def _is_compressed(file: Any, storage: Any) -> bool:
    """
    Tell whether the storage compressed the object when it was saved.

    A name such as ``a.csv.gz`` gets the same label without being compressed.
    """
    return bool(storage.gzip and file.obj.content_encoding == "gzip" and not mimetypes.guess_type(file.name)[1])


class _Object(io.RawIOBase):
    """
    The bytes of an object, from where the reader stands.

    A seek asks nothing of the server; the next read opens the object there.
    """

    def __init__(self, source: Any, parameters: dict[str, Any]) -> None:
        self._object = source
        # Of the object that was opened, should another take its name. Kept here: every get makes boto3 forget.
        self._parameters = {**parameters, "IfMatch": source.e_tag}
        self._size: int = source.content_length
        self._position = 0
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        if base + offset != self._position:
            self._drop_body()
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        if self._body is None:
            self._body = self._object.get(Range=f"bytes={self._position}-", **self._parameters)["Body"]
        count = cast(int, self._body.readinto(buffer))
        self._position += count
        return count

    def close(self) -> None:
        self._drop_body()
        super().close()

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
