"""What our own engine answers: ids, logits, prompts and stop tokens of the source."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.export.parity.conversations import CONVERSATIONS, Conversation
from mengya.export.parity.held_out import HeldOut, windows
from mengya.export.parity.texts import hostile_texts
from mengya.export.parity.token_texts import token_texts
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.chat_template import render_prompt
from mengya.tokenizer.load import control_tokens, document_token_id, encode_texts, stop_token_ids


class Reference:
    """The source of an export, asked the questions of a `Reader`."""

    def __init__(self, model: CausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._parsing = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._parsing.no_padding()
        self._parsing.no_truncation()
        self._plain = Tokenizer.from_str(self._parsing.to_str())
        self._plain.encode_special_tokens = True  # in its words: as if they were text

    @cached_property
    def texts(self) -> list[str]:
        """The hostile texts, those of this vocabulary included."""
        added = self._tokenizer.added_tokens_decoder.values()
        special = [token.content for token in added if token.special]
        return hostile_texts(special, token_texts(self._tokenizer, self._plain))

    @property
    def control_ids(self) -> set[int]:
        vocabulary = self._tokenizer.get_vocab()
        return {vocabulary[name] for name in control_tokens(self._tokenizer)}

    def token_ids(self, text: str, parse_special: bool = False) -> list[int]:
        tokenizer = self._parsing if parse_special else self._plain
        return tokenizer.encode(text, add_special_tokens=False).ids

    def token(self, id_: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(id_))

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> Tensor:
        """[S, V] on the CPU."""
        device = self._model.lm_head.weight.device
        output = self._model(torch.tensor([list(ids)], device=device)).head_output
        return output[0].float().cpu()

    def prompts(self) -> list[tuple[Conversation, str]]:
        """The conversations with their prompts; without those that the chat template refuses."""
        rendered = []
        for chat in CONVERSATIONS:
            try:
                text = render_prompt(
                    self._tokenizer, chat.messages, chat.tools or None, chat.enable_thinking
                )
            except (
                UserError
            ):  # a template may have no place for tools, a base model has none at all
                continue
            rendered.append((chat, text))
        return rendered

    def stop_token_ids(self) -> set[int]:
        return set(stop_token_ids(self._tokenizer))

    def sequences(self, held_out: HeldOut) -> list[list[int]]:
        """The held-out documents between document tokens, as in training."""
        edge = [document_token_id(self._tokenizer)]
        context = self._model.config.context_length
        documents = encode_texts(self._tokenizer, list(held_out.texts))
        return [piece for ids in documents for piece in windows([*edge, *ids, *edge], context)]

    def chat_sequences(self) -> list[list[int]]:
        """The prompts of the conversations, from the start, as far as the context reaches."""
        context = self._model.config.context_length
        sequences = [
            self.token_ids(text, parse_special=True)[:context] for _, text in self.prompts()
        ]
        return [ids for ids in sequences if ids]
