"""Text, for a model of tokens that was built with a vocabulary."""

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from genzoo.zoo.vocabulary import Vocabulary
from genzoo.zoo.vocabulary import vocabulary as stated_vocabulary

#: what stands in a batch behind the end of a text that is shorter than others: no token
PADDING = -1


class TextMixin:
    """Gives `text` and `tokens` to a family of tokens whose constructor calls `read_by`."""

    vocabulary: Vocabulary | None

    # from ZooModule
    levels: int | None
    observed: Callable[[Tensor], Tensor]

    def read_by(self, vocabulary: str | None) -> None:
        """Sets the vocabulary, from its statement; None: the model knows numbers only.

        Raises:
            ValueError: if it states none, or one of another number of tokens than the model's levels.
        """
        self.vocabulary = None if vocabulary is None else stated_vocabulary(vocabulary)
        if self.vocabulary is not None and len(self.vocabulary) != self.levels:
            raise ValueError(f"The vocabulary has {len(self.vocabulary)} tokens, but levels={self.levels}.")

    @overload
    def text(self, tokens: Sequence[int]) -> str: ...

    @overload
    def text(self, tokens: Tensor) -> Any: ...

    def text(self, tokens: Tensor | Sequence[int]) -> str | list[str]:
        """What (T,) tokens say; of a batch (B, T), what each of them says. Without a vocabulary, their numbers."""
        if isinstance(tokens, Tensor) and tokens.ndim == 2:
            return [self.text(row) for row in tokens]
        if isinstance(tokens, Tensor) and tokens.ndim == 1 and tokens.dtype == torch.long:
            tokens = tokens[: len(tokens) - int((tokens.flip(0) == PADDING).cumprod(0).sum())]  # what ends it
        numbers = self.checked_tokens(tokens, "What can be written as text is (T,) tokens").tolist()
        return " ".join(map(str, numbers)) if self.vocabulary is None else self.vocabulary.decode(numbers)

    def tokens(self, text: str | Sequence[str]) -> Tensor:
        """The tokens of a text, (T,) int64; of several, (B, the longest one's T), −1 behind the end of the others.

        Raises:
            TypeError: if it is neither a string nor strings.
            ValueError: if the model has no vocabulary, or the text has characters that are not in it.
        """
        several = isinstance(text, list | tuple) and len(text) > 0 and all(isinstance(one, str) for one in text)
        if not isinstance(text, str) and not several:
            raise TypeError(f"text is a string, or a list of strings, but was given {type(text).__name__}.")
        if self.vocabulary is None:
            name = type(self).__name__
            raise ValueError(f"This {name} was built without a vocabulary: give tokens instead of text.")
        if isinstance(text, str):
            return torch.from_numpy(self.vocabulary.encode(text)).long()
        return pad_sequence([self.tokens(one) for one in text], batch_first=True, padding_value=PADDING)

    def checked_tokens(self, tokens: Tensor | Sequence[int], expected: str) -> Tensor:
        """(T,) int64, if they are tokens of the model; `expected` says in an error what should have been given."""
        try:
            given = torch.as_tensor(tokens)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{expected}, int64 in [0, {self.levels}), but was {type(tokens).__name__}.") from None
        if not given.numel():
            given = given.long()  # an empty list has no kind of number
        if (
            given.ndim != 1
            or given.dtype != torch.long
            or (len(given) and not 0 <= given.min() <= given.max() < (self.levels or 0))
        ):
            raise ValueError(
                f"{expected}, int64 in [0, {self.levels}), but was {given.dtype} of shape"
                f" {tuple(given.shape)}" + (f" in [{given.min()}, {given.max()}]." if given.numel() else ".")
            )
        return given
