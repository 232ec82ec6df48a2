"""How fast batches of MNIST arrive: genzoo's loader against torchvision's dataset, ToTensor and DataLoader(4
workers).

    python benchmarks/feeding.py --root data

Both give shuffled batches of 128 as float32 in [0, 1] with labels, from the 60,000 training files under
`--root`, in turns within one run. A number is the batches of a whole epoch over its time, the start of the
workers included; the best of the rounds counts for each.
"""

import argparse
import time
from collections.abc import Iterable

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from genzoo.datamodules import MNISTDataModule

BATCH_SIZE = 128
ROUNDS = 3
LEAST_RATIO = 20


def batches_per_second(loader: Iterable) -> float:
    start, num = time.perf_counter(), 0
    for x, _ in loader:
        assert x.dtype == torch.float32 and x.shape[1:] == (1, 28, 28)
        num += 1
    return num / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="the folder that has MNIST/raw (default: data)")
    root = parser.parse_args().root
    try:
        theirs_data = datasets.MNIST(root, train=True, transform=transforms.ToTensor())
    except RuntimeError as error:
        raise SystemExit(f"MNIST is not in {root}/MNIST/raw: give the folder that has it by --root") from error

    ours = MNISTDataModule(root=root, batch_size=BATCH_SIZE).train_dataloader()
    drawn = MNISTDataModule(root=root, batch_size=BATCH_SIZE, binarize="dynamic").train_dataloader()
    theirs = DataLoader(theirs_data, BATCH_SIZE, shuffle=True, drop_last=True, num_workers=4)

    rates = {"torchvision, 4 workers": theirs, "genzoo": ours, "genzoo, dynamically binarised": drawn}
    best = dict.fromkeys(rates, 0.0)
    for _ in range(ROUNDS):
        for name, loader in rates.items():
            best[name] = max(best[name], batches_per_second(loader))
    base = best["torchvision, 4 workers"]
    for name, rate in best.items():
        print(f"{name:32}{rate:10,.0f} batches of {BATCH_SIZE} a second   {rate / base:6.1f} x")
    ratio = best["genzoo"] / base
    print(f"ratio {ratio:.1f}, expected at least {LEAST_RATIO}: {'met' if ratio >= LEAST_RATIO else 'MISSED'}")


if __name__ == "__main__":
    main()
