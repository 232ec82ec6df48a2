"""Callbacks for any LightningModule that has the capability they ask for, not only genzoo's."""

from genzoo.callbacks.ema import EMA
from genzoo.callbacks.even_validations import EvenValidations
from genzoo.callbacks.feature_loss import FeatureLoss
from genzoo.callbacks.forecast import Forecast
from genzoo.callbacks.frechet import FrechetDistance
from genzoo.callbacks.likelihood import LikelihoodLogger
from genzoo.callbacks.mode_coverage import ModeCoverage
from genzoo.callbacks.newest import Newest
from genzoo.callbacks.predictions import PredictionWriter
from genzoo.callbacks.publish import Publish
from genzoo.callbacks.samples import SampleLogger
from genzoo.callbacks.start_from import StartFrom
from genzoo.metrics.evaluation import evaluate
from genzoo.zoo.hub.run_folder import run_folder

__all__ = [
    "EMA",
    "EvenValidations",
    "FeatureLoss",
    "Forecast",
    "FrechetDistance",
    "LikelihoodLogger",
    "ModeCoverage",
    "Newest",
    "PredictionWriter",
    "Publish",
    "SampleLogger",
    "StartFrom",
    "evaluate",
    "run_folder",
]
