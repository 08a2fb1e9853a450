"""Turn a stream of token ids into text, never half a character. Knows nothing of models."""

from transformers import PreTrainedTokenizerFast

REPLACEMENT = "\ufffd"
WINDOW_TOKENS = 16
CONTEXT_TOKENS = 4


class TextStream:
    """Incremental decoder: `push(id)` gives the text that became certain, `flush()` the rest.

    A token of byte-level BPE may end inside a character; decoding then shows one U+FFFD for the
    open bytes, always as the last character. So a last U+FFFD is held back until the next token
    completes it or proves it broken, and everything before it is certain. Decoding runs over a
    short window of recent tokens, because some tokenizers treat the first token of a text
    differently (SentencePiece drops its space).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window: list[int] = []
        self._given = 0  # characters of the window's text that were already given out

    def push(self, token_id: int) -> str:
        """The new text of one more token; empty while a character is open."""
        self._window.append(token_id)
        text = self._decode(self._window)
        open_character = text.endswith(REPLACEMENT)
        certain = len(text) - open_character
        new, self._given = text[self._given : certain], certain
        if len(self._window) >= WINDOW_TOKENS and not open_character:
            self._window = self._window[-CONTEXT_TOKENS:]
            self._given = len(self._decode(self._window))
        return new

    def flush(self) -> str:
        """What is held back at the end of the stream; bytes that are no character give U+FFFD."""
        rest = self._decode(self._window)[self._given :]
        self._window, self._given = [], 0
        return rest

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False
            )
        )
