"""What a network of noisy data is told beside the data: how noisy they are, and of which class."""

import math

import torch
from torch import Tensor, nn

FREQUENCIES = 16  # sines and cosines of each, from a period of 8 units of c_noise down to one of 1/4


class Conditioning(nn.Module):
    """A vector for each datum from its noise level and its class: an MLP of Fourier features plus an embedding.

    Args:
        features: of the vector.
        num_classes: how many classes there are; None: unconditional. The embedding has one row more, the last, for
            "no class", which classifier-free guidance (Ho & Salimans 2021) trains and samples with.

    Raises:
        ValueError: if num_classes is less than 1.
    """

    frequencies: Tensor

    def __init__(self, features: int, num_classes: int | None = None) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: there is at least one class; None is for no labels.")
        periods = torch.logspace(3, -2, FREQUENCIES, base=2)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)
        self.noise = nn.Sequential(nn.Linear(2 * FREQUENCIES, features), nn.SiLU(), nn.Linear(features, features))
        self.num_classes = num_classes
        self.classes = nn.Embedding(num_classes + 1, features) if num_classes is not None else None

    def forward(self, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The vectors.

        Args:
            c_noise: (B,), any real measure of the noise level that is of order 1.
            labels: (B,) int64 in [0, num_classes], num_classes for "no class"; None: no class for all.

        Returns:
            (B, features).

        Raises:
            ValueError: if labels are given to an unconditional network.
        """
        angles = c_noise.to(self.frequencies.dtype)[:, None] * self.frequencies
        h = self.noise(torch.cat([angles.cos(), angles.sin()], dim=1))
        if self.classes is None:
            if labels is not None:
                raise ValueError("labels were given to a network without classes: construct it with num_classes.")
            return h
        if labels is None:
            labels = torch.full(c_noise.shape, self.classes.num_embeddings - 1, device=c_noise.device)
        return h + self.classes(labels)
