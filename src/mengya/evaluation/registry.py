"""The yardsticks by name."""

from __future__ import annotations

from collections.abc import Mapping

from mengya.evaluation.yardstick import Yardstick

YARDSTICKS: Mapping[str, Yardstick] = {}
