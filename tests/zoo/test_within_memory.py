"""What a network would take is known, and too much of it refused, before there is any of it."""

import resource
from types import SimpleNamespace

import pytest
import torch
from families import FIRST

from genzoo.zoo import (
    DDPM,
    GAN,
    GPT,
    MADE,
    VAE,
    Autoencoder,
    Classifier,
    FlowMatching,
    PixelCNN,
    WaveNet,
    memory,
)
from genzoo.zoo.memory import bytes_of, memory_at_hand, only_to_use, within_memory
from genzoo.zoo.module import ZooModule
from genzoo.zoo.networks import MLP

KIB, GIB = 2**10, 2**30
IMAGE, POINT = (3, 12, 12), (2,)
V1, V2 = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"


@pytest.fixture
def there(monkeypatch):
    """Sets how much memory there is."""

    def sets(size: int | None) -> None:
        monkeypatch.setattr(memory, "memory_at_hand", lambda needed: size)

    return sets


def test_a_made_of_large_colour_images_is_refused_before_it_takes_any_memory(there) -> None:
    """D = 49,152 dimensions, two hidden layers of as many units, 256 outputs for each: ten terabytes."""
    there(64 * GIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"takes 9,8\d\d\.\d GiB to train.*are 64\.0 GiB.*PixelCNN") as refusal:
        MADE((3, 128, 128), 256)
    assert "\n" not in str(refusal.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10  # in KiB; a mask has 2.3 GiB


def test_what_a_made_takes_is_four_numbers_for_each_weight_and_its_masks() -> None:
    d, w, k = 6, 10, 5
    model = MADE((1, 2, 3), k, width=w, depth=2)
    weights = (d + 1) * w + (w + 1) * w + (w + 1) * d * k
    assert sum(p.numel() for p in model.parameters()) == weights
    assert bytes_of(model) == 16 * weights + d * w + w * w + w * d * k
    with only_to_use():
        assert bytes_of(model) == 4 * weights + d * w + w * w + w * d * k


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: MADE(IMAGE, 2), ["network"]),
        (lambda: MADE(POINT, None), ["network"]),
        (lambda: VAE(IMAGE, 2), ["encoder", "decoder"]),
        (lambda: VAE(IMAGE, 2, network="mlp"), ["encoder", "decoder"]),
        (lambda: Autoencoder(POINT, None), ["encoder", "decoder"]),
        (lambda: GAN(IMAGE, 2), ["generator", "discriminator"]),
        (lambda: GAN(IMAGE, 2, network="dcgan"), ["generator", "discriminator"]),
        (lambda: GAN(POINT, None), ["generator", "discriminator"]),
        (lambda: DDPM(IMAGE, 256), ["network"]),
        (lambda: FlowMatching(POINT, None), ["network"]),
        (lambda: GPT((12,), 5), ["embedding", "transformer"]),
        (lambda: PixelCNN(IMAGE, 256), ["layers", "features", "outlet"]),
        (lambda: WaveNet((1, 12), 256), ["inlet", "layers", "skip", "outlet"]),
        (lambda: Classifier(IMAGE, 256, num_classes=3), ["trunk", "embed"]),
    ],
)
def test_every_network_is_built_with_the_memory_that_it_takes_and_refused_with_less(there, build, parts) -> None:
    there(None)  # nobody knows
    model: ZooModule = build()
    needed = sum(bytes_of(getattr(model, part)) for part in parts)
    there(needed)
    build()
    there(needed - 1)
    with pytest.raises(ValueError, match=r"^A network of [\d,]+ weights takes .* GiB to train, .*: choose "):
        build()
    with only_to_use():
        build()


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_every_family_is_refused_where_there_is_no_memory(there, case) -> None:
    there(1)
    with pytest.raises(ValueError, match=r"^A network of [\d,]+ weights takes .*: choose "):
        case.build()


def test_what_is_tried_first_draws_nothing(there) -> None:
    """The weights of a seed are those that they were."""
    there(GIB)
    torch.manual_seed(0)
    ours = within_memory(lambda: MLP(3, 5), "something else")
    torch.manual_seed(0)
    for p, q in zip(ours.parameters(), MLP(3, 5).parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/proc/meminfo": "MemTotal: 90 kB\nMemAvailable:   50 kB"}, 50 * KIB),
        ({"/proc/meminfo": "MemAvailable: 50 kB", V2: "max"}, 50 * KIB),
        ({"/proc/meminfo": "MemAvailable: 50 kB", V2: "2048"}, 2 * KIB),
        (
            {"/proc/meminfo": "MemAvailable: 50 kB", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "99999999"},
            50 * KIB,
        ),
        ({V1: "4096"}, 4 * KIB),
        ({}, None),
    ],
)
def test_the_memory_at_hand_is_what_the_kernel_says_within_the_container_s(monkeypatch, files, expected) -> None:
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(path, "").splitlines())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert memory_at_hand(KIB**4) == expected


def test_a_gpu_is_asked_only_where_this_machine_s_memory_is_less_than_is_needed(monkeypatch) -> None:
    """It starts CUDA, after which no process can be forked for another GPU."""
    asked = []

    def properties(device: int) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(total_memory=8 * GIB)

    monkeypatch.setattr(memory, "_lines", lambda path: ["MemAvailable: 1024 kB"] if "meminfo" in path else [])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    assert memory_at_hand(1000 * KIB) == 1024 * KIB and not asked
    assert memory_at_hand(GIB) == 8 * GIB and asked == [0, 1]
