"""What is measured: features in, numbers out. Nothing here knows of a family, only of capabilities.

Each measure is a function of what it compares, and a `torchmetrics.Metric` over batches and processes that calls it.
Each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genzoo.metrics.anomalies import AnomalyAUROC as AnomalyAUROC
    from genzoo.metrics.anomalies import auroc as auroc
    from genzoo.metrics.copying import memorisation as memorisation
    from genzoo.metrics.evaluation import evaluate as evaluate
    from genzoo.metrics.extractors import FeatureExtractor as FeatureExtractor
    from genzoo.metrics.frechet import FeatureStatistics as FeatureStatistics
    from genzoo.metrics.frechet import FrechetDistance as FrechetDistance
    from genzoo.metrics.frechet import frechet_distance as frechet_distance
    from genzoo.metrics.kernel import KernelDistance as KernelDistance
    from genzoo.metrics.kernel import kernel_distance as kernel_distance
    from genzoo.metrics.likelihood import BitsPerDim as BitsPerDim
    from genzoo.metrics.likelihood import NegativeLogLikelihood as NegativeLogLikelihood
    from genzoo.metrics.likelihood import likelihood_of as likelihood_of
    from genzoo.metrics.manifold import ManifoldScores as ManifoldScores
    from genzoo.metrics.manifold import manifold_scores as manifold_scores
    from genzoo.metrics.modes import ModeCoverage as ModeCoverage
    from genzoo.metrics.modes import mode_coverage as mode_coverage

#: where each public name lives; the metrics first
_HOME = {
    "FrechetDistance": "frechet",
    "KernelDistance": "kernel",
    "ManifoldScores": "manifold",
    "ModeCoverage": "modes",
    "AnomalyAUROC": "anomalies",
    "NegativeLogLikelihood": "likelihood",
    "BitsPerDim": "likelihood",
    "FeatureExtractor": "extractors",
    "FeatureStatistics": "frechet",
    "auroc": "anomalies",
    "evaluate": "evaluation",
    "frechet_distance": "frechet",
    "kernel_distance": "kernel",
    "likelihood_of": "likelihood",
    "manifold_scores": "manifold",
    "memorisation": "copying",
    "mode_coverage": "modes",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
