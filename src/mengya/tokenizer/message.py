"""The one form of a chat message, from data files to the chat template. Light: no library is imported."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
"""role (system, user, assistant, tool) and content; an assistant's maybe with tool_calls and reasoning_content."""
