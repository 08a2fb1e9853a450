"""The one form of a chat message, from data files to the chat template. Light: no library is imported."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
"""role (system, user, assistant, tool), content; of an assistant maybe tool_calls, reasoning_content, and
`train`: False for a turn that is shown but not learned."""
