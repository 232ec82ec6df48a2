"""The likelihood of a whole split, at every validation."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from genzoo.callbacks.at_validation import AtValidation
from genzoo.metrics.data import SPLITS, Rows, first_batch
from genzoo.metrics.likelihood import likelihood_of
from genzoo.zoo.checks import check_count
from genzoo.zoo.drawing import seeded, supported
from genzoo.zoo.interface import HasLogProb

KINDS = {"exact": "exact", "lower_bound": "bound", "estimate": "estimate"}  # log_prob_kind, as it is logged


class LikelihoodLogger(AtValidation):
    """Logs the negative log-likelihood of a whole split, sharper than training can afford.

    The names say what the number is. With `log_prob_kind` "lower_bound" and 100 particles they are
    `val/nll_bound_k100` (nats; an upper bound on −log p) and `val/bits_per_dim_bound_k100`; an exact
    likelihood is `val/nll_exact`, an estimate `val/nll_estimate_k100`; of a `log_prob` that takes no number of
    particles, `val/nll_bound`. Bits per dimension are left out for continuous data.

    Each datum counts once, also in a ragged last batch and over several processes. It is logged when `AtValidation`
    says: at validations, without them at the end of training epochs, and at the end of the run; of averaged weights,
    if there is an `EMA`.

    Args:
        num_particles: K of the bound; a model with an exact likelihood ignores it.
        split: "train", "val" or "test".
        every_n_epochs: at every n-th epoch's validation, and at the end.
        seed: of the noise.

    Raises:
        ValueError: at construction on arguments out of range; before training if the module has no `log_prob`, or
            there is no such split.
    """

    def __init__(self, num_particles: int = 100, split: str = "val", every_n_epochs: int = 1, seed: int = 0) -> None:
        super().__init__(every_n_epochs)
        if split not in SPLITS:
            raise ValueError(f"LikelihoodLogger: split={split!r} must be one of {', '.join(SPLITS)}.")
        check_count("LikelihoodLogger: num_particles", num_particles)
        check_count("LikelihoodLogger: seed", seed, 0)
        self.num_particles = num_particles
        self.split = split
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a module that has no likelihood, and a split that is not there, before training starts."""
        if not isinstance(pl_module, HasLogProb):
            raise ValueError(
                f"LikelihoodLogger: {type(pl_module).__name__} has no likelihood (`log_prob`, `bits_per_dim`"
                " and `log_prob_kind`). Take the callback away."
            )
        if stage in (TrainerFn.FITTING, TrainerFn.VALIDATING):
            first_batch(trainer, self.split, "LikelihoodLogger: split")

    def act(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Evaluates on all ranks, each its share; the same on each."""
        assert isinstance(module, HasLogProb)  # setup has seen to it
        with seeded(self.seed):  # reading data may draw, too
            data = Rows(trainer, self.split)
            result = likelihood_of(module, data, num_particles=self.num_particles, seed=self.seed)
        kind = KINDS[module.log_prob_kind]
        drawn = "num_particles" in supported(module.log_prob, num_particles=self.num_particles)
        suffix = f"{kind}_k{self.num_particles}" if drawn and kind != "exact" else kind
        figures = {f"{self.split}/nll_{suffix}": result.nll}
        if result.bits_per_dim is not None:
            figures[f"{self.split}/bits_per_dim_{suffix}"] = result.bits_per_dim
        return figures
