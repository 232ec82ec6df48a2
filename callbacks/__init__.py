"""Callbacks for any LightningModule that has the capability they ask for, not only genzoo's."""

from genzoo.callbacks.ema import EMA
from genzoo.callbacks.frechet import FrechetDistance
from genzoo.callbacks.run_folder import run_folder
from genzoo.callbacks.samples import SampleLogger

__all__ = ["EMA", "FrechetDistance", "SampleLogger", "run_folder"]
