"""Our model as lm-evaluation-harness asks it: an `LM` with the answers of `lm_eval --model hf`, in less time.

Encodes all texts at once, computes each different sequence once (passes.py), and notes every pass in a
journal. Imports lm_eval (extra `eval`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mengya.errors import UserError
from mengya.evaluation.exams.model.completions import Completer, Prompt, prompt_of
from mengya.evaluation.exams.model.journal import Journal, questions_digest
from mengya.evaluation.exams.model.likelihoods import Likelihood, pass_likelihoods
from mengya.evaluation.exams.model.passes import Ids, Pass, plan_passes
from mengya.evaluation.likelihood.scoring import evaluating
from mengya.evaluation.subject import Subject

_TOKENS = {"cpu": 16384}  # of a pass
_TOKENS_ELSEWHERE = 1 << 17
_LOGITS = 1 << 28  # a pass has at most so many, whatever the vocabulary
_ROWS = {"cpu": 16}  # texts that are written at once
_ROWS_ELSEWHERE = 256

OnPass = Callable[[int, int], None]
"""Called after every pass: requests answered, requests in all."""


class HarnessModel(TemplateLM):
    """Attributes:
    cut: contexts that were longer than the model's and lost their beginning.
    """

    def __init__(
        self,
        subject: Subject,
        journal: Journal,
        batch_rows: int | None = None,
        on_pass: OnPass | None = None,
    ) -> None:
        """
        Args:
            batch_rows: most questions in a pass; None: as many as fit.
        """
        super().__init__()
        self.tokenizer = subject.tokenizer
        self.cut: set[str] = set()
        self._subject, self._journal = subject, journal
        self._batch_rows, self._on_pass = batch_rows, on_pass or (lambda done, of: None)
        self._device_type = subject.model.lm_head.weight.device.type
        self._encoded: dict[str, list[int]] = {}
        self._completer: Completer | None = None

    @property
    def eot_token_id(self) -> int:
        return cast(int, self._subject.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self._subject.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else cast(int, bos)

    @property
    def max_length(self) -> int:
        return self._subject.context_length

    @property
    def tokenizer_name(self) -> str:
        return str(self._subject.folder)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """As HFLM: the tokenizer's own special tokens, unless the text begins with one."""
        if add_special_tokens is None and string in self._encoded:
            return self._encoded[string]
        added = self._adds_tokens(string) if add_special_tokens is None else add_special_tokens
        return list(self._subject.tokenizer.encode(string, add_special_tokens=added))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return str(
            self._subject.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[Likelihood]:
        self._encode_all(text for r in requests for text in (r.args[0], "".join(r.args)))
        answers = super().loglikelihood(requests, disable_tqdm=True)
        self._encoded.clear()
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """log p of texts, in disjoint windows of the model's context, as HFLM."""
        asked, owners = [], []
        for owner, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for window in map(make_disjoint_window, windows):
                asked.append((("", ""), *window))
                owners.append(owner)
        sums = [0.0] * len(requests)
        for owner, (logp, _) in zip(owners, self._loglikelihood_tokens(asked), strict=True):
            sums[owner] += logp
        return sums

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[Likelihood]:
        numbers: dict[Ids, int] = {}
        ends: list[dict[Ids, None]] = []  # of each different sequence
        asked: list[tuple[int, Ids]] = []
        for texts, context_ids, continuation_ids in requests:
            if len(context_ids) + len(continuation_ids) > self.max_length + 1:
                self.cut.add(texts[0])
            ids = tuple((context_ids + continuation_ids)[-(self.max_length + 1) : -1])
            end = tuple(continuation_ids)
            if not 0 < len(end) <= len(ids):
                raise UserError(
                    f"an answer of {len(end)} tokens does not fit the model's context of "
                    f"{self.max_length} after its question: {texts[0][-40:]!r}"
                )
            number = numbers.setdefault(ids, len(numbers))
            if number == len(ends):
                ends.append({})
            ends[number][end] = None
            asked.append((number, end))
        scores = self._score(list(numbers), [list(each) for each in ends], len(requests))
        return [scores[number][end] for number, end in asked]

    def _score(
        self, sequences: list[Ids], ends: list[list[Ids]], requests: int
    ) -> list[dict[Ids, Likelihood]]:
        """Of each sequence its continuations."""
        if not sequences:
            return []
        digest = questions_digest(sequences, f"{self._batch_rows}")
        scores: list[dict[Ids, Likelihood]] = [{} for _ in sequences]
        done = 0
        model = self._subject.model
        with evaluating(model):
            for number, each in enumerate(self._plan(sequences, ends)):
                key = f"{digest}:{number}"
                rows = self._journal.get(key)
                if rows is None:
                    rows = pass_likelihoods(model, each, ends)
                    self._journal.put(key, rows)
                for at, row in zip(each.sequences, rows, strict=True):
                    scores[at] = {
                        end: (float(logp), bool(greedy))
                        for end, (logp, greedy) in zip(ends[at], row, strict=True)
                    }
                done += len(each.sequences)
                self._on_pass(done * requests // len(sequences), requests)
        return scores

    def _plan(self, sequences: list[Ids], ends: list[list[Ids]]) -> list[Pass]:
        config = self._subject.model.config
        tokens = min(
            _TOKENS.get(self._device_type, _TOKENS_ELSEWHERE), _LOGITS // config.vocab_size
        )
        if (
            config.rope_parameters.depends_on_length
        ):  # what is computed for one text serves no other
            shared = [0] * len(sequences)
        else:
            shared = [
                len(ids) - max(map(len, each)) for ids, each in zip(sequences, ends, strict=True)
            ]
        return plan_passes(sequences, shared, tokens, self._batch_rows)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        self._encode_all(request.args[0] for request in requests)
        eos = str(self._subject.tokenizer.decode([self.eot_token_id]))
        prompts: list[Prompt] = []
        for request in requests:
            text, settings = cast(tuple[str, dict[str, Any]], request.args)
            ids = self.tok_encode(text) or [self.prefix_token_id]
            prompt = prompt_of(ids, settings, self.max_length, eos)
            if len(prompt.ids) < len(ids):
                self.cut.add(text)
            prompts.append(prompt)
        self._encoded.clear()
        return self._complete(prompts)

    def _complete(self, prompts: list[Prompt]) -> list[str]:
        rows = self._batch_rows or _ROWS.get(self._device_type, _ROWS_ELSEWHERE)
        settings = [f"{p.until} {p.params.model_dump_json()}" for p in prompts]
        digest = questions_digest([p.ids for p in prompts], f"{rows} {settings}")
        order = sorted(range(len(prompts)), key=lambda n: (-len(prompts[n].ids), prompts[n].ids))
        texts = [""] * len(prompts)
        for start in range(0, len(order), rows):
            chunk = order[start : start + rows]
            key = f"{digest}:{start}"
            written = self._journal.get(key)
            if written is None:
                if self._completer is None:
                    self._completer = Completer(self._subject.model, self._subject.tokenizer, rows)
                written = self._completer.complete([prompts[n] for n in chunk])
                self._journal.put(key, written)
            for number, text in zip(chunk, written, strict=True):
                texts[number] = text
            self._on_pass(start + len(chunk), len(prompts))
        return texts

    def _encode_all(self, texts: Iterable[str]) -> None:
        """Many texts on all cores, for `tok_encode`."""
        by_added: dict[bool, list[str]] = {True: [], False: []}
        for text in dict.fromkeys(texts):
            by_added[self._adds_tokens(text)].append(text)
        backend = self._subject.tokenizer.backend_tokenizer
        for added, chosen in by_added.items():
            encodings = backend.encode_batch_fast(chosen, add_special_tokens=added)
            self._encoded.update(zip(chosen, (e.ids for e in encodings), strict=True))

    def _adds_tokens(self, text: str) -> bool:
        return not text.startswith(self._prefix_text)

    @cached_property
    def _prefix_text(self) -> str:
        return str(self._subject.tokenizer.decode([self.prefix_token_id]))
