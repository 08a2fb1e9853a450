"""`to=modelscope`: the folder of `to=hf`, pushed to ModelScope."""

from __future__ import annotations

from typing import ClassVar

from mengya.errors import UserError
from mengya.export.hf import HfFormat, HfOptions
from mengya.export.hub.hub import Hub
from mengya.export.source import Source


class ModelScopeFormat(HfFormat):
    """As `HfFormat`; without a repository it would be no other."""

    name: ClassVar[str] = "modelscope"

    def check(self, source: Source, options: HfOptions) -> None:
        if not options.repo:
            raise UserError(
                "to=modelscope pushes: write modelscope.repo=OWNER/NAME (to=hf writes the same folder and "
                "pushes nothing)"
            )
        super().check(source, options)

    def _hub(self) -> Hub:
        from mengya.export.hub.modelscope import ModelScopeHub

        return ModelScopeHub()


MODELSCOPE = ModelScopeFormat()
