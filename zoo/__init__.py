"""The models. Each name is imported when it is first used, so that `genzoo list` does not wait for PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genzoo.zoo.autoregressive.gpt import GPT as GPT
    from genzoo.zoo.autoregressive.made import MADE as MADE
    from genzoo.zoo.autoregressive.pixelcnn import PixelCNN as PixelCNN
    from genzoo.zoo.autoregressive.wavenet import WaveNet as WaveNet
    from genzoo.zoo.classifier import Classifier as Classifier
    from genzoo.zoo.diffusion.masked import MaskedDiffusion as MaskedDiffusion
    from genzoo.zoo.diffusion.modules import DDPM as DDPM
    from genzoo.zoo.diffusion.modules import FlowMatching as FlowMatching
    from genzoo.zoo.diffusion.modules import ScoreModel as ScoreModel
    from genzoo.zoo.diffusion.schedules import CosineBetas as CosineBetas
    from genzoo.zoo.diffusion.schedules import LinearBetas as LinearBetas
    from genzoo.zoo.diffusion.schedules import OptimalTransport as OptimalTransport
    from genzoo.zoo.diffusion.schedules import VarianceExploding as VarianceExploding
    from genzoo.zoo.diffusion.schedules import VariancePreserving as VariancePreserving
    from genzoo.zoo.diffusion.solvers import DDIM as DDIM
    from genzoo.zoo.diffusion.solvers import Ancestral as Ancestral
    from genzoo.zoo.diffusion.solvers import DPMSolver as DPMSolver
    from genzoo.zoo.diffusion.solvers import Euler as Euler
    from genzoo.zoo.diffusion.solvers import Heun as Heun
    from genzoo.zoo.diffusion.solvers import PredictorCorrector as PredictorCorrector
    from genzoo.zoo.diffusion.weighting import P2 as P2
    from genzoo.zoo.diffusion.weighting import SNR as SNR
    from genzoo.zoo.diffusion.weighting import LikelihoodWeighting as LikelihoodWeighting
    from genzoo.zoo.diffusion.weighting import MinSNR as MinSNR
    from genzoo.zoo.diffusion.weighting import Simple as Simple
    from genzoo.zoo.gan.losses import Hinge as Hinge
    from genzoo.zoo.gan.losses import LeastSquares as LeastSquares
    from genzoo.zoo.gan.losses import NonSaturating as NonSaturating
    from genzoo.zoo.gan.losses import Relativistic as Relativistic
    from genzoo.zoo.gan.losses import Wasserstein as Wasserstein
    from genzoo.zoo.gan.module import GAN as GAN
    from genzoo.zoo.gan.regularisers import R1 as R1
    from genzoo.zoo.gan.regularisers import R2 as R2
    from genzoo.zoo.gan.regularisers import GradientPenalty as GradientPenalty
    from genzoo.zoo.gan.regularisers import Packing as Packing
    from genzoo.zoo.gan.regularisers import SpectralNorm as SpectralNorm
    from genzoo.zoo.latent.autoencoder import Autoencoder as Autoencoder
    from genzoo.zoo.latent.autoencoder import DenoisingAutoencoder as DenoisingAutoencoder
    from genzoo.zoo.latent.autoencoder import GaussianNoise as GaussianNoise
    from genzoo.zoo.latent.autoencoder import Masking as Masking
    from genzoo.zoo.latent.quantised import QuantisedAutoencoder as QuantisedAutoencoder
    from genzoo.zoo.latent.quantisers import FSQ as FSQ
    from genzoo.zoo.latent.quantisers import VQ as VQ
    from genzoo.zoo.latent.vae import VAE as VAE
    from genzoo.zoo.learning_rates import Cosine as Cosine
    from genzoo.zoo.learning_rates import OneCycle as OneCycle
    from genzoo.zoo.learning_rates import WarmUp as WarmUp
    from genzoo.zoo.likelihoods import Bernoulli as Bernoulli
    from genzoo.zoo.likelihoods import Categorical as Categorical
    from genzoo.zoo.likelihoods import DiscretisedLogistic as DiscretisedLogistic
    from genzoo.zoo.likelihoods import Gaussian as Gaussian
    from genzoo.zoo.logistic_mixture import LogisticMixture as LogisticMixture
    from genzoo.zoo.module import ZooModule as ZooModule
    from genzoo.zoo.muon import Muon as Muon
    from genzoo.zoo.randomness import PerDatum as PerDatum
    from genzoo.zoo.two_stage.latent_model import LatentModel as LatentModel

#: where each public name lives; the families first
_HOME = {
    "Autoencoder": "latent.autoencoder",
    "DenoisingAutoencoder": "latent.autoencoder",
    "QuantisedAutoencoder": "latent.quantised",
    "VAE": "latent.vae",
    "GAN": "gan.module",
    "MADE": "autoregressive.made",
    "PixelCNN": "autoregressive.pixelcnn",
    "GPT": "autoregressive.gpt",
    "WaveNet": "autoregressive.wavenet",
    "DDPM": "diffusion.modules",
    "ScoreModel": "diffusion.modules",
    "FlowMatching": "diffusion.modules",
    "MaskedDiffusion": "diffusion.masked",
    "LatentModel": "two_stage.latent_model",
    "Classifier": "classifier",
    "ZooModule": "module",
    "FSQ": "latent.quantisers",
    "VQ": "latent.quantisers",
    "Bernoulli": "likelihoods",
    "Categorical": "likelihoods",
    "DiscretisedLogistic": "likelihoods",
    "Gaussian": "likelihoods",
    "GaussianNoise": "latent.autoencoder",
    "GradientPenalty": "gan.regularisers",
    "Hinge": "gan.losses",
    "LeastSquares": "gan.losses",
    "LogisticMixture": "logistic_mixture",
    "Masking": "latent.autoencoder",
    "NonSaturating": "gan.losses",
    "Packing": "gan.regularisers",
    "R1": "gan.regularisers",
    "R2": "gan.regularisers",
    "Relativistic": "gan.losses",
    "SpectralNorm": "gan.regularisers",
    "Wasserstein": "gan.losses",
    "CosineBetas": "diffusion.schedules",
    "LinearBetas": "diffusion.schedules",
    "OptimalTransport": "diffusion.schedules",
    "VarianceExploding": "diffusion.schedules",
    "VariancePreserving": "diffusion.schedules",
    "Ancestral": "diffusion.solvers",
    "DDIM": "diffusion.solvers",
    "DPMSolver": "diffusion.solvers",
    "Euler": "diffusion.solvers",
    "Heun": "diffusion.solvers",
    "PredictorCorrector": "diffusion.solvers",
    "LikelihoodWeighting": "diffusion.weighting",
    "MinSNR": "diffusion.weighting",
    "P2": "diffusion.weighting",
    "SNR": "diffusion.weighting",
    "Simple": "diffusion.weighting",
    "Cosine": "learning_rates",
    "OneCycle": "learning_rates",
    "WarmUp": "learning_rates",
    "Muon": "muon",
    "PerDatum": "randomness",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
