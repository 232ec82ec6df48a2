"""Training a diffusion model: steps a second of `genzoo fit` and of denoising-diffusion-pytorch's own trainer.

    python benchmarks/diffusion.py --root data

All train on the same images of MNIST, in batches of 128, in one thread, with gradients clipped and an average of the
weights kept. `genzoo fit` trains `DDPM` as the recipes do, in bfloat16 autocast; so that it shows what comes from
where, also in float32. denoising-diffusion-pytorch is measured as it comes, its `Trainer` in float32 on its `Unet` of
nearly as many parameters; then with our `UNet` under its `GaussianDiffusion` and `Trainer`; and then also with the
autocast that its `Trainer` can be asked for. Its images are PNG files, as it reads them, and its workers' time is not
counted. How the times are taken is said in `race.py`. Without MNIST under `--root`, random images take its place.
"""

import argparse
import logging
import os
import tempfile
from pathlib import Path

import torch
from race import Run, genzoo_fit, has_mnist, race, random_mnist
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from genzoo.datamodules import MNISTDataModule
from genzoo.zoo.networks import UNet

BATCH_SIZE, LR = 128, 1e-3
WIDTH, MULTIPLIERS = 48, (1, 2)  # 0.62 M parameters
THEIR_DIM, THEIR_MULTIPLIERS = 20, (1, 2, 2)  # 0.60 M parameters
SHORT, LONG = 2, 12  # steps

RECIPE = f"""\
model:
  class_path: DDPM
  init_args:
    width: {WIDTH}
    multipliers: {list(MULTIPLIERS)}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: {LR}}}}}
data: {{class_path: MNISTDataModule, init_args: {{batch_size: {BATCH_SIZE}}}}}
trainer:
  accelerator: cpu
  limit_val_batches: 0
  num_sanity_val_steps: 0
  gradient_clip_val: 200
  callbacks: [{{class_path: EMA, init_args: {{decay: 0.995}}}}]
"""


class OurUNet(nn.Module):
    """A `UNet` with what `GaussianDiffusion` asks of its network."""

    channels = out_dim = 1
    self_condition = random_or_learned_sinusoidal_cond = False

    def __init__(self) -> None:
        super().__init__()
        self.net = UNet((1, 28, 28), width=WIDTH, multipliers=MULTIPLIERS)

    def forward(self, x: Tensor, time: Tensor, x_self_cond: None = None) -> Tensor:
        return self.net(x, time / 250 - 2)


def their_trainer(folder: Path, images: Path, ours: bool, amp: bool, steps: int) -> None:
    from accelerate.state import AcceleratorState
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    AcceleratorState._reset_state(reset_partial_state=True)  # or it refuses another precision in one process
    network = OurUNet() if ours else Unet(THEIR_DIM, dim_mults=THEIR_MULTIPLIERS, channels=1)
    Trainer(
        GaussianDiffusion(network, image_size=28, objective="pred_noise"),
        str(images),
        train_batch_size=BATCH_SIZE,
        train_lr=LR,
        train_num_steps=steps,
        augment_horizontal_flip=False,
        save_and_sample_every=steps + 1,
        calculate_fid=False,
        results_folder=str(folder / "results"),
        amp=amp,
        mixed_precision_type="bf16",
    ).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="the folder that has MNIST/raw (default: data)")
    parser.add_argument("--rounds", type=int, default=2, help="the best of how many (default: 2)")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    os.environ["ACCELERATE_USE_CPU"] = "true"

    with tempfile.TemporaryDirectory() as temporary:
        folder, root = Path(temporary), given.root
        if not has_mnist(root):
            root = str(folder)
            random_mnist(folder)
        x, _ = next(iter(MNISTDataModule(root, BATCH_SIZE * LONG).train_dataloader()))
        (folder / "images").mkdir()
        for i, image in enumerate(x):
            to_pil_image(image).save(folder / "images" / f"{i}.png")

        runs: dict[str, Run] = {
            "genzoo fit": lambda steps: genzoo_fit(folder, RECIPE, root, steps, "bf16-mixed"),
            "genzoo fit, float32": lambda steps: genzoo_fit(folder, RECIPE, root, steps, "32-true"),
        }
        try:
            import denoising_diffusion_pytorch  # noqa: F401

            theirs = {
                "denoising-diffusion-pytorch": (False, False),
                "with our UNet": (True, False),
                "with our UNet, bfloat16": (True, True),
            }
            for name, (ours, amp) in theirs.items():
                runs[name] = lambda n, ours=ours, amp=amp: their_trainer(folder, folder / "images", ours, amp, n)
        except ModuleNotFoundError:
            print('denoising-diffusion-pytorch is not installed (pip install "genzoo[bench]"), so it is left out')

        print(f"{'MNIST' if root == given.root else 'random images'}: steps of {BATCH_SIZE}, in one thread")
        wanted = {"denoising-diffusion-pytorch": 1.5, "with our UNet": 1.5}
        race(runs, short=SHORT, long=LONG, rounds=given.rounds, wanted=wanted)


if __name__ == "__main__":
    main()
