"""What a trainer costs: steps a second of `genzoo fit`, of a bare PyTorch loop, and of pythae's trainer.

    python benchmarks/trainer.py --root data

All train the perceptrons of the recipe `mnist/vae` on thresholded MNIST, in batches of 128, with AdamW. `genzoo fit`
and the loop take the same module, the same batches and, as the recipe does, bfloat16 autocast and the fused AdamW;
pythae is measured as it comes, in float32 and with PyTorch's default AdamW. So that it shows what comes from where,
`genzoo fit` is also run in float32, and pythae with the fused AdamW (autocast it has for CUDA only). `genzoo fit`
has what it has by default: progress bar, CSV logger, a checkpoint. Nothing is validated.

How the times are taken is said in `race.py`. Without MNIST under `--root`, random images of its shape and number take
its place.
"""

import argparse
import logging
import tempfile
from itertools import islice
from pathlib import Path

import torch
from race import Run, genzoo_fit, has_mnist, race, random_mnist
from torch import Tensor, nn

from genzoo.datamodules import MNISTDataModule
from genzoo.zoo import VAE
from genzoo.zoo.networks import MLP

BATCH_SIZE, WIDTH, DEPTH, LATENT_DIM, LR = 128, 512, 2, 40, 1e-3
SHORT, LONG = 50, 250  # steps
WANTED = {"bare loop": 0.9, "pythae": 2.0}  # how many times as fast `genzoo fit` should be

RECIPE = f"""\
model:
  class_path: VAE
  init_args:
    {{network: mlp, width: {WIDTH}, depth: {DEPTH}, latent_dim: {LATENT_DIM},
     optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: {LR}, weight_decay: 0.0, fused: true}}}}}}
data:
  class_path: MNISTDataModule
  init_args: {{batch_size: {BATCH_SIZE}, binarize: threshold}}
trainer: {{accelerator: cpu, limit_val_batches: 0, num_sanity_val_steps: 0}}
"""


def bare_loop(data: MNISTDataModule, steps: int) -> None:
    model = VAE(data.shape, data.levels, network="mlp", width=WIDTH, depth=DEPTH, latent_dim=LATENT_DIM)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
    for x, y in islice(data.train_dataloader(), steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.objective(x, y)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def pythae_trainer(folder: Path, x: Tensor, fused: bool) -> None:
    """Everything as pythae does it, but for the perceptrons, which are the same as in the VAE of genzoo."""
    from pythae.data.datasets import BaseDataset
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.models.vae import VAE as TheirVAE
    from pythae.models.vae import VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.net = MLP(x[0].numel(), 2 * LATENT_DIM, width=WIDTH, depth=DEPTH)

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_variance = self.net(2 * x - 1).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.net = MLP(LATENT_DIM, x[0].numel(), width=WIDTH, depth=DEPTH)

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z).sigmoid().unflatten(1, tuple(x.shape[1:])))

    config = VAEConfig(tuple(x.shape[1:]), latent_dim=LATENT_DIM, reconstruction_loss="bce")
    trainer = BaseTrainer(
        TheirVAE(config, Encoder(), Decoder()),
        BaseDataset(x, torch.zeros(len(x))),
        training_config=BaseTrainerConfig(
            output_dir=str(folder / "pythae"),
            per_device_train_batch_size=BATCH_SIZE,
            num_epochs=1,
            optimizer_cls="AdamW",
            optimizer_params={"weight_decay": 0.0, "fused": fused},
            learning_rate=LR,
            no_cuda=True,
        ),
    )
    trainer.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="the folder that has MNIST/raw (default: data)")
    parser.add_argument("--rounds", type=int, default=3, help="the best of how many (default: 3)")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as temporary:
        folder, root = Path(temporary), given.root
        if not has_mnist(root):
            root = str(folder)
            random_mnist(folder)
        data = MNISTDataModule(root, BATCH_SIZE, "threshold")
        x = torch.cat([x for x, _ in islice(data.train_dataloader(), LONG)])
        runs: dict[str, Run] = {
            "genzoo fit": lambda steps: genzoo_fit(folder, RECIPE, root, steps, "bf16-mixed"),
            "genzoo fit, float32": lambda steps: genzoo_fit(folder, RECIPE, root, steps, "32-true"),
            "bare loop": lambda steps: bare_loop(data, steps),
        }
        try:
            import pythae  # noqa: F401

            runs["pythae"] = lambda steps: pythae_trainer(folder, x[: steps * BATCH_SIZE], fused=False)
            runs["pythae, fused"] = lambda steps: pythae_trainer(folder, x[: steps * BATCH_SIZE], fused=True)
        except ModuleNotFoundError:
            print('pythae is not installed (pip install "genzoo[bench]"), so it is left out')

        print(f"\n{'random images' if root != given.root else 'MNIST'}: steps of {BATCH_SIZE}, in one thread")
        race(runs, short=SHORT, long=LONG, rounds=given.rounds, wanted=WANTED)


if __name__ == "__main__":
    main()
