"""Workbooks for the tests, good ones and hostile ones, made by hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
TYPES = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
SHEET = "xl/worksheets/sheet1.xml"


def workbook(rows: str, *, sheet_part: str = SHEET, head: str = "", parts: Mapping[str, bytes] | None = None) -> bytes:
    """Return a workbook of one sheet, given the XML of its rows."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" Type="{RELATIONS}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets><sheet name="Payments" sheetId="1" r:id="r1"/>'
            "</sheets></workbook>",
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" Type="{RELATIONS}/worksheet" '
            f'Target="{sheet_part.removeprefix("xl/")}"/></Relationships>',
        )
        archive.writestr(sheet_part, f'{head}<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>')
        for name, content in (parts or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def table(*rows: tuple[object, ...]) -> str:
    """Return the XML of rows, each value a text or a number."""
    return "".join(
        f'<row r="{number}">{"".join(cell(value, chr(65 + place), number) for place, value in enumerate(row))}</row>'
        for number, row in enumerate(rows, 1)
    )


def shared_strings(*texts: str) -> bytes:
    """Return the part with the texts that cells share, each of which names one by its place."""
    return f'<sst xmlns="{MAIN}">{"".join(f"<si><t>{text}</t></si>" for text in texts)}</sst>'.encode()


def cell(value: object, column: str, row: int) -> str:
    if value is None:
        return f'<c r="{column}{row}" s="1"/>'
    if isinstance(value, bool):
        return f'<c r="{column}{row}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int | float):
        return f'<c r="{column}{row}"><v>{value}</v></c>'
    return f'<c r="{column}{row}" t="inlineStr"><is><t>{value}</t></is></c>'
