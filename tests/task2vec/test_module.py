"""The whole of an embedding: against brute force, both ways of running it, and what it refuses."""

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from oracles import network_fisher
from PIL import Image
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from small_probe import small_module, small_probe, striped
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.transforms import v2

from t2v_lightning import Embedding, ProbeNetwork, Task2Vec, embed
from t2v_lightning.functional.distances.rows import check_comparable
from t2v_lightning.phases import HeadOptions

EXACT: dict[str, Any] = {"sampling": "exact", "head": "lbfgs"}
QUICK = HeadOptions(epochs=1, num_samples=300)


def task(n: int = 24, **options: Any) -> Any:
    return striped(n, **options)


def quietly(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def fit(module: Task2Vec, data: Any, **options: Any) -> Embedding:
    trainer = quietly(**options)
    if isinstance(data, LightningDataModule):
        trainer.fit(module, datamodule=data)
    else:
        trainer.fit(module, data if isinstance(data, DataLoader) else DataLoader(data, batch_size=5))
    assert module.embedding is not None
    return module.embedding


def run_module(module: Task2Vec, data: Any, run: str) -> Embedding:
    return module.embed(data, progress=False) if run == "embed" else fit(module, data, precision="64-true")


def relative(a: Embedding, b: Embedding) -> float:
    """Largest error of an entry, relative to the norm over the root of the size."""
    return float(np.linalg.norm(a.fisher - b.fisher) / np.linalg.norm(b.fisher))


def brute_force(module: Task2Vec, items: Any, names: list[str] | None = None) -> np.ndarray[Any, Any]:
    """The vector by its definition, from the fitted head and w_n = 1 / (K * count(y_n))."""
    names = names or ["backbone.0.weight", "backbone.3.weight"]
    labels = [y for _, y in items]
    weights = torch.tensor([1 / (len(set(labels)) * labels.count(y)) for y in labels], dtype=torch.float64)
    probe = copy.deepcopy(module.probe).double().requires_grad_(True)
    images = torch.stack([image for image, _ in items]).double()
    fisher = network_fisher(probe, images, names, weights=weights)
    return torch.cat([fisher[name] for name in names]).numpy()


# --- the numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["embed", "fit"])
@pytest.mark.parametrize("head", ["lbfgs", QUICK], ids=["lbfgs", "adam"])
def test_the_embedding_is_the_fisher_of_its_definition(run: str, head: Any) -> None:
    module, items = Task2Vec(small_probe(), sampling="exact", head=head), task()
    embedding = run_module(module, items, run)
    np.testing.assert_allclose(embedding.fisher, brute_force(module, items), rtol=1e-9)
    assert embedding.layers == {"0": slice(0, 4), "3": slice(4, 10)}
    assert embedding.scale.tolist() == [1] * 10


def test_the_head_is_at_its_optimum_when_the_fisher_is_taken() -> None:
    """The classes that are few count as much as the others, in the head and in the average."""
    module, items = Task2Vec(small_probe(), **EXACT), task()
    embedding = module.embed(items, progress=False)
    probe = copy.deepcopy(module.probe).requires_grad_(True)
    labels = torch.tensor([y for _, y in items])
    weights = 1 / (3 * labels.bincount()[labels].double())
    outputs = probe(torch.stack([x for x, _ in items]))
    loss = (weights * nn.functional.cross_entropy(outputs, labels, reduction="none")).sum()
    gradients = torch.autograd.grad(
        loss + 5e-5 * sum(p.square().sum() for p in probe.head.parameters()), [*probe.head.parameters()]
    )
    assert max(float(g.abs().max()) for g in gradients) < 1e-7
    assert embedding.meta["head"]["loss"] == pytest.approx(float(loss), rel=1e-9)


@pytest.mark.parametrize("sampling", ["sign", "categorical", "exact", "empirical"])
@pytest.mark.parametrize("head", ["adam", "lbfgs"])
def test_a_trainer_gives_what_embed_gives(sampling: Any, head: str) -> None:
    options = {"sampling": sampling, "head": HeadOptions(head, epochs=1, num_samples=300)}  # type: ignore[arg-type]
    plain = Task2Vec(small_probe(), **options).embed(task(), progress=False, batch_size=7)
    fitted = fit(Task2Vec(small_probe(), **options), task(), precision="64-true")
    assert relative(fitted, plain) < 1e-9
    for name, tolerance in (("stderr", 1e-7), ("group_sums", 1e-5), ("group_weights", 1e-9)):
        np.testing.assert_allclose(getattr(fitted, name), getattr(plain, name), rtol=tolerance)
    for name in set(plain.meta) - {"dataset", "head", "relative_stderr"}:
        assert fitted.meta[name] == plain.meta[name], name


@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-6), (False, 1e-4)])
@pytest.mark.parametrize("sampling", ["sign", "exact"])
def test_batch_size_and_workers_do_not_matter(double: bool, tolerance: float, sampling: Any) -> None:
    items = task(double=double)

    def answer(batch_size: int, num_workers: int = 0) -> Embedding:
        module = Task2Vec(small_probe(double=double), sampling=sampling, head="lbfgs")
        return module.embed(items, batch_size=batch_size, num_workers=num_workers, progress=False)

    expected = answer(24)
    for batch_size in (1, 7, 64):
        assert relative(answer(batch_size), expected) < tolerance
    assert answer(7, num_workers=1) == answer(7)


@pytest.mark.parametrize(("precision", "tolerance"), [("64-true", 1e-6), ("32-true", 1e-4)])
def test_the_order_of_the_images_does_not_matter(precision: Any, tolerance: float) -> None:
    """Random vectors belong to an item of the dataset, so only the sums without them can be compared."""
    items = task(double=precision == "64-true")
    order = torch.randperm(len(items)).tolist()
    datasets: Any = (items, [items[i] for i in order])
    loaders = [DataLoader(data, batch_size=6, shuffle=True) for data in datasets]
    one, two = (
        fit(Task2Vec(small_probe(double=False), **EXACT), loader, precision=precision) for loader in loaders
    )
    assert relative(one, two) < tolerance


def test_a_second_call_gives_the_same_answer_to_the_last_digit() -> None:
    items, module = task(), Task2Vec(small_probe(), head=QUICK)
    first = module.embed(items, progress=False)
    module.embed(task(10), progress=False)  # another task in between leaves no trace
    assert module.embed(items, progress=False) == first
    assert Task2Vec(small_probe(), head=QUICK).embed(items, progress=False) == first
    assert embed(items, small_probe(), head=QUICK, progress=False) == first
    fitted = [fit(module, items), fit(module, items)]
    assert fitted[0] == fitted[1]


def test_the_seed_changes_head_and_vectors() -> None:
    one, two = (embed(task(), small_probe(), seed=s, head=QUICK, progress=False) for s in (0, 1))
    assert relative(one, two) > 1e-3
    assert (one.meta["seed"], two.meta["seed"]) == (0, 1)


def test_sign_and_categorical_come_nearer_to_exact_with_more_passes() -> None:
    items = task()
    exact = embed(items, small_probe(), progress=False, **EXACT)
    for sampling, passes in (("sign", 2), ("categorical", 64)):
        one, many = (
            embed(items, small_probe(), sampling=sampling, passes=k, head="lbfgs", progress=False)
            for k in (1, passes)
        )
        assert relative(many, exact) < relative(one, exact) / 3
        assert many.meta["passes"] == passes


def test_the_stated_error_covers_the_error_made() -> None:
    """Half of a task against all of it: within a few of the errors that are stated."""
    items = task(120)
    whole = embed(items, small_probe(), head="keep", progress=False, sampling="exact", num_classes=None)
    part = embed(items, small_probe(), head="keep", progress=False, sampling="exact", max_samples=40)
    assert part.stderr is not None
    z = (part.fisher - whole.fisher) / part.stderr
    assert 0.05 < float(np.sqrt((z**2).mean())) < 3
    assert part.relative_stderr > (whole.relative_stderr or 1)  # type: ignore[operator]


def test_enough_images_are_enough() -> None:
    """With a target for its standard error the pass ends early, the same way with and without a Trainer."""
    items = task(200)
    options: dict[str, Any] = {"sampling": "exact", "head": "lbfgs", "target_stderr": 0.4}
    whole = embed(items, small_probe(), progress=False, **EXACT)
    part = embed(items, small_probe(), batch_size=8, progress=False, **options)
    assert 64 <= part.meta["samples"] < 200
    assert part.meta["samples"] % 8 == 0
    assert part.relative_stderr <= 0.4  # type: ignore[operator]
    assert relative(part, whole) < 3 * part.relative_stderr  # type: ignore[operator]
    module = Task2Vec(small_probe(), **options)
    assert relative(fit(module, DataLoader(items, batch_size=8), precision="64-true"), part) < 1e-9
    assert module.embedding is not None
    assert module.embedding.meta["samples"] == part.meta["samples"]
    assert module.embed(items, batch_size=8, progress=False).meta["samples"] == part.meta["samples"]
    never = embed(items, small_probe(), progress=False, **{**options, "target_stderr": 1e-9})
    assert relative(never, whole) < 1e-9


def test_group_sums_add_up_to_the_vector() -> None:
    embedding = embed(task(), small_probe(), head=QUICK, progress=False)
    assert embedding.group_sums is not None
    assert embedding.group_weights is not None
    assert embedding.group_sums.shape == (16, 10)
    np.testing.assert_allclose(
        embedding.group_sums.sum(0) / embedding.group_weights.sum(), embedding.fisher, rtol=1e-5
    )


# --- the options ---------------------------------------------------------------------------------------------


def test_skipped_layers_are_left_out_and_the_rest_stays() -> None:
    items = task()
    whole, part = (embed(items, small_probe(), skip_layers=k, progress=False, **EXACT) for k in (0, 2))
    assert part.layers == {"3": slice(0, 6)}
    np.testing.assert_allclose(part.fisher, whole.layer("3"), rtol=1e-12)


def test_norm_weights_are_part_of_the_vector_when_asked_for() -> None:
    module, items = Task2Vec(small_probe(), include="weights+norm", **EXACT), task()
    embedding = module.embed(items, progress=False)
    assert list(embedding.layers) == ["0", "1", "3"]
    expected = brute_force(module, items, ["backbone.0.weight", "backbone.1.weight", "backbone.3.weight"])
    np.testing.assert_allclose(embedding.fisher, expected, rtol=1e-9)


def test_unbalanced_weights_count_every_image_the_same() -> None:
    module, items = Task2Vec(small_probe(), balanced=False, **EXACT), task()
    embedding = module.embed(items, progress=False)
    probe = copy.deepcopy(module.probe).requires_grad_(True)
    weights = torch.full((24,), 1 / 24, dtype=torch.float64)
    fisher = network_fisher(probe, torch.stack([x for x, _ in items]), ["backbone.0.weight"], weights=weights)
    np.testing.assert_allclose(embedding.layer("0"), fisher["backbone.0.weight"], rtol=1e-9)
    assert embedding.meta["balanced"] is False


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_other_likelihoods(likelihood: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 1, 8, 8, dtype=torch.float64, generator=generator)
    targets = images.mean((2, 3)) * torch.tensor([[3.0, -2.0, 1.0]]) + 0.1
    if likelihood == "bernoulli":
        targets = (targets > 0).double()
    dataset = TensorDataset(images, targets)
    module = Task2Vec(small_probe(), likelihood=likelihood, **EXACT)
    embedding = module.embed(dataset, progress=False)
    probe = copy.deepcopy(module.probe).requires_grad_(True)
    weights = torch.full((20,), 1 / 20, dtype=torch.float64)
    expected = network_fisher(probe, images, ["backbone.0.weight", "backbone.3.weight"], likelihood, weights)
    np.testing.assert_allclose(embedding.fisher, torch.cat(list(expected.values())), rtol=1e-9)
    assert embedding.meta["likelihood"] == likelihood
    assert embedding.meta["num_classes"] == 3
    assert (
        relative(
            fit(Task2Vec(small_probe(), likelihood=likelihood, **EXACT), dataset, precision="64-true"),
            embedding,
        )
        < 1e-9
    )


def test_fewer_images_are_a_stratified_choice() -> None:
    items = task(60)
    module = Task2Vec(small_probe(), max_samples=12, **EXACT)
    embedding = module.embed(items, progress=False)
    assert embedding.meta["samples"] == 12
    chosen = [items[i] for i in module.plan.selection.chosen.tolist()]
    labels = [y for _, y in chosen]
    assert sorted(labels.count(k) for k in range(3)) == [4, 4, 4]
    np.testing.assert_allclose(embedding.fisher, brute_force(module, chosen), rtol=1e-9)


def test_a_head_that_is_kept() -> None:
    probe, items = small_probe(classes=5), task()
    module = Task2Vec(probe, sampling="exact", head="keep")
    embedding = module.embed(items, progress=False)
    assert torch.equal(module.probe.head.weight, probe.head.weight)
    assert embedding.meta["num_classes"] == 5
    np.testing.assert_allclose(embedding.fisher, brute_force(module, items), rtol=1e-9)
    module.embed(items, progress=False)
    assert module.embed(items, progress=False) == embedding


def test_a_fixed_number_of_classes() -> None:
    embedding = embed(task(), small_probe(), num_classes=7, progress=False, **EXACT)
    assert embedding.meta["num_classes"] == 7


def test_labels_need_not_count_from_zero() -> None:
    items = task()
    names = {0: 17, 1: -4, 2: 900}
    renamed = embed(
        [(x, names[y]) for x, y in items], small_probe(), sampling="exact", head="lbfgs", progress=False
    )
    plain = embed(items, small_probe(), sampling="exact", head="lbfgs", progress=False)
    assert relative(renamed, plain) < 1e-6
    assert renamed.meta["classes"] == [-4, 17, 900]


@pytest.mark.parametrize("count", [1, 2])
def test_tasks_of_one_and_two_samples_a_class(count: int) -> None:
    items = [(torch.randn(1, 8, 8, dtype=torch.float64), k) for k in range(3) for _ in range(count)]
    for head in ("adam", "lbfgs"):
        options = HeadOptions(head, epochs=1, num_samples=100)
        embedding = embed(items, small_probe(), head=options, progress=False)
        assert embedding.meta["samples"] == 3 * count
        assert embedding.norm > 0


def test_more_classes_than_images_in_a_batch() -> None:
    items = [(torch.randn(1, 8, 8, dtype=torch.float64), k % 15) for k in range(30)]
    module = Task2Vec(small_probe(), **EXACT)
    embedding = module.embed(items, batch_size=4, progress=False)
    np.testing.assert_allclose(embedding.fisher, brute_force(module, items), rtol=1e-9)


# --- what the embedding says of itself -----------------------------------------------------------------------


def test_provenance() -> None:
    embedding = embed(
        task(), small_probe(), max_samples=12, skip_layers=1, seed=3, head=QUICK, progress=False
    )
    meta = embedding.meta
    expected = {
        "method": "montecarlo", "probe": "small", "likelihood": "softmax", "sampling": "sign", "passes": 1,
        "include": "weights", "skip_layers": 1, "balanced": True, "seed": 3, "samples": 12, "num_classes": 3,
        "probe_digest": small_probe().digest,
    }  # fmt: skip
    assert {name: meta[name] for name in expected} == expected
    assert meta["head"]["method"] == "adam"
    assert 0 <= meta["head"]["accuracy"] <= 1 + 1e-9
    assert meta["relative_stderr"] == pytest.approx(embedding.relative_stderr)
    assert set(meta["versions"]) == {"t2v_lightning", "torch", "lightning"}


def test_it_saves_and_loads(tmp_path: Any) -> None:
    embedding = embed(task(), small_probe(), head=QUICK, progress=False)
    embedding.save(tmp_path / "task.safetensors")
    assert Embedding.load(tmp_path / "task.safetensors") == embedding


def test_the_precision_of_the_arithmetic_does_not_make_it_another_probe() -> None:
    """Vectors of one probe can be compared, whatever `precision` they were computed in."""
    items = task(double=False)
    plain = embed(items, small_probe(double=False), head=QUICK, progress=False)
    for precision in ("64-true", "bf16-mixed"):
        fitted = fit(Task2Vec(small_probe(double=False), head=QUICK), items, precision=precision)
        assert fitted.meta["probe_digest"] == plain.meta["probe_digest"]
        check_comparable([plain, fitted])


# --- what is left alone --------------------------------------------------------------------------------------


def everything(probe: nn.Module) -> dict[str, Any]:
    return {
        "state": {name: value.clone() for name, value in probe.state_dict().items()},
        "mode": [m.training for m in probe.modules()],
        "flags": [p.requires_grad for p in probe.parameters()],
        "grads": [p.grad for p in probe.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in probe.modules()],
        "devices": [(p.device, p.dtype) for p in probe.parameters()],
    }


def unchanged(probe: nn.Module, before: dict[str, Any]) -> bool:
    now = everything(probe)
    state = now.pop("state")
    earlier = before.pop("state")
    return (
        state.keys() == earlier.keys()
        and all(torch.equal(state[name], earlier[name]) for name in state)
        and now == before
    )


@pytest.mark.parametrize("kind", ["probe", "module in train mode"])
@pytest.mark.parametrize("run", ["embed", "fit", "failed"])
def test_the_callers_network_is_untouched(kind: str, run: str) -> None:
    network: nn.Module = small_probe(double=False) if kind == "probe" else Padded(small_module())
    if kind != "probe":
        network.train()
        network.body[0].bias.requires_grad_(False)  # type: ignore[index, union-attr]
    before, state = everything(network), torch.get_rng_state()
    module = Task2Vec(network, head=QUICK)
    items = (
        task(8, double=False)
        if kind == "probe"
        else [(x.expand(3, 8, 8), y) for x, y in task(8, double=False)]
    )
    if run == "embed":
        module.embed(items, progress=False)
        assert torch.equal(torch.get_rng_state(), state)
    elif run == "fit":
        fit(module, items, precision="64-true")
    else:
        items[5][0].fill_(float("nan")) if kind == "probe" else items.__setitem__(5, (items[5][0] / 0, 1))
        with pytest.raises(ValueError, match="NaN"):
            module.embed(items, progress=False)
    assert unchanged(network, before)


class Padded(nn.Module):
    """Takes images of any size and three channels, so that it can be made a probe without telling its size."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x.mean(1, keepdim=True))
        return y


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_embedding_where_gradients_are_switched_off(context: Any) -> None:
    items, probe = task(), small_probe()
    expected = embed(items, probe, head=QUICK, progress=False)
    with context():
        assert embed(items, probe, head=QUICK, progress=False) == expected


def test_batch_norm_statistics_do_not_move_in_a_fit() -> None:
    module = Task2Vec(small_probe(double=False), head=QUICK)
    before = module.probe.digest
    fit(module, task(double=False))
    assert module.probe.digest == before
    assert not any(m.training for m in module.probe.modules())


# --- what data it takes --------------------------------------------------------------------------------------


class Plain(LightningDataModule):
    """Somebody's datamodule, with its own batch size, shuffling and collate function."""

    def __init__(self, dataset: Any, **options: Any) -> None:
        super().__init__()
        self.dataset, self.options, self.calls = dataset, options, list[str]()

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        self.calls.append(f"setup {stage}")
        self.train = self.dataset

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, **{"batch_size": 6, "shuffle": True, **self.options})


def test_somebodys_loader_and_datamodule_give_what_the_dataset_gives() -> None:
    items = task()
    expected = embed(items, small_probe(), progress=False, **EXACT)
    loader = DataLoader(items, batch_size=7, shuffle=True, drop_last=True)
    assert relative(fit(Task2Vec(small_probe(), **EXACT), loader, precision="64-true"), expected) < 1e-9
    assert relative(embed(loader, small_probe(), progress=False, **EXACT), expected) < 1e-9
    module = Plain(items)
    assert relative(fit(Task2Vec(small_probe(), **EXACT), module, precision="64-true"), expected) < 1e-9
    embedded = Plain(items)
    assert relative(Task2Vec(small_probe(), **EXACT).embed(embedded, progress=False), expected) < 1e-9
    assert embedded.calls == ["prepare_data", "setup fit"]


def wide(items: list[Any]) -> Any:
    """Cuts images to one size, as a collate function may."""
    return torch.stack([image[:, :8, :8] for image, _ in items]), torch.tensor([int(y) for _, y in items])


@pytest.mark.parametrize("run", ["embed", "fit"])
def test_somebodys_collate_function_is_used_either_way(run: str) -> None:
    items = [(torch.cat([x, x[:, : i % 2 * 3]], 1), y) for i, (x, y) in enumerate(task())]
    data, module = Plain(items, collate_fn=wide), Task2Vec(small_probe(), **EXACT)
    assert (
        relative(run_module(module, data, run), embed(task(), small_probe(), progress=False, **EXACT)) < 1e-9
    )
    if run == "embed":
        loader = data.train_dataloader()
        assert (
            module.embed(loader, progress=False).fisher.tolist()
            == module.embed(data, progress=False).fisher.tolist()
        )


def test_a_loader_with_workers_and_a_batch_sampler() -> None:
    items = task()
    sampler = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(items), 4, drop_last=True)
    loader = DataLoader(items, batch_sampler=sampler, num_workers=1, persistent_workers=True)
    module = Task2Vec(small_probe(), **EXACT)
    assert (
        relative(
            fit(module, loader, precision="64-true"), embed(items, small_probe(), progress=False, **EXACT)
        )
        < 1e-9
    )
    assert module.plan.reader.options.batch_size == 4
    assert module.plan.reader.options.persistent_workers


@pytest.mark.parametrize("run", ["embed", "fit"])
@pytest.mark.parametrize("kind", ["loader", "list of items", "batch sampler", "datamodule"])
def test_a_loader_over_a_part_of_its_dataset(run: str, kind: str) -> None:
    """The other part is often that for validation."""
    items, part = task(40), list(range(0, 40, 2))
    sampler = torch.utils.data.SubsetRandomSampler(part)
    options: dict[str, Any] = {"sampler": sampler, "shuffle": None}
    if kind == "list of items":
        options["sampler"] = part
    if kind == "batch sampler":
        batches = torch.utils.data.BatchSampler(sampler, 4, drop_last=True)
        options = {"batch_sampler": batches, "shuffle": None, "batch_size": 1}
    data: Any = Plain(items, **options)
    data.train = items
    module = Task2Vec(small_probe(), **EXACT)
    embedding = run_module(module, data if kind == "datamodule" else data.train_dataloader(), run)
    assert embedding.meta["samples"] == 20
    assert relative(embedding, embed(Subset(items, part), small_probe(), progress=False, **EXACT)) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_come_to_the_precision_of_the_probe_either_way(dtype: torch.dtype) -> None:
    items = [(x.to(dtype), y) for x, y in task()]
    module = Task2Vec(small_probe(double=False), **EXACT)
    assert (
        relative(fit(module, items), embed(items, small_probe(double=False), progress=False, **EXACT)) < 1e-4
    )


def test_pil_images_get_the_probes_own_transform() -> None:
    class Pictures(Dataset[Any]):
        targets = [0, 1] * 4

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            return Image.fromarray(
                np.random.default_rng(index).integers(0, 255, (9, 12), np.uint8)
            ), index % 2

    probe = small_probe(double=False)
    tensors = [(probe.transform(image), y) for image, y in (Pictures()[i] for i in range(8))]
    assert embed(Pictures(), probe, head=QUICK, progress=False).fisher.tolist() == (
        embed(tensors, probe, head=QUICK, progress=False).fisher.tolist()
    )


def test_parts_of_datasets() -> None:
    items = task()
    part = Subset(items, list(range(0, 24, 2)))
    expected = embed([items[i] for i in part.indices], small_probe(), progress=False, **EXACT)
    assert relative(embed(part, small_probe(), progress=False, **EXACT), expected) < 1e-9
    halves: Any = ConcatDataset([Subset(items, list(range(12))), Subset(items, list(range(12, 24)))])
    whole = embed(items, small_probe(), progress=False, **EXACT)
    assert relative(embed(halves, small_probe(), progress=False, **EXACT), whole) < 1e-9


def test_the_name_of_the_task_is_the_datamodules() -> None:
    class Named(Plain):
        name, task_name, task_id, family, likelihood = "birds", "birds of prey", 3, "birds", "softmax"

    for embedding in (
        Task2Vec(small_probe(double=False), head=QUICK).embed(Named(task(double=False)), progress=False),
        fit(Task2Vec(small_probe(double=False), head=QUICK), Named(task(double=False))),
    ):
        assert embedding.meta["dataset"] == "birds"
        assert embedding.meta["task_id"] == 3
        assert embedding.meta["family"] == "birds"
        assert embedding.task_name == "birds of prey"


def test_the_datamodules_likelihood_is_taken() -> None:
    class Labels(Plain):
        likelihood = "bernoulli"

    images = torch.randn(10, 1, 8, 8)
    data = TensorDataset(images, (images.mean((2, 3)) > 0).float())
    assert (
        Task2Vec(small_probe(double=False), head=QUICK).embed(Labels(data), progress=False).meta["likelihood"]
        == "bernoulli"
    )


RANDOM: dict[str, Callable[[], Any]] = {
    "crop": lambda: transforms.RandomResizedCrop(8),
    "flip inside": lambda: transforms.Compose([transforms.Resize(8), transforms.RandomHorizontalFlip()]),
    "colours": lambda: transforms.ColorJitter(0.2),
    "augment": lambda: transforms.RandAugment(),
    "auto augment": lambda: transforms.AutoAugment(),
    "erase": lambda: v2.Compose([v2.RandomErasing()]),
    "apply": lambda: v2.RandomApply([v2.GaussianBlur(3)], 0.5),
    "blur": lambda: transforms.GaussianBlur(3),
    "elastic": lambda: v2.ElasticTransform(),
}


class Transformed(Dataset[Any]):
    def __init__(self, transform: Any) -> None:
        self.transform, self.targets = transform, [y for _, y in task(8)]

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return task(8, double=False)[index]


@pytest.mark.parametrize("case", RANDOM)
@pytest.mark.parametrize("inside", ["alone", "subset", "join"])
def test_random_transforms_are_warned_about(case: str, inside: str, caplog: pytest.LogCaptureFixture) -> None:
    dataset: Any = Transformed(RANDOM[case]())
    if inside != "alone":
        dataset = Subset(dataset, range(8)) if inside == "subset" else ConcatDataset([dataset, dataset])
    with caplog.at_level(logging.WARNING):
        embed(dataset, small_probe(double=False), head=QUICK, progress=False)
    assert "transform is random" in caplog.text


def test_plain_transforms_are_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    dataset = Transformed(
        transforms.Compose([transforms.Resize(8), transforms.CenterCrop(8), transforms.ToTensor()])
    )
    with caplog.at_level(logging.WARNING):
        embed(dataset, small_probe(double=False), head="lbfgs", progress=False)
    assert "random" not in caplog.text


# --- what a Trainer does around it ---------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [{"max_epochs": 1}, {"max_epochs": 50}, {"max_epochs": -1}, {}], ids=str)
def test_the_number_of_epochs_is_set_by_the_phases(epochs: dict[str, int]) -> None:
    module = Task2Vec(small_probe(double=False), head=QUICK)
    trainer = quietly(**epochs)
    trainer.fit(module, DataLoader(task(double=False), batch_size=5))
    assert trainer.current_epoch == 2
    assert module.embedding is not None


def test_a_callback_of_the_caller_sees_an_ordinary_fit() -> None:
    class Notes(Callback):
        def __init__(self) -> None:
            self.batches: list[int] = []

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            self.batches.append(len(batch[1]))

    notes = Notes()
    fit(Task2Vec(small_probe(double=False), head=QUICK), task(double=False), callbacks=[notes])
    assert notes.batches == [5, 5, 5, 5, 4] * 2


def test_the_trainer_can_be_used_again_and_the_module_too() -> None:
    items = task(double=False)
    module, trainer = Task2Vec(small_probe(double=False), head=QUICK), quietly()
    loader = DataLoader(items, batch_size=5)
    trainer.fit(module, loader)
    first = module.embedding
    trainer = quietly()
    trainer.fit(module, loader)
    assert module.embedding == first
    assert len(loader) == 5
    assert next(iter(loader))[1].tolist() == [y for _, y in items[:5]]


REFUSED: dict[str, dict[str, Any]] = {
    "fast_dev_run": {"fast_dev_run": True},
    "max_steps": {"max_steps": 3},
    "limit_train_batches as a share": {"limit_train_batches": 0.5},
    "limit_train_batches as a number": {"limit_train_batches": 2},
    "limit_train_batches of one batch": {"limit_train_batches": 1},
    "overfit_batches": {"overfit_batches": 1},
    "gradient_clip_val": {"gradient_clip_val": 1.0},
    "accumulate_grad_batches": {"accumulate_grad_batches": 2},
}


@pytest.mark.parametrize("case", REFUSED)
def test_trainer_options_that_would_change_the_answer_are_refused(case: str) -> None:
    module = Task2Vec(small_probe(double=False), head=QUICK)
    name = case.split(" ")[0]
    # Lightning itself refuses first what it never allows together with manual optimisation
    with pytest.raises((ValueError, MisconfigurationException), match=rf"Trainer\({name}="):
        quietly(**REFUSED[case]).fit(module, DataLoader(task(double=False), batch_size=5))
    assert module.embedding is None


@pytest.mark.parametrize(
    "options", [{"gradient_clip_val": 0.0}, {"gradient_clip_val": 0}, {"overfit_batches": 0}], ids=str
)
def test_trainer_options_that_are_off_are_accepted(options: dict[str, Any]) -> None:
    module, plain = (Task2Vec(small_probe(double=False), head=QUICK) for _ in range(2))
    quietly(**options).fit(module, DataLoader(task(double=False), batch_size=5))
    quietly().fit(plain, DataLoader(task(double=False), batch_size=5))
    assert module.embedding == plain.embedding


@pytest.mark.parametrize("call", ["validate", "test", "predict"])
def test_only_fit_makes_sense(call: str) -> None:
    with pytest.raises(Exception, match=r"fit|_step|forward"):
        getattr(quietly(), call)(Task2Vec(small_probe(double=False)), DataLoader(task(double=False)))


def test_a_fit_that_ends_without_embedding_says_why() -> None:
    class Stops(Callback):
        def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
            trainer.should_stop = True

    module = Task2Vec(small_probe(double=False), head=QUICK)
    with pytest.raises(RuntimeError, match=r"embedding|not seen"):
        fit(module, task(double=False), callbacks=[Stops()])
    assert module.embedding is None


# --- bad input -----------------------------------------------------------------------------------------------


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(task(8))


class SizedStream(Stream):
    def __len__(self) -> int:
        return 8


X = torch.zeros(1, 8, 8)


class Labelled(Dataset[Any]):
    """Its labels can be read without its items."""

    targets = [0, 1] * 4

    def __init__(self, item: Callable[[Tensor], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.item(X)


BAD_DATA: dict[str, tuple[Any, type[Exception], str]] = {
    "stream": (Stream(), TypeError, r"must be map-style.*got Stream"),
    "stream with a length": (SizedStream(), TypeError, r"must be map-style.*got SizedStream"),
    "empty": ([], ValueError, "the dataset is empty"),
    "one class": ([(X, 3), (X, 3)], ValueError, "the one label 3"),
    "float targets": ([(X, 0.0), (X, 1.0)], TypeError, "one integer class"),
    "no labels": ([X, X], TypeError, r"not a pair \(image, target\)"),
    "no targets": ([(X, None), (X, None)], TypeError, "cannot be read as numbers"),
    "NaN": ([(X, 0), (X / 0, 1)], ValueError, "image 1 of the dataset holds NaN"),
    "channels": ([(X.expand(3, 8, 8), 0), (X, 1)], ValueError, r"shape \(3, 8, 8\); the probe 'small' takes"),
    "a dict an image": (
        Labelled(lambda x: {"image": x, "label": 0}),
        TypeError,
        "item 0 of .* is a dict, not a pair",
    ),
    "three an image": (Labelled(lambda x: (x, 0, 7)), TypeError, "item 0 of .* is a tuple of 3, not a pair"),
    "images alone": (
        Labelled(lambda x: x),
        TypeError,
        r"item 0 of .* is a Tensor of shape \(1, 8, 8\), not a pair",
    ),
    "bytes": ([(X.byte(), 0), (X.byte(), 1)], ValueError, "image 0 of the dataset is a torch.uint8"),
    "arrays": ([(X.numpy(), 0), (X.numpy(), 1)], TypeError, "PIL image, got ndarray"),
    "shapes": ([(X, 0), (torch.zeros(1, 9, 8), 1)], ValueError, "differ in shape"),
    "a bytes image later": ([(X, 0), (X.byte(), 1)], ValueError, "image 1 of the dataset is a torch.uint8"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_datasets_that_cannot_be_embedded(case: str) -> None:
    dataset, error, text = BAD_DATA[case]
    module = Task2Vec(small_probe(double=False), head=QUICK)
    with pytest.raises(error, match=text):
        module.embed(dataset, progress=False)
    assert module.embedding is None


@pytest.mark.parametrize("case", ["stream", "stream with a length", "one class", "no labels", "NaN"])
def test_a_trainer_tells_the_same(case: str) -> None:
    dataset, error, text = BAD_DATA[case]
    with pytest.raises(error, match=text):
        quietly().fit(Task2Vec(small_probe(double=False), head=QUICK), DataLoader(dataset, batch_size=2))


LOADERS: dict[str, Callable[[DataLoader[Any]], Any]] = {
    "list": lambda loader: [loader, loader],
    "dict": lambda loader: {"one": loader},
    "CombinedLoader": lambda loader: CombinedLoader([loader, loader], "sequential"),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_several_loaders_are_refused(kind: str) -> None:
    loaders = LOADERS[kind](DataLoader(task(double=False)))
    with pytest.raises(TypeError, match=f"one DataLoader.*got {kind}"):
        quietly().fit(Task2Vec(small_probe(double=False)), loaders)


def test_a_fit_without_data_is_refused() -> None:
    with pytest.raises(TypeError, match="given no data; pass datamodule="):
        quietly().fit(Task2Vec(small_probe(double=False)))


COLLATED: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "a dict": (lambda x, y: {"image": x, "label": y}, "6 items into a dict;"),
    "images alone": (lambda x, y: x, "6 items into a Tensor;"),
    "targets first": (lambda x, y: (y, x), r"6 items into a tuple of torch\.int64 \[6\];"),
    "fewer images": (lambda x, y: (x[:2], y[:2]), r"6 items into a tuple of torch\.float32 \[2, 1, 8, 8\];"),
}


@pytest.mark.parametrize("case", COLLATED)
def test_batches_of_another_form_are_refused(case: str) -> None:
    make, text = COLLATED[case]

    def collate(items: list[Any]) -> Any:
        return make(*torch.utils.data.default_collate(items))

    loader = DataLoader(task(double=False), batch_size=6, collate_fn=collate)
    with pytest.raises(TypeError, match=text):
        quietly().fit(Task2Vec(small_probe(double=False), head=QUICK), loader)


def test_labels_beyond_the_head() -> None:
    items = [(x, y + 4) for x, y in task()]
    for options in ({"head": "keep"}, {"num_classes": 5}):
        with pytest.raises(ValueError, match=r"labels range over 4\.\.6 but the head has 5 outputs"):
            embed(items, small_probe(classes=5), progress=False, **options)


def test_fewer_images_than_classes() -> None:
    with pytest.raises(ValueError, match="max_samples=2 cannot hold all 3 classes"):
        embed(task(), small_probe(), max_samples=2, progress=False)


BAD_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "method": ({"method": "laplace"}, ValueError, "unknown method 'laplace'; allowed are .*montecarlo"),
    "sampling": ({"sampling": "signs"}, ValueError, "unknown sampling 'signs'; allowed are exact, sign"),
    "likelihood": (
        {"likelihood": "poisson"},
        ValueError,
        "unknown likelihood 'poisson'; allowed are softmax",
    ),
    "include": ({"include": "bias"}, ValueError, "unknown include 'bias'; allowed are"),
    "head": ({"head": "sgd"}, ValueError, "unknown head 'sgd'; allowed are adam, lbfgs, keep"),
    "passes": ({"passes": 0}, ValueError, "passes=0"),
    "passes of exact": ({"sampling": "exact", "passes": 2}, ValueError, "passes=2"),
    "target_stderr": ({"target_stderr": 0.0}, ValueError, "target_stderr=0.0"),
    "target_stderr in percent": ({"target_stderr": 5}, ValueError, "target_stderr=5; .*between 0 and 1"),
    "max_samples": ({"max_samples": 1}, ValueError, "max_samples=1"),
    "head as a dict": ({"head": {"method": "adam"}}, TypeError, "head.*HeadOptions"),
    "skip_layers": ({"skip_layers": 99}, ValueError, r"skip_layers=99 leaves no weights.*allowed are 0 to"),
    "negative skip_layers": ({"skip_layers": -1}, ValueError, "allowed are 0 to"),
    "unknown option": ({"samples": 3}, TypeError, "samples"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options_that_make_no_sense_are_told_at_once(case: str) -> None:
    options, error, text = BAD_OPTIONS[case]
    with pytest.raises(error, match=text):
        Task2Vec(small_probe(), **options)


def test_a_network_that_is_no_classifier() -> None:
    with pytest.raises(ValueError, match="no final Linear head"):
        Task2Vec(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    with pytest.raises(TypeError, match=r"not the name 'resnet18': get_probe\('resnet18'\) makes one"):
        Task2Vec("resnet18")  # type: ignore[arg-type]


def test_an_unknown_device_is_told_before_the_images_are_read() -> None:
    class Counted(Transformed):
        opened = 0

        def __getitem__(self, index: int) -> Any:
            self.opened += 1
            return super().__getitem__(index)

    dataset = Counted(None)
    with pytest.raises(RuntimeError, match="gpu"):
        embed(dataset, small_probe(double=False), device="gpu:0", progress=False)
    assert dataset.opened <= 1


def test_a_probe_of_one_class_is_enough() -> None:
    """The head is replaced, whatever it was."""
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 1))
    probe = ProbeNetwork.from_module(module, input_size=(1, 8, 8))
    assert embed(task(8, double=False), probe, head=QUICK, progress=False).meta["num_classes"] == 3
