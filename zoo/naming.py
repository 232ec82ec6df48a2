"""What classes and columns are called: stated by the data, kept with the model, in every checkpoint and entry."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from genzoo.zoo.lines import is_line

MOST_COLUMNS, MOST_CLASSES = 1000, 10_000  # whose names a file has room for


class NamingMixin:
    """A module's part that knows names, for a module that states its `shape` and perhaps its `num_classes`."""

    shape: tuple[int, ...]
    #: what the classes 0, 1, … are called, where the data say so
    class_names: tuple[str, ...] = ()
    #: what the columns of a table are called, in the order in which the model has them, where the data say so
    column_names: tuple[str, ...] = ()

    @property
    def stated_names(self) -> dict[str, list[str]]:
        """Both, as files state them, as far as there are any."""
        both = {"class_names": list(self.class_names), "column_names": list(self.column_names)}
        return {what: names for what, names in both.items() if names}

    def take_names(self, stated: Mapping[str, Any]) -> None:
        """Those that a checkpoint or an entry states; ValueError if they do not fit."""
        if stated.get("class_names"):
            self.name_classes(stated["class_names"])
        if stated.get("column_names"):
            self.name_columns(stated["column_names"])

    def name_classes(self, names: Sequence[str]) -> None:
        """States what the classes are called.

        Raises:
            ValueError: unless there is a name, text of its own in one line, for each of the model's classes.
        """
        number = getattr(self, "num_classes", None)
        if not are_names(names) or len(names) != number:
            raise ValueError(
                f"{type(self).__name__}: class_names are a name in one line for each of num_classes={number} classes,"
                f" all different, but were given {str(names)[:80]}."
            )
        if len(names) > MOST_CLASSES:
            from lightning.pytorch.utilities.rank_zero import rank_zero_warn  # what reads files does not wait for it

            rank_zero_warn(
                f"{type(self).__name__}: classes go by their numbers: no file states the names of more than"
                f" {MOST_CLASSES:,}."
            )
            return
        self.class_names = tuple(names)

    def name_columns(self, names: Sequence[str]) -> None:
        """States what the columns of a table are called, by which they are found in others, wherever they stand.

        Raises:
            ValueError: unless there is a name, text of its own in one line, for each of the model's columns; or as of
                `check_columns`.
        """
        if not are_names(names) or (len(names),) != self.shape:
            raise ValueError(
                f"{type(self).__name__}: column_names are a name in one line for each column of data of the shape"
                f" {self.shape}, all different, but were given {str(names)[:80]}."
            )
        self.check_columns(names)
        self.column_names = tuple(names)

    def columns_of(self, data: Any) -> tuple[str, ...]:
        """What a datamodule says that its columns are called; () where the model's data have none."""
        of_table = len(self.shape) == 1
        return tuple(getattr(data, "column_names", None) or ()) if of_table else ()

    def check_source(self, data: Any, *, but: Collection[str] = (), called: str = "the data") -> None:
        """Refuses data whose numbers mean something else than this model's: it would be measured on nonsense.

        Args:
            data: a datamodule, or another model; None says nothing.
            but: of what they may state otherwise.
            called: what they are, in the message.

        Raises:
            ValueError: if both state a vocabulary, a sample rate or names of the classes, and not the same; or as of
                `check_columns`.
        """
        self.check_columns(self.columns_of(data))
        for what, remedy in MEANINGS.items():
            ours, theirs = (_stated(one, what) for one in (self, data))
            if ours and theirs and ours != theirs and what not in but:
                raise ValueError(
                    f"{type(self).__name__}: its {what} is {str(ours)[:60]!r}, but that of {called}"
                    f" {str(theirs)[:60]!r}, so that their numbers mean something else: {remedy}."
                )

    def check_columns(self, names: Sequence[str]) -> None:
        """ValueError if data have the model's columns in another order, so that each would be taken for another."""
        if tuple(names) != self.column_names and set(names) == set(self.column_names):
            one, other = (", ".join(order)[:80] for order in (self.column_names, names))
            raise ValueError(
                f"{type(self).__name__}: the same columns stand in two orders, {one} and {other}: choose those of the"
                " data by `columns`, in the order in which the model learned them."
            )


#: what data and a model can both state of what numbers mean, and what to do where they differ
MEANINGS = {
    "vocabulary": "give the datamodule the model's (`vocabulary`)",
    "sample_rate": "give the datamodule the model's",
    "class_names": "let the data have the model's classes, in their order",
}


def _stated(by: Any, what: str) -> Any:
    """Something that a datamodule or a model states, in a form of ours: else nobody knows what it says."""
    value = getattr(by, what, None)
    value = list(value) if isinstance(value, list | tuple) else getattr(value, "statement", value)
    return value if isinstance(value, str | int | list) else None


def are_names(names: Any) -> bool:
    """Whether they are a list of texts in one line each, all different."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and is_line(name) for name in names):
        return False
    return len(set(names)) == len(names)
