"""What of a model can leave it: functions of its networks, as modules that PyTorch can export."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Part(nn.Module):
    """One function of a model's networks.

    It is traced with a batch of unknown size: in it, that is `x.shape[0]`, because `len(x)` would be a constant.

    Args:
        model: whose weights it uses.
        function: tensors (B, ...) to a tensor, or to a tuple of them.
        inputs: an example of each input, by name, of a batch of two.
        outputs: the names of what it gives.
        facts: what else has to be known to use it, in a form that JSON has.
    """

    def __init__(
        self,
        model: Any,
        function: Callable[..., Any],
        inputs: Mapping[str, Tensor],
        outputs: tuple[str, ...],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.function = model, function
        self.inputs, self.outputs, self.facts = dict(inputs), outputs, dict(facts or {})

    def forward(self, *inputs: Tensor) -> Any:
        """What the function gives."""
        return self.function(*inputs)

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """The inputs, of another batch size."""
        return tuple(x[torch.arange(batch) % len(x)] for x in self.inputs.values())


def example(*size: int) -> Tensor:
    """Two draws of N(0, 1) of a size, the same each time."""
    return torch.randn(2, *size, generator=torch.Generator().manual_seed(0))


def label_of(model: Any) -> dict[str, Tensor]:
    """The input `label`, if the model is conditional."""
    return {} if model.num_classes is None else {"label": torch.arange(2) % model.num_classes}
