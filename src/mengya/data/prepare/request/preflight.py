"""Before any work: files none of whose first records fits the kind that is prepared, and why."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.nearest import nearest_forms, suggested_columns
from mengya.data.ingest.reading.documents.kinds import is_document
from mengya.data.ingest.reading.files import file_kind
from mengya.data.ingest.reading.read import TextSplit, parse_chunk, read_chunks
from mengya.data.ingest.reading.records import BadLine
from mengya.data.prepare.encoding.plan import Kind, SourceForm
from mengya.data.prepare.encoding.record_samples import to_samples
from mengya.errors import UserError


def unknown_form(
    path: Path, encoding: str, split_text: TextSplit, kind: Kind, form: SourceForm
) -> str | None:
    """Why no record in the first chunk of a file fits; None when one does, or when there are none."""
    if kind == "text" and ((found := file_kind(path)) == "text" or is_document(found)):
        return None
    first = None
    for chunk in islice(read_chunks(path, encoding, split_text), 1):
        for parsed in parse_chunk(chunk):
            if isinstance(parsed, BadLine):
                first = first or f"line {parsed.line}: {parsed.reason}"
                continue
            try:
                to_samples(kind, parsed.value, form)
            except (SchemaError, RecursionError) as error:
                if first is None:
                    columns = suggested_columns(kind, parsed.value)
                    typed = f"; write sources='{{path: {path}, {columns}}}'"
                    near = typed if columns else nearest_forms(kind, parsed.value)
                    first = f"line {parsed.line}: {' '.join(str(error).split())}{near}"
            else:
                return None
    return first


def refuse_unknown(reasons: Iterable[tuple[Path, str]], files: int) -> None:
    """Raise when there are any.

    Raises:
        UserError: with the first ten of the files, and what to type.
    """
    found = list(reasons)
    if not found:
        return
    shown = "\n".join(f"  {path}: {reason}" for path, reason in found[:10])
    more = f"\n  and {len(found) - 10} more" if len(found) > 10 else ""
    leave = ", or leave these files out with skip_unknown_files=true" if len(found) < files else ""
    raise UserError(
        f"no record at the beginning of {len(found)} of {files} files fits:\n{shown}{more}\n"
        f"choose another kind, name the format, field or columns of the source{leave}"
    )
