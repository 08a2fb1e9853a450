"""Whether a model was trained on conversations, judged by its weights alone."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.chat_template import encode_conversation, encode_prompt
from mengya.tokenizer.load import document_token_id

# Short exchanges like those in every chat data set.
GREETINGS = (("你好", "你好！"), ("谢谢", "不客气。"), ("你是谁？", "我是一个助手。"))
TURN_END_PROBABILITY = 0.01


def is_chat_model(model: CausalLM, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the model was trained on conversations.

    A model that was not gives `<|im_end|>` a probability near 0 everywhere. One that was gives it 1 %
    or more inside one of a few greetings and answers, or ends an answer of its own with it. Where the
    template closes turns with the document token, which base models predict as well, the tokenizer's
    chat template decides: with one, it is a chat model.
    """
    prompts: list[list[int]] = []
    turn_ends: set[int] = set()
    for question, answer in GREETINGS:
        asked = {"role": "user", "content": question}
        try:
            ids, mask = encode_conversation(
                tokenizer, [asked, {"role": "assistant", "content": answer}]
            )
            prompts.append(encode_prompt(tokenizer, [asked]))
        except UserError:
            return False  # no chat template fits this tokenizer
        last = max((i for i, one in enumerate(mask) if one), default=0)
        if ids[last] == document_token_id(tokenizer):
            return bool(tokenizer.chat_template)
        if _greatest_probability(model, ids[:last], mask, ids[last]) > TURN_END_PROBABILITY:
            return True
        turn_ends.add(ids[last])
    greedy = SamplingParams(max_new_tokens=64, temperature=0)
    return any(turn_ends & set(reply) for reply in generate(model, prompts, greedy, []))


@torch.inference_mode()
def _greatest_probability(model: CausalLM, ids: list[int], mask: list[int], token: int) -> float:
    """The largest probability of `token` as the next one, where the mask says the model speaks."""
    ids_1S = torch.tensor([ids], device=next(model.parameters()).device)
    probabilities_S = model(ids_1S).head_output[0].float().softmax(-1)[:, token].cpu()
    return probabilities_S[torch.tensor(mask[1 : len(ids) + 1]).bool()].max().item()
