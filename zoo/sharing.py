"""`from_pretrained` and `push_to_hub`, as the users of Hugging Face's Hub know them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from genzoo.zoo.files import at_home

if TYPE_CHECKING:
    from genzoo.zoo.hub.schema import StoredAs

#: `genzoo.zoo.hub`, which introduces itself as soon as genzoo is imported: it builds on the modules, not they on it
hub: Any = None


class SharingMixin:
    """The two ways to the Hub of every module: `genzoo.load` and `genzoo.publish` under the names that others use.

    What is fetched is an entry, or nothing: never a pickle, no class beyond genzoo's, torch.nn's and those allowed.
    """

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, allow: tuple[type, ...] = ()
    ) -> Self:
        """The model of a repository, or of whatever `genzoo.load` takes; verified, on the CPU, in eval mode.

        Args:
            source: `owner/name`, a repository of the Hub, which the token of `hf auth login` or $HF_TOKEN opens if it
                is private; or a name, folder, address, checkpoint or run that is found here, which go first.
            revision: The branch, tag or commit of a repository.
            allow: Classes beyond genzoo's and torch.nn's that its configuration may name.

        Raises:
            FileNotFoundError, OSError, ValueError: as `genzoo.load`; and ValueError for a model of another class.
        """
        model = hub.load(_address(source, revision), revision=revision, allow=allow)
        if not isinstance(model, cls):
            made = type(model).__name__
            raise ValueError(f"{source} is a {made}, no {cls.__name__}: take {made}.from_pretrained, or genzoo.load")
        return model

    def push_to_hub(
        self,
        repository: str,
        *,
        name: str | None = None,
        private: bool | None = None,
        commit_message: str = "genzoo publish",
        data: Any = None,
        metrics: Mapping[str, Any] | None = None,
        card: Mapping[str, str] | None = None,
        dtype: "StoredAs" = "float32",
        allow: tuple[type, ...] = (),
    ) -> str:
        """Publishes the model to the Hub, as an entry.

        Args:
            repository: `owner/name`; it is made if there is none.
            name: The entry's, `<data>/<model>`, by whose data it is compared with others; None is what `data` are
                called, and the repository.
            private: Whether a repository that is made is private; None is as the owner's default.
            commit_message: Of the upload.
            data, metrics, card, dtype, allow: see `genzoo.publish`.

        Returns:
            The address that `genzoo.load` takes.

        Raises:
            ValueError: the model cannot be stated in a file, or an argument is not right; nothing was sent.
            OSError: the upload failed.
        """
        how: Any = {"data": data, "metrics": metrics, "card": card, "dtype": dtype, "allow": allow}
        sending = {"private": private, "commit_message": commit_message}
        if name is None:
            name = repository if data is None else hub.name_of(hub.called(data), repository)
        return str(hub.publish(self, name, to=f"hf://{repository}", sending=sending, **how))


def _address(source: str | Path, revision: str | None) -> str | Path:
    """`hf://owner/name` for what has that form and is not found here."""
    if not isinstance(source, str) or "://" in source or source.count("/") != 1 or not all(source.split("/")):
        return source
    here = revision is None and (source in {entry.name for entry in hub.list_models()} or at_home(source).exists())
    return source if here else f"hf://{source}"
