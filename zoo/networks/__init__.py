"""Backbones that know nothing of any family: tensors in, tensors out."""

from genzoo.zoo.networks.dcgan import DCGANDiscriminator as DCGANDiscriminator
from genzoo.zoo.networks.dcgan import DCGANGenerator as DCGANGenerator
from genzoo.zoo.networks.dit import DiT as DiT
from genzoo.zoo.networks.mlp import MLP as MLP
from genzoo.zoo.networks.r3gan import R3GANDiscriminator as R3GANDiscriminator
from genzoo.zoo.networks.r3gan import R3GANGenerator as R3GANGenerator
from genzoo.zoo.networks.resnet import ResNetDecoder as ResNetDecoder
from genzoo.zoo.networks.resnet import ResNetEncoder as ResNetEncoder
from genzoo.zoo.networks.resnet import SpatialDecoder as SpatialDecoder
from genzoo.zoo.networks.resnet import SpatialEncoder as SpatialEncoder
from genzoo.zoo.networks.timed_mlp import TimedMLP as TimedMLP
from genzoo.zoo.networks.unet import UNet as UNet

__all__ = [
    "MLP",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DiT",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "ResNetDecoder",
    "ResNetEncoder",
    "SpatialDecoder",
    "SpatialEncoder",
    "TimedMLP",
    "UNet",
]
