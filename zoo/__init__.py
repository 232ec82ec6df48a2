"""The models. Each name is imported when it is first used, so that `genzoo list` does not wait for PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genzoo.zoo.classifier import Classifier as Classifier
    from genzoo.zoo.interface import ZooModule as ZooModule
    from genzoo.zoo.likelihoods import Bernoulli as Bernoulli
    from genzoo.zoo.likelihoods import Categorical as Categorical
    from genzoo.zoo.likelihoods import DiscretisedLogistic as DiscretisedLogistic
    from genzoo.zoo.likelihoods import Gaussian as Gaussian
    from genzoo.zoo.randomness import PerDatum as PerDatum
    from genzoo.zoo.vae import VAE as VAE

#: where each public name lives; the families first
_HOME = {
    "VAE": "vae",
    "Classifier": "classifier",
    "ZooModule": "interface",
    "Bernoulli": "likelihoods",
    "Categorical": "likelihoods",
    "DiscretisedLogistic": "likelihoods",
    "Gaussian": "likelihoods",
    "PerDatum": "randomness",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
