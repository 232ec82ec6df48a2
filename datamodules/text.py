"""Text: one's own files, Shakespeare's plays, or Python's standard library; held in memory as tokens."""

import glob
import hashlib
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator, Sequence, Sized
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from genzoo.datamodules.base import DataModule
from genzoo.datamodules.duplicates import say_repeated
from genzoo.datamodules.files import FileSearch, is_hidden
from genzoo.zoo.files import at_home, cached, whole
from genzoo.zoo.vocabulary import BytePairs, Bytes, Characters, Vocabulary
from genzoo.zoo.vocabulary import vocabulary as stated_vocabulary

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

    The first part of the text is for training, the next for validation, the last for testing; no window reaches from
    one into another. Of Shakespeare the first 1,003,854 characters are for training, as is customary; the other
    111,540, customarily all for validation, are halved, because what chose a checkpoint is no test of it. Several
    files count as one text, in the order of their names. An epoch sees as many windows as the training text is long;
    each begins at a random place of its own stretch of `context_length` tokens. Windows of validation and of testing
    follow on each other, so that every token is predicted once, but for the fewer than `context_length` at the end
    that fill no window.

    Args:
        path: files, folders (all their files but hidden ones) or globs (`books/**/*.txt`), UTF-8.
        source: instead of a path: "shakespeare", three plays' worth of Shakespeare (1,115,394 characters), as
            `<root>/tinyshakespeare/input.txt`, downloaded if it is missing; or "stdlib", the source of the standard
            library of the Python that runs, without its tests: a model of code trains anywhere with no download, but
            the text, and so each figure on it, is that of this version of Python.
        root: the folder of downloaded data.
        context_length: T, tokens in a window.
        tokenizer: "character" (one token for each character that occurs), "byte" or "bpe" (byte pairs, learned from
            the training text, kept in the cache).
        vocab_size: tokens of "bpe".
        val_fraction, test_fraction: parts of the whole text for validation and for testing; training has the rest.
        batch_size, limit, seed: see `DataModule`; examples are windows.
        vocabulary: instead of a tokenizer the statement of a trained model's, `model.vocabulary.statement`, for its
            tokens to mean what they meant: to measure it on this text, or to train it further. An entry of such a
            model does not state it twice: its commands give it the model's.

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
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        batch_size: int = 32,
        limit: int | None = None,
        seed: int = 0,
        vocabulary: str = "",
    ):
        if (path is None) == (source is None):
            raise ValueError(f"path is {path!r} and source {source!r}, but one of them must be given, and not both")
        if source not in (None, *get_args(TextSource)):
            raise ValueError(f"source is {source!r}, but must be one of {', '.join(get_args(TextSource))}")
        if tokenizer not in get_args(Tokenizer):
            raise ValueError(f"tokenizer is {tokenizer!r}, but must be one of {', '.join(get_args(Tokenizer))}")
        if context_length < 1 or (tokenizer == "bpe" and vocab_size < 257):
            raise ValueError(
                f"context_length is {context_length} and vocab_size {vocab_size}, but they must be at least 1, and"
                " more than the 256 bytes"
            )
        if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
            raise ValueError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}, but both must be above 0, and"
                " together below 1: training has the rest of the text"
            )
        files = find_files(path) if path is not None else find_source(source, at_home(root))
        texts = [read_text(file) for file in files]
        if path is not None:
            say_repeated(files, texts)
        text = "\n".join(texts)
        del texts  # of a large corpus they are as much again
        if not text.strip():
            raise ValueError(f"there is no text in {', '.join(map(str, files[:3]))}: give files that have some")
        if tokenizer == "character" and not vocabulary and len(set(text)) < 2:
            raise ValueError(
                f"the text is the character {text[0]!r} and no other ({', '.join(map(str, files[:3]))}): there is"
                " nothing to learn from it; give a text of several characters"
            )
        begin_val = int((1 - (val_fraction + test_fraction)) * len(text))
        begin_test = int((1 - test_fraction) * len(text))
        parts = [text[:begin_val], text[begin_val:begin_test], text[begin_test:]]
        if not all(parts):
            raise ValueError(
                f"the text is {len(text)} characters long, of which val_fraction={val_fraction} and"
                f" test_fraction={test_fraction} leave {in_words(parts)}: give a longer text"
            )
        known, (train, val, test) = tokenised(parts, tokenizer, vocab_size, vocabulary)
        if (shortest := min(map(len, (train, val, test)))) < context_length:
            raise ValueError(
                f"a window takes {context_length} tokens of one split, but the text has"
                f" {in_words((train, val, test))}: give a longer text, or set context_length to {shortest} or less"
            )
        self.shape, self.levels = (context_length,), len(known)
        self.vocabulary, self._vocabulary, self.tokens = known.statement, known, [train, val, test]
        # A row of training is a stretch in which a window may begin, and what a window beginning at its end sees.
        rows = max(1, (len(train) - context_length + 1) // context_length)
        stretch = min(2 * context_length - 1, len(train))
        training = Windows(train, np.arange(rows) * context_length, stretch)
        validation, testing = (
            Windows(tokens, np.arange(len(tokens) // context_length) * context_length, context_length)
            for tokens in (val, test)
        )
        super().__init__(val_size=len(validation), batch_size=batch_size, limit=limit, seed=seed)
        self.sources = {
            "train": training.select(torch.arange(rows)[:limit]),
            "val": validation,
            "test": testing,
        }
        self.save_hyperparameters(logger=False, ignore=["vocabulary"])

    def divided(self) -> list[bytes | np.ndarray]:
        """See `DataModule`: the tokens, of which the last are held out."""
        return [*self.tokens, str(len(self.tokens[-1])).encode()]

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
    found: dict[Path, Path] = {}  # by what they are, because a file named twice would be in two splits
    for given in paths:
        files = files_of(at_home(given))
        if not files:
            raise FileNotFoundError(
                f"there is no file {at_home(given).absolute()}: give a file, a folder or a glob as path"
            )
        for name in sorted(files, key=in_order):
            found.setdefault(name.resolve(), name)
    return sorted(found.values(), key=in_order)


def in_order(file: Path) -> tuple[str, ...]:
    """By which files are sorted, the same way on every system: paths of Windows know no capitals."""
    return file.parts


def files_of(path: Path) -> set[Path]:
    """The files that a path, a folder or a glob names; no hidden ones, unless by their own name."""
    search = FileSearch()
    if path.is_dir():
        files = set(search.below(path).values())
        search.say(path)
        return files
    if path.is_file():  # also one whose name reads as a glob
        return {path}
    parts = path.parts
    if "**" not in parts:
        named = set(globbed(path))
        return {name for name in named if name.is_file() and (name.name in parts or not is_hidden(name.name))}
    # glob would go round and round where links make a circle
    split = parts.index("**")
    above = Path(*parts[:split])
    folders = [above] if above.is_dir() else globbed(above)
    below = [(folder, file) for folder in folders if folder.is_dir() for file in search.below(folder).values()]
    return {file for folder, file in below if fits(file.relative_to(folder).parts, parts[split:])}


def globbed(path: Path) -> list[Path]:
    """What a glob names; the folders in it that exist are meant by their names, brackets and all."""
    above = next((folder for folder in path.parents if folder.is_dir()), None)
    if above is None:  # a drive that is not there
        return []
    return [Path(name) for name in glob.glob(str(Path(glob.escape(str(above)), path.relative_to(above))))]


def fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, both as their parts; `**` is any number of folders."""
    if not pattern or not names:
        return not names and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return fits(names, pattern[1:]) or fits(names[1:], pattern)
    return fnmatchcase(names[0], pattern[0]) and fits(names[1:], pattern[1:])


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
        with whole(file) as half:
            half.write_bytes(data)
    return file


def read_text(file: Path) -> str:
    """The text of a file, without the mark that some editors begin it with.

    Raises:
        ValueError: naming it, if it is not UTF-8, or holds NUL, which is UTF-8, but of no text.
    """
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error}): convert it, or give a path without it") from None
    if "\0" in text:
        raise ValueError(
            f"{file} is no text in UTF-8 (it holds NUL, as archives and UTF-16 do): convert it, or give a path"
            " without it"
        )
    return text


def in_words(parts: Sequence[Sized]) -> str:
    """How much there is of each split."""
    train, val, test = map(len, parts)
    return f"{train} for training, {val} for validation and {test} for testing"


def tokenised(
    parts: Sequence[str], tokenizer: Tokenizer, vocab_size: int, stated: str = ""
) -> tuple[Vocabulary, tuple[np.ndarray, ...]]:
    """The vocabulary, perhaps a stated one, and the tokens of a text's parts for training, validation and testing.

    Byte pairs are learned from the first. They are learned and applied once, and then cached.
    """
    if stated:
        known = stated_vocabulary(stated)
        return known, tuple(small(known.encode(part), known) for part in parts)
    if tokenizer != "bpe":
        known = Bytes() if tokenizer == "byte" else Characters.of("".join(parts))
        return known, tuple(small(known.encode(part), known) for part in parts)
    digest = hashlib.sha256("\0".join([*parts, str(vocab_size)]).encode()).hexdigest()
    kept_in = cached(f"text/bpe-{digest[:16]}.npz")
    if kept_in.is_file():
        try:
            with np.load(kept_in, allow_pickle=False) as kept:
                return BytePairs(str(kept["statement"])), (kept["train"], kept["val"], kept["test"])
        except Exception as error:  # a damaged file makes the reader stumble over nearly anything
            rank_zero_warn(f"{kept_in} is damaged, and is made again: {str(error) or type(error).__name__}")
    learned = BytePairs.of(parts[0], vocab_size)
    train, val, test = (small(learned.encode(part), learned) for part in parts)
    try:
        with whole(kept_in) as half, half.open("wb") as file:
            np.savez(file, statement=np.array(learned.statement), train=train, val=val, test=test)
    except OSError as error:
        rank_zero_warn(f"byte pairs are not kept in {kept_in}, and will be learned again: {error}")
    return learned, (train, val, test)


def small(tokens: np.ndarray, known: Vocabulary) -> np.ndarray:
    """The tokens in as few bytes as they need."""
    return tokens.astype(np.min_scalar_type(len(known) - 1))
