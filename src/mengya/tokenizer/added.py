"""Which tokens `mengya extend` added, in a file next to the model, so that training can find their rows.

A checkpoint trained in full from such a folder, or merged with an adapter, keeps the file; it then says
which of the rows no training has reached.

    {"format": 1, "ids": [6400, 6401], "untrained": [6400, 6401]}
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mengya.errors import UserError
from mengya.version import check_format

FILE = "tokens_of_extend.json"
FORMAT = 1


@dataclass(frozen=True)
class AddedTokens:
    """ids: of all tokens added since the model was made. untrained: those with the rows they were given."""

    ids: tuple[int, ...]
    untrained: tuple[int, ...]

    def trained(self, ids: Collection[int] | None = None) -> AddedTokens:
        """The same after training of these rows; None: of all."""
        left = () if ids is None else tuple(i for i in self.untrained if i not in ids)
        return AddedTokens(self.ids, left)

    def write(self, folder: Path) -> None:
        values = {"format": FORMAT, "ids": self.ids, "untrained": self.untrained}
        (folder / FILE).write_text(json.dumps(values) + "\n", encoding="utf-8")


def read_added(folder: Path) -> AddedTokens | None:
    """What is known of a folder; None where it says nothing (never extended, or not by `mengya extend`).

    Raises:
        UserError: the file is damaged, or of a newer version.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version, ids, untrained = (values[key] for key in ("format", "ids", "untrained"))
        check_format(path, int(version), FORMAT)
        return AddedTokens(tuple(map(int, ids)), tuple(map(int, untrained)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}); remove it: then lora.trainable_tokens names tokens one by one"
        ) from error
