"""Callbacks for any LightningModule that has the capability they ask for, not only genzoo's."""

from genzoo.callbacks.ema import EMA
from genzoo.callbacks.evaluation import evaluate
from genzoo.callbacks.frechet import FrechetDistance
from genzoo.callbacks.likelihood import LikelihoodLogger
from genzoo.callbacks.mode_coverage import ModeCoverage
from genzoo.callbacks.publish import Publish
from genzoo.callbacks.run_folder import run_folder
from genzoo.callbacks.samples import SampleLogger
from genzoo.callbacks.start_from import StartFrom

__all__ = [
    "EMA",
    "FrechetDistance",
    "LikelihoodLogger",
    "ModeCoverage",
    "Publish",
    "SampleLogger",
    "StartFrom",
    "evaluate",
    "run_folder",
]
