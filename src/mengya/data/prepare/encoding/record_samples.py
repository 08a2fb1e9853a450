"""A record as it was read -> the samples in it, by the kind of data and the form of its source."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mengya.data.ingest.fields import Fields
from mengya.data.ingest.forms import known_form, renamed
from mengya.data.ingest.preferences import to_preferences
from mengya.data.ingest.schema import Sample, to_conversation, to_document
from mengya.data.prepare.encoding.plan import Kind, SourceForm


def to_samples(
    kind: Kind, value: Any, form: SourceForm, unused: Counter[str] | None = None
) -> list[Sample]:
    """The samples of a record.

    Args:
        unused: counts the fields of the record that no sample took.

    Raises:
        SchemaError: it does not have the form.
    """
    value, format = known_record(kind, value, form)
    fields = Fields(value) if isinstance(value, dict) else value
    if kind == "text":
        samples: list[Sample] = [to_document(fields, form.field)]
    elif kind == "conversation":
        samples = [to_conversation(fields, format)]
    else:
        samples = list(to_preferences(fields, format))
    if unused is not None and isinstance(fields, Fields):
        unused.update(fields.unused())
    return samples


def known_record(kind: Kind, value: Any, form: SourceForm) -> tuple[Any, str | None]:
    """The record with the names and turns that the schemas know, and its format where that still holds."""
    value = renamed(value, dict(form.columns))
    known = value if kind == "text" else known_form(value)
    return known, form.format if known is value else None
