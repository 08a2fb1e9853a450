"""Files of JSON lines, damaged ones too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_lines(path: Path, values: list[Any]) -> Path:
    """JSON values as lines; bytes are written as they are."""
    lines = [
        v if isinstance(v, bytes) else json.dumps(v, ensure_ascii=False).encode() for v in values
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
