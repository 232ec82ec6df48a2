"""Somebody else's LightningModule: it has `sample` and nothing else of genzoo's interface."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import TensorDataset


def points(n: int, seed: int) -> TensorDataset:
    """Pairs (x, y): grey 4 × 4 images in [0, 1] and labels."""
    g = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(n, 1, 4, 4, generator=g), torch.randint(0, 3, (n,), generator=g))


class Foreign(LightningModule):
    """A generator of grey 4 × 4 images, with batch normalisation, beside a frozen network."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 16))
        self.frozen = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).requires_grad_(False)
        self.lr = lr

    def sample(self, num_samples: int) -> Tensor:
        return self.net(torch.randn(num_samples, 3, device=self.device)).sigmoid().view(-1, 1, 4, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, _ = batch
        return (self.sample(len(x)) - x).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/size", float(len(batch[0])), batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], self.lr)


class TwoOptimizers(Foreign):
    """Steps one optimiser in every batch, and a second one in every third."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(16, 1)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        x, _ = batch
        for i, optimizer in enumerate(self.optimizers()):
            if i and batch_idx % 3:
                continue
            loss = self.critic((self.sample(len(x)) - x).flatten(1)).square().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(net.parameters(), 0.1) for net in (self.critic, self.net)]
