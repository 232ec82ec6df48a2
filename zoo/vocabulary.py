"""What the tokens of a text stand for: from text to numbers and back.

A vocabulary is stated in one string, which a datamodule hands to a model and an entry of the zoo carries along:

| vocabulary | its statement | levels |
|---|---|---|
| `Characters` | the characters themselves, ascending: `"\\n !ABC…"` | how many they are |
| `Bytes` | `"bytes"` | 256 |
| `BytePairs` | the JSON of a byte-level tokenizer of the `tokenizers` library | the tokens that it knows |

No two of them can be stated alike: neither `bytes` nor any JSON object has its characters ascending.
"""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

AT_ONCE = 2**22  # characters that are looked up
LINE = re.compile(r"\n(?=\S)")  # an end, and the beginning of the next one


class Vocabulary(Protocol):
    """Tells text from tokens."""

    statement: str

    def __len__(self) -> int:
        """How many tokens there are: the data's `levels`."""

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, (T,) int32."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""


def vocabulary(statement: str) -> Vocabulary:
    """The vocabulary that a string states.

    Raises:
        ValueError: if it states none.
    """
    if statement == "bytes":
        return Bytes()
    is_object = statement.startswith("{") and statement[1:].lstrip().startswith('"')  # also in lines of its own
    return BytePairs(statement) if is_object else Characters(statement)


class Characters:
    """One token for each character; a text of other characters has no tokens.

    Args:
        statement: the characters, ascending.

    Raises:
        ValueError: if they are fewer than two, or not ascending.
    """

    def __init__(self, statement: str) -> None:
        self.statement = statement
        self.codes = _code_points(statement)
        if len(statement) < 2 or bool((np.diff(self.codes.astype(np.int64)) <= 0).any()):
            raise ValueError(
                f"{_shortened(statement)} states no vocabulary: it must be 'bytes', the JSON of a tokenizer, or at"
                " least two characters, each once and in ascending order."
            )

    @classmethod
    def of(cls, text: str) -> "Characters":
        """The characters that occur in a text."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.statement)

    def encode(self, text: str) -> np.ndarray:
        """See `Vocabulary`.

        Raises:
            ValueError: if a character of the text is not in the vocabulary.
        """
        tokens, unknown = np.empty(len(text), np.int32), []
        for start in range(0, len(text), AT_ONCE):  # what lies between takes many times the memory of the tokens
            codes = _code_points(text[start : start + AT_ONCE])
            some = np.searchsorted(self.codes, codes).clip(max=len(self) - 1)
            unknown.append(codes[self.codes[some] != codes])
            tokens[start : start + len(some)] = some
        if number := sum(map(len, unknown)):
            strangers = "".join(chr(code) for code in np.unique(np.concatenate(unknown)))
            raise ValueError(
                f"{number} of the text's {len(text)} characters are not in the vocabulary:"
                f" {_shortened(strangers)}. It has: {self.statement!r}."
            )
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Vocabulary`."""
        return "".join(self.statement[token] for token in tokens)


class Bytes:
    """One token for each byte of the text in UTF-8: every text has tokens, not all tokens are a text."""

    statement = "bytes"

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> np.ndarray:
        """See `Vocabulary`."""
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Vocabulary`; bytes that are no UTF-8 become U+FFFD."""
        return bytes(tokens).decode(errors="replace")


class BytePairs:
    """Byte pair encoding (Sennrich et al. 2016) over bytes: frequent strings of bytes are single tokens.

    Every text has tokens. The likelihood of one way to cut a text into tokens bounds that of the text from below.

    Args:
        statement: the JSON of a byte-level BPE tokenizer, as the `tokenizers` library writes it.

    Raises:
        ValueError: if it is not that.
    """

    def __init__(self, statement: str) -> None:
        from tokenizers import Tokenizer

        self.statement = statement
        try:
            self.tokenizer: Any = Tokenizer.from_str(statement)
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{_shortened(statement)} is no tokenizer of the tokenizers library: {error}") from None
        self.tokenizer.no_padding()  # nor any truncation: a text's tokens are its own, all of them
        self.tokenizer.no_truncation()
        said = json.loads(statement)
        cut = {"use_regex": True, **(said.get("pre_tokenizer") or {})}
        # whether it cuts a text where `in_parts` does, as those do that `of` has learned
        plain = not said.get("normalizer") and not said.get("added_tokens")
        self._cuts_lines = (
            plain and cut.get("type") == "ByteLevel" and cut["use_regex"] and not cut["add_prefix_space"]
        )

    @classmethod
    def of(cls, text: str, size: int) -> "BytePairs":
        """Learns a vocabulary from a text.

        Args:
            text: which is cut at line ends for learning, so that no token spans two lines' words.
            size: of the vocabulary, at least 257: the 256 bytes, and the most frequent pairs merged.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(tokenizer.to_str())

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        """See `Vocabulary`; a long text in parts, which are many times their size while they are encoded."""
        parts = in_parts(text) if self._cuts_lines else [text]
        return np.concatenate(
            [np.array(self.tokenizer.encode(part, add_special_tokens=False).ids, dtype=np.int32) for part in parts]
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Vocabulary`; bytes that are no UTF-8 become U+FFFD."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=False)


def in_parts(text: str, length: int = AT_ONCE) -> list[str]:
    """A text cut before ends of lines that a word follows, into parts of about that many characters.

    There GPT-2's pattern for words, by which byte-level tokenizers cut a text first, cuts it in any case: the tokens
    of the parts are those of the whole.
    """
    cuts, start = [0], length
    while found := LINE.search(text, start):
        cuts.append(found.start())
        start = found.start() + length
    return [text[a:b] for a, b in pairwise([*cuts, len(text)])]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _shortened(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")
