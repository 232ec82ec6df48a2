"""What a network of noisy data is told beside the data: how noisy they are, and of which class."""

import math

import torch
from torch import Tensor, nn

FREQUENCIES = 16  # sines and cosines of each, from a period of 8 units of c_noise, by thirds of an octave, to 1/4


class Conditioning(nn.Module):
    """A vector for each datum from its noise level and its class: an MLP of Fourier features plus an embedding.

    Args:
        features: of the vector.
        num_classes: how many classes there are; None: unconditional. The embedding has one row more, the last, for
            "no class", which classifier-free guidance (Ho & Salimans 2021) trains and samples with.

    Raises:
        ValueError: if num_classes is less than 1.
    """

    def __init__(self, features: int, num_classes: int | None = None) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: there is at least one class; None is for no labels.")
        self.noise = nn.Sequential(nn.Linear(2 * FREQUENCIES, features), nn.SiLU(), nn.Linear(features, features))
        self.num_classes = num_classes
        self.classes = nn.Embedding(num_classes + 1, features) if num_classes is not None else None

    def forward(self, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The vectors.

        Args:
            c_noise: (B,), any real measure of the noise level that is of order 1; in float32 where the weights are in
                half precision, which would not tell its angles apart.
            labels: (B,) int64 in [0, num_classes], num_classes for "no class"; None: no class for all.

        Returns:
            (B, features), in the weights' precision.

        Raises:
            ValueError: if labels are given to an unconditional network.
        """
        exact = c_noise if c_noise.dtype.itemsize >= 4 else c_noise.float()
        octaves = torch.arange(FREQUENCIES, device=exact.device, dtype=exact.dtype) / 3 - 3
        angles = exact[:, None] * (2 * math.pi * 2**octaves)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        h = self.noise(waves.to(next(self.noise.parameters()).dtype))
        if self.classes is None:
            if labels is not None:
                raise ValueError("labels were given to a network without classes: construct it with num_classes.")
            return h
        if labels is None:
            labels = torch.full(c_noise.shape, self.classes.num_embeddings - 1, device=c_noise.device)
        return h + self.classes(labels)
