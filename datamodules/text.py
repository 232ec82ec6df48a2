"""Text: one's own files, Shakespeare's plays, or Python's standard library; held in memory as tokens."""

import glob
import hashlib
import io
import os
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from genzoo.datamodules.base import DataModule
from genzoo.zoo.files import cached
from genzoo.zoo.vocabulary import BytePairs, Bytes, Characters, Vocabulary

TextSource = Literal["shakespeare", "stdlib"]
Tokenizer = Literal["character", "byte", "bpe"]

SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

# What of the standard library is not a library's source, or differs from one installation to another.
NOT_STDLIB = {
    *("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"),  # nobody's, or not Python's
    *("idlelib", "lib2to3", "turtledemo", "ensurepip", "encodings", "pydoc_data"),  # applications and tables
}


class Windows:
    """Pieces of one long row of tokens: the rows of a split of a text.

    Args:
        tokens: (N,), of any integer type.
        starts: (R,), where each piece begins.
        length: of a piece, in tokens.
    """

    labels: Tensor | None = None

    def __init__(self, tokens: np.ndarray, starts: np.ndarray, length: int) -> None:
        self.tokens, self.starts, self.length = tokens, starts, length

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, rows: Tensor) -> "Windows":
        """See `Source`."""
        return Windows(self.tokens, self.starts[rows.numpy()], self.length)

    def read(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `Source`."""
        steps = np.arange(self.length)
        for rows in batches:
            yield torch.from_numpy(self.tokens[self.starts[rows.numpy(), None] + steps].astype(np.int64))


class TextDataModule(DataModule):
    """Text as windows of tokens, int64 (context_length,).

    The first part of the text is for training, the last for validation, and for testing too: customary for
    Shakespeare, whose last 111,540 characters are validation. Several files count as one text, in the order of their
    names. An epoch sees as many windows as the training text is long; each begins at a random place of its own
    stretch of `context_length` tokens. Validation windows follow on each other, so that every token is predicted
    once, but for the fewer than `context_length` at the end that fill no window.

    Args:
        path: files, folders (all their files) or globs (`books/**/*.txt`), UTF-8.
        source: instead of a path: "shakespeare", three plays' worth of Shakespeare (1,115,394 characters), as
            `<root>/tinyshakespeare/input.txt`, downloaded if it is missing; or "stdlib", the source of the standard
            library of the Python that runs, without its tests: a model of code trains anywhere with no download, but
            the text, and so each figure on it, is that of this version of Python.
        root: the folder of downloaded data.
        context_length: T, tokens in a window.
        tokenizer: "character" (one token for each character that occurs), "byte" or "bpe" (byte pairs, learned from
            the training text, kept in the cache).
        vocab_size: tokens of "bpe".
        val_fraction: part of the text for validation.
        batch_size, limit, seed: see `DataModule`; examples are windows.

    Attributes:
        vocabulary: the statement of the vocabulary, for a model to take along (`genzoo.zoo.vocabulary`).

    Raises:
        FileNotFoundError: if there is no such file, or Shakespeare cannot be downloaded.
        ValueError: for any argument out of its range, or a text that is not UTF-8 or too short.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        source: TextSource | None = None,
        root: str = "data",
        context_length: int = 256,
        tokenizer: Tokenizer = "character",
        vocab_size: int = 1024,
        val_fraction: float = 0.1,
        batch_size: int = 32,
        limit: int | None = None,
        seed: int = 0,
    ):
        if (path is None) == (source is None):
            raise ValueError(f"path is {path!r} and source {source!r}, but one of them must be given, and not both")
        if source not in (None, *get_args(TextSource)):
            raise ValueError(f"source is {source!r}, but must be one of {', '.join(get_args(TextSource))}")
        if tokenizer not in get_args(Tokenizer):
            raise ValueError(f"tokenizer is {tokenizer!r}, but must be one of {', '.join(get_args(Tokenizer))}")
        if context_length < 1 or not 0 < val_fraction < 1 or (tokenizer == "bpe" and vocab_size < 257):
            raise ValueError(
                f"context_length is {context_length}, val_fraction {val_fraction} and vocab_size {vocab_size}, but"
                " they must be at least 1, between 0 and 1, and more than the 256 bytes"
            )
        files = find_files(path) if path is not None else find_source(source, Path(root))
        text = "\n".join(read_text(file) for file in files)
        if not text.strip():
            raise ValueError(f"there is no text in {', '.join(map(str, files[:3]))}: give files that have some")
        if tokenizer == "character" and len(set(text)) < 2:
            raise ValueError(
                f"the text is the character {text[0]!r} and no other ({', '.join(map(str, files[:3]))}): there is"
                " nothing to learn from it; give a text of several characters"
            )
        cut = int((1 - val_fraction) * len(text))
        if not 0 < cut < len(text):
            raise ValueError(
                f"the text is {len(text)} characters long, of which val_fraction={val_fraction} leaves {cut} for"
                " training: give a longer text"
            )
        known, (train, val) = tokenised(text[:cut], text[cut:], tokenizer, vocab_size)
        if min(len(train), len(val)) < context_length:
            raise ValueError(
                f"the text has {len(train)} tokens for training and {len(val)} for validation, but a window takes"
                f" {context_length} of each: give a longer text, or set context_length to"
                f" {min(len(train), len(val))} or less"
            )
        self.shape, self.levels = (context_length,), len(known)
        self.vocabulary, self._vocabulary = known.statement, known
        # A row of training is a stretch in which a window may begin, and what a window beginning at its end sees.
        rows = max(1, (len(train) - context_length + 1) // context_length)
        stretch = min(2 * context_length - 1, len(train))
        evaluation = Windows(val, np.arange(len(val) // context_length) * context_length, context_length)
        training = Windows(train, np.arange(rows) * context_length, stretch)
        super().__init__(val_size=len(evaluation), batch_size=batch_size, limit=limit, seed=seed)
        self.sources = {
            "train": training.select(torch.arange(rows)[:limit]),
            "val": evaluation,
            "test": evaluation,
        }
        self.save_hyperparameters(logger=False)

    def setup(self, stage: str | None = None) -> None:
        """All is done: the vocabulary could not be known without reading the text."""

    def scale(self, stored: Tensor) -> Tensor:
        """Tokens are what they are."""
        return stored

    @property
    def noise(self) -> Callable[[Tensor, torch.Generator], Tensor]:
        """Where in its stretch each training window begins."""
        return self._crop

    def _crop(self, stretches: Tensor, generator: torch.Generator) -> Tensor:
        places = stretches.shape[1] - self.shape[0] + 1
        begin = torch.randint(places, (len(stretches), 1), generator=generator)
        return stretches.gather(1, begin + torch.arange(self.shape[0]))

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, (T,) int32; ValueError if it has characters that the training text has not."""
        return self._vocabulary.encode(text)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """What (T,) tokens say."""
        return self._vocabulary.decode(tokens.tolist() if isinstance(tokens, Tensor) else tokens)


def find_files(path: str | list[str]) -> list[Path]:
    """The files that paths, folders and globs name, each once, in the order of their names.

    Raises:
        FileNotFoundError: if one of them names none.
        ValueError: if one of them is empty, or there is none.
    """
    paths = [path] if isinstance(path, str) else path
    if not paths or not all(paths):
        raise ValueError(f"path is {path!r}: give a file, a folder or a glob; the current folder is '.'")
    found: set[Path] = set()
    for given in paths:
        folder = Path(given).expanduser()
        names = folder.rglob("*") if folder.is_dir() else map(Path, glob.glob(str(folder), recursive=True))
        files = {name for name in names if name.is_file()}
        if not files:
            raise FileNotFoundError(f"there is no file {folder.absolute()}: give a file, a folder or a glob as path")
        found |= files
    return sorted(found)


def find_source(source: TextSource | None, root: Path) -> list[Path]:
    """The files of a source that has a name."""
    if source == "shakespeare":
        return [download(SHAKESPEARE, SHAKESPEARE_SHA256, root / "tinyshakespeare" / "input.txt")]
    library = Path(sysconfig.get_path("stdlib"))
    files = (file.relative_to(library) for file in library.rglob("*.py"))
    of_machine = ("config-", "_sysconfigdata")  # written when this Python was built
    return sorted(
        library / file
        for file in files
        if NOT_STDLIB.isdisjoint(file.parts) and not any(part.startswith(of_machine) for part in file.parts)
    )


def download(address: str, sha256: str, file: Path) -> Path:
    """The file, downloaded if it is missing: whole and as it should be, or not at all.

    Raises:
        FileNotFoundError: if it is missing and cannot be downloaded, or another file lies at the address.
    """
    if not file.is_file():
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                data = answer.read()
        except OSError as error:
            raise FileNotFoundError(
                f"there is no {file.absolute()}, and it could not be downloaded ({error}): set root to the folder"
                f" that has it, or put {address} there by hand"
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise FileNotFoundError(f"what lies at {address} is not the text that it was, and was not kept")
        write_whole(file, data)
    return file


def read_text(file: Path) -> str:
    """The text of a file, without the mark that some editors begin it with; ValueError, naming it, if not UTF-8."""
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error}): convert it, or give a path without it") from None


def tokenised(
    train: str, val: str, tokenizer: Tokenizer, vocab_size: int
) -> tuple[Vocabulary, tuple[np.ndarray, np.ndarray]]:
    """The vocabulary, and the tokens of both parts. Byte pairs are learned and applied once, and then cached."""
    if tokenizer != "bpe":
        known: Vocabulary = Bytes() if tokenizer == "byte" else Characters.of(train + val)
        return known, (small(known.encode(train), known), small(known.encode(val), known))
    digest = hashlib.sha256("\0".join([train, val, str(vocab_size)]).encode()).hexdigest()
    file = cached(f"text/bpe-{digest[:16]}.npz")
    if not file.is_file():
        learned = BytePairs.of(train, vocab_size)
        parts = [small(learned.encode(text), learned) for text in (train, val)]
        buffer = io.BytesIO()
        np.savez(buffer, statement=np.array(learned.statement), train=parts[0], val=parts[1])
        write_whole(file, buffer.getvalue())
    kept = np.load(file, allow_pickle=False)
    return BytePairs(str(kept["statement"])), (kept["train"], kept["val"])


def small(tokens: np.ndarray, known: Vocabulary) -> np.ndarray:
    """The tokens in as few bytes as they need."""
    return tokens.astype(np.min_scalar_type(len(known) - 1))


def write_whole(file: Path, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.{os.getpid()}")
    half.write_bytes(data)
    os.replace(half, file)
