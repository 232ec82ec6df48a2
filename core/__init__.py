"""genzoo: every family of generative model as a LightningModule behind one small interface.

`load` takes an entry of the zoo by name, folder or address; `list_models` lists them; `publish` makes one.
The families are in `genzoo.zoo`, the data in `genzoo.datamodules`, what is measured in `genzoo.metrics`, and what
watches a training in `genzoo.callbacks`.
"""

from typing import TYPE_CHECKING, Any

from genzoo.version import __version__

if TYPE_CHECKING:
    from genzoo.zoo.hub import list_models, load, publish

__all__ = ["__version__", "list_models", "load", "publish"]


def __getattr__(name: str) -> Any:
    # Resolved on first use (PEP 562), so that `import genzoo` and `genzoo --help` do not wait for torch.
    if name in {"list_models", "load", "publish"}:
        from genzoo.zoo import hub

        return getattr(hub, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
