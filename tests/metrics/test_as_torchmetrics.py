"""Every metric is one of torchmetrics': update, compute, reset, copies, collections, processes, a Trainer's log."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, FAKE, FRECHET, REAL, Case
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, multiprocessing, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric, MetricCollection

import genzoo.metrics
from genzoo.metrics import (
    AnomalyAUROC,
    FeatureStatistics,
    FrechetDistance,
    KernelDistance,
    ManifoldScores,
    NegativeLogLikelihood,
    auroc,
    manifold_scores,
)

every_metric = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def updated(case: Case, metric: Metric | None = None) -> Metric:
    metric = case.make() if metric is None else metric
    for batch in case.updates:
        metric.update(**batch)
    return metric


def test_each_is_among_the_cases() -> None:
    public = {getattr(genzoo.metrics, name) for name in genzoo.metrics.__all__}
    metrics = {value for value in public if isinstance(value, type) and issubclass(value, Metric)}
    assert metrics == {type(case.make()) for case in CASES.values()}


def test_they_are_imported_when_they_are_used() -> None:
    code = "import sys, genzoo.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Accuracy'"):
        genzoo.metrics.Accuracy  # noqa: B018
    assert set(genzoo.metrics.__all__) <= set(dir(genzoo.metrics))


@every_metric
def test_over_batches_is_the_function_of_them_all(case: Case) -> None:
    metric = updated(case)
    assert case.values(metric) == pytest.approx(case.expected, rel=1e-11, abs=1e-13)
    errors = metric.standard_error() if hasattr(metric, "standard_error") else {}
    assert all(error >= 0 for error in (errors.values() if isinstance(errors, dict) else [errors]))


@every_metric
def test_reset_begins_anew_and_keeps_the_real_data(case: Case) -> None:
    metric = updated(case)
    metric.reset()
    again = [batch for batch in case.updates if not batch.get("real")]
    assert len(again) < len(case.updates) or "real" not in case.updates[0]
    for batch in again:
        metric.update(**batch)
    assert case.values(metric) == pytest.approx(case.expected, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("kind", [FrechetDistance, KernelDistance, ManifoldScores])
def test_reset_forgets_the_real_data_where_it_is_asked_to(kind: Any) -> None:
    metric = kind(reset_real_features=True)
    metric.update(REAL, real=True)
    metric.reset()
    metric.update(FAKE, real=False)
    with pytest.raises(ValueError, match=r"no real data|there are 0 real ones"):
        metric.compute()


@every_metric
def test_of_nothing_says_so(case: Case) -> None:
    with (
        pytest.warns(UserWarning, match="before the ``update``"),
        pytest.raises(ValueError, match=r"no|takes|0 real"),
    ):
        case.make().compute()


@every_metric
def test_calling_it_gives_the_batch_and_adds_it(case: Case) -> None:
    metric = case.make()
    *before, last = case.updates
    for batch in before:
        metric.update(**batch)
    alone = metric(**last)
    fresh = case.make()
    for batch in (*(b for b in before if b.get("real")), last):
        fresh.update(**batch)
    torch.testing.assert_close(alone, fresh.compute(), rtol=1e-11, atol=1e-13)
    assert case.values(metric) == pytest.approx(case.expected, rel=1e-11, abs=1e-13)


@every_metric
def test_copies_go_on_by_themselves(case: Case) -> None:
    """A pickle, a clone and a loaded state, of a metric in mid-course: whatever goes on, the others stay."""
    *before, last = case.updates
    metric = case.make()
    for batch in before:
        metric.update(**batch)
    metric.persistent(True)
    loaded = case.make()
    loaded.load_state_dict(metric.state_dict())
    loaded._update_count = metric._update_count  # torchmetrics does not store it, and warns without
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone(), loaded, metric):
        copy.update(**last)
        assert case.values(copy) == pytest.approx(case.expected, rel=1e-11, abs=1e-13)


@every_metric
def test_no_checkpoint_holds_its_states(case: Case) -> None:
    assert not updated(case).state_dict()


@every_metric
@pytest.mark.parametrize(
    "how", [Metric.half, lambda m: m.set_dtype(torch.float16), lambda m: nn.ModuleList([m]).half()]
)
def test_no_conversion_takes_its_precision(case: Case, how: Any) -> None:
    metric = case.make()
    first, *rest = case.updates
    metric.update(**first)
    how(metric)
    nn.ModuleList([metric]).to(torch.bfloat16)  # what a Trainer with precision="bf16-true" does
    for batch in rest:
        metric.update(**batch)
    assert case.values(metric) == pytest.approx(case.expected, rel=1e-11, abs=1e-13)


# ---- processes


def in_a_process(rank: int, folder: str, world_size: int) -> None:
    """Every process adds a share of the batches: the second one no real data, and of samples all but one batch."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    found = {}
    for name, case in CASES.items():
        metric = case.make()
        for batch in case.updates[:-1] if rank == 0 else case.updates[-1:]:
            metric.update(**batch)
        for _ in range(2):  # the states are apart again after the first time
            metric._computed = None
            values, error = case.values(metric), getattr(metric, "standard_error", dict)()
        metric.reset()
        if rank == 1:  # the samples of the first process alone would be none
            for batch in case.updates:
                if not batch.get("real"):
                    metric.update(**batch)
        again = case.values(metric)
        alone = updated(case, case.make(sync_on_compute=False))  # each process has seen everything
        found[name] = values, error, again, case.values(alone), getattr(alone, "standard_error", dict)()
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.start_processes(in_a_process, (str(folder), 2), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_come_to_what_one_does(name: str, by_two: list[dict[str, Any]]) -> None:
    case = CASES[name]
    one = getattr(updated(case), "standard_error", dict)()
    for rank in range(2):
        values, error, again, alone, alone_error = by_two[rank][name]
        for found in (values, again, alone):
            assert found == pytest.approx(case.expected, rel=1e-11, abs=1e-13)
        assert error == pytest.approx(one, rel=1e-9) and alone_error == pytest.approx(one, rel=1e-9)


# ---- collections and Trainers


class Halves(nn.Module):
    """An extractor: the means of the halves of each row."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        Halves.calls += 1
        return x.unflatten(1, (2, 3)).mean(2) * self.scale


def test_a_collection_shares_the_features_of_those_that_keep_them() -> None:
    metrics = MetricCollection({"kid": KernelDistance(Halves()), "prdc": ManifoldScores(Halves())})
    for epoch in range(2):
        for x in REAL.split(20) if epoch == 0 else []:
            metrics.update(x, real=True)
        Halves.calls = 0
        for x in FAKE.split(20):
            metrics.update(x, real=False)
        assert Halves.calls == 3  # and not 6: one group
        found = metrics.compute()
        halves = [Halves()(x).detach() for x in (REAL, FAKE)]
        assert {k: float(found[k]) for k in ("precision", "coverage")} == pytest.approx(
            {k: v for k, v in manifold_scores(*halves).items() if k in ("precision", "coverage")}
        )
        metrics.reset()


class Plain(LightningModule):
    """Anybody's module: its metrics are attributes, logged as Lightning has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1)
        self.frechet = FrechetDistance(Halves())
        self.auroc = AnomalyAUROC()
        self.together = MetricCollection({"kid": KernelDistance(), "nll": NegativeLogLikelihood()}, prefix="val/")
        self.scores = ManifoldScores()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def on_validation_epoch_start(self) -> None:
        if not self.frechet.real_moments:  # they stay
            self.frechet.update(REAL.to(self.dtype), real=True)
            for metric in (self.together["kid"], self.scores):
                metric.update(REAL, real=True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x = batch[0]
        self.frechet.update(x, real=False)
        self.log("val/frechet", self.frechet)
        self.scores.update(x, real=False)
        self.auroc.update(x[:, 0], odd=x[:, 1] > 0)
        self.log("val/auroc", self.auroc)
        self.together.update(x=x, real=False, log_prob=x.sum(1))
        self.log_dict(self.together)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value for name, value in self.scores.compute().items()})
        self.scores.reset()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


def test_in_a_bare_trainer_they_are_logged(tmp_path: Path) -> None:
    module = Plain()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(TensorDataset(FAKE), 20)
    trainer.fit(module, loader, loader)  # the second epoch's figures are those of the same samples
    halves = [FeatureStatistics.of(Halves()(x)) for x in (REAL, FAKE)]
    expected = {
        "val/frechet": genzoo.metrics.frechet_distance(*halves),
        "val/kid": genzoo.metrics.kernel_distance(REAL, FAKE)[0],
        "val/nll": -FAKE.sum(1).mean().item(),
        "val/auroc": auroc(*(FAKE[:, 0][(FAKE[:, 1] > 0) == odd] for odd in (False, True))),
        **{f"val/{name}": value for name, value in manifold_scores(REAL, FAKE).items()},
    }
    assert {name: float(value) for name, value in trainer.callback_metrics.items()} == pytest.approx(
        expected, rel=1e-6
    )
    assert not {name for name in module.state_dict() if not name.startswith("layer")}  # nor is the extractor there
    assert len(list(module.parameters())) == 2


def test_the_frechet_metric_factors_its_reference_anew_when_the_reference_changes() -> None:
    metric = FrechetDistance()
    metric.update(REAL[:30], real=True)
    metric.update(FAKE, real=False)
    metric.compute()
    reference = metric._reference
    metric.update(FAKE[:1], real=False)
    metric.compute()
    assert metric._reference is reference
    metric.reset()
    metric.update(REAL[30:], real=True)
    metric.update(FAKE, real=False)
    assert float(metric.compute()) == pytest.approx(FRECHET, rel=1e-11)
    summed = FrechetDistance()
    summed.update(FeatureStatistics.of(REAL), real=True)
    summed.update(FeatureStatistics.of(FAKE), real=False)
    assert float(summed.compute()) == pytest.approx(FRECHET, rel=1e-11)


def test_equals_torchmetrics_fid_on_the_same_extractor() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Six(nn.Module):
        num_features = 6

        def forward(self, x: Tensor) -> Tensor:
            return x.double().flatten(1)[:, ::32] / 255

    g = torch.Generator().manual_seed(0)
    theirs = FrechetInceptionDistance(Six(), input_img_size=(3, 8, 8), antialias=False).set_dtype(torch.float64)
    ours = FrechetDistance(Six())
    for real, top in ((True, 256), (False, 200)):
        for _ in range(3):
            x = torch.randint(0, top, (50, 3, 8, 8), dtype=torch.uint8, generator=g)
            theirs.update(x, real=real)
            ours.update(x, real=real)
    assert float(ours.compute()) == pytest.approx(float(theirs.compute()), rel=1e-8)


def test_bad_batches_are_refused() -> None:
    metric = FrechetDistance()
    metric.update(REAL, real=True)
    with pytest.raises(ValueError, match="Features of 5 dimensions cannot join those of 6"):
        metric.update(REAL[:, :5], real=True)
    with pytest.raises(ValueError, match="must be a matrix"):
        KernelDistance().update(REAL[None], real=True)
    with pytest.raises(ValueError, match="1 of 61 feature vectors are not finite"):
        KernelDistance().update(REAL / torch.arange(61)[:, None].clamp_max(1), real=True)
    nll = NegativeLogLikelihood()
    nll.update(torch.tensor([-1.0, float("nan")]))
    with pytest.raises(ValueError, match="NaN for 1 of 2 data"):
        nll.compute()
    nll.reset()
    nll.update(torch.tensor([-1.0, -float("inf")]))
    nll.update(torch.tensor([-1.0]))
    assert float(nll.compute()) == float("inf")  # a datum that is impossible
