"""`mengya chat CHECKPOINT`: talk with a model in the terminal, or through a pipe, a message a line."""

from __future__ import annotations

import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt
from rich.console import Console

from mengya.generation.chat_detection import is_chat_model
from mengya.generation.chat_input import open_messages
from mengya.generation.chat_session import ChatSession
from mengya.generation.repl import Repl
from mengya.generation.sampling import SamplingParams
from mengya.models.cache.streaming import StreamingCache, StreamingConfig
from mengya.models.hf.open_checkpoint import DtypeName, open_checkpoint, pick_dtype
from mengya.runtime.device import DeviceName, init_device


class ChatConfig(SamplingParams):
    checkpoint: Path
    """Model folder, adapter folder, or run folder (its best, else latest, checkpoint)."""
    mode: Literal["auto", "chat", "completion"] = "auto"
    """chat: turns in the chat template. completion: continue the text typed, for base models.
    auto: chat when the model was trained on conversations, judged by a few short exchanges."""
    system: str | None = None
    """System message that opens the conversation."""
    enable_thinking: bool | None = None
    """false asks for answers without reasoning, where the chat template knows how."""
    streaming: StreamingConfig | None = None
    """Endless conversations: old tokens leave the attention window, instead of old turns being dropped
    when the context is full. streaming={} takes the defaults."""
    history: bool = True
    """Keep what is typed on a terminal (the last 1,000 messages) for the next session, in
    $XDG_STATE_HOME/mengya/chat_history.jsonl (~/.local/state without), readable by you alone."""
    device: DeviceName = "auto"
    """auto takes CUDA where there is one."""
    threads: PositiveInt | None = None
    """CPU threads that share a computation of torch; null: torch's own choice, OMP_NUM_THREADS or else one
    a core."""
    dtype: DtypeName = "auto"
    """dtype of the weights; auto: float32 on CPU, bfloat16 elsewhere."""


def run(config: ChatConfig) -> None:
    console = Console(stderr=True)
    device = init_device(config.device, config.threads)
    with console.status(f"loading {config.checkpoint} ..."):
        dtype = pick_dtype(config.dtype, device)
        model, tokenizer = open_checkpoint(config.checkpoint, device, dtype)
        chatting = config.mode == "chat"
        if config.mode == "auto":
            chatting = is_chat_model(model, tokenizer)
    if sys.stdin.isatty():
        what = "chat" if chatting else "completion: the model continues what you type"
        greeting = f"{config.checkpoint} ({what}); /help lists commands"
        console.print(greeting, markup=False, soft_wrap=True)
    params = SamplingParams(**{name: getattr(config, name) for name in SamplingParams.model_fields})
    make_cache = None
    if config.streaming is not None:
        make_cache = partial(StreamingCache, model.config, config.streaming)

    def new_session(system: str | None, params: SamplingParams) -> ChatSession:
        return ChatSession(
            model,
            tokenizer,
            params,
            system=system,
            enable_thinking=config.enable_thinking,
            make_cache=make_cache,
        )

    def say(text: str) -> None:
        console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)

    repl = Repl(new_session, params, system=config.system, chatting=chatting, console=console)
    with closing(open_messages(config.history, say)) as messages:
        repl.run(messages)
