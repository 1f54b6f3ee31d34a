"""Task2Vec as a LightningModule: one fit, phase after phase."""

import copy
import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import nn

from t2v_lightning.callbacks.progress import EmbedProgress
from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.likelihood import LikelihoodName, get_likelihood
from t2v_lightning.loading.hooks import warn_random_hooks
from t2v_lightning.loading.items import Key, is_stream
from t2v_lightning.loading.loader import LoaderOptions
from t2v_lightning.loading.random_transforms import warn_random_transforms
from t2v_lightning.loading.selection import check_map_style, select_images
from t2v_lightning.loading.targets import targets_of_items
from t2v_lightning.loading.users import dataset_of, one_loader, open_source
from t2v_lightning.phases import HeadOptions
from t2v_lightning.phases.methods import MethodName
from t2v_lightning.phases.options import HeadMethod
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.task2vec.evaluation import Evaluation, evaluate, held_out_source
from t2v_lightning.task2vec.lightning_fit import LightningFit
from t2v_lightning.task2vec.options import EmbeddingOptions, choose_likelihood
from t2v_lightning.task2vec.plain_loop import run_plan
from t2v_lightning.task2vec.plan import Plan, describe_task
from t2v_lightning.task2vec.sources import as_probe, as_task
from t2v_lightning.task2vec.streams import sampled


class Task2Vec(LightningFit):
    """Embeds a labelled image dataset with a pretrained probe (Achille et al., ICCV 2019, arXiv 1902.03545).

    Fits a new head on the task, then takes the diagonal Fisher information of the probe's filters. Either
    `embed(dataset)` in a plain loop on one device, or `Trainer.fit(module, datamodule)` with everything that
    Lightning offers; `embedding` then holds the result.

    Args:
        probe: a `ProbeNetwork`, any classifier that `ProbeNetwork.from_module` takes, or a name for `get_probe`. It is
            copied.
        method: "montecarlo" squares the gradients of each image; "variational" learns how much noise each
            filter bears, while the head is trained with noisy weights.
        likelihood: "softmax" (classes), "bernoulli" (labels) or "gaussian" (regression); None takes the
            datamodule's own, or softmax. "next_token" is for a probe that is a language model, whose backbone gives a
            vector for each token, and what None takes for one that was made with `pooling="none"`; labels of the
            sequences are not used.
        max_samples: at most this many images, a seeded stratified subset; None for all.
        balanced: every class counts the same, whatever its number of images (softmax only).
        skip_layers: stage of the probe at which the vector starts; earlier stages cost no gradients.
        num_classes: fixes the number of outputs; None counts the classes that occur.
        head: how the head is fitted: `HeadOptions`, or the name of a method with its defaults. None for "adam", or for
            "keep" with the likelihood of a language model.
        features_budget: GB of stored features that memory may hold; more go to a memory-mapped file in the run
            folder, which is removed afterwards. None for no limit.
        seed: fixes subset, order, head and every random vector.
        options: of the method: `sampling`, `passes`, `target_stderr`, `include`, `token_table` and `squares`
            (`phases.MonteCarloOptions`), or `init`, `epochs`, `beta`, `noise_lr`, `head_lr`, `num_samples` and
            `update_norm` (`phases.VariationalOptions`).

    Raises:
        ValueError, TypeError: an option is out of range; the message says what is allowed.

    >>> from t2v_lightning.probes import ProbeNetwork
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 9))
    >>> probe = ProbeNetwork.from_module(net, input_size=(1, 8, 8))
    >>> task = [(torch.full((1, 8, 8), float(i)), i % 2) for i in range(6)]
    >>> Task2Vec(probe, passes=2).embed(task, progress=False)
    Embedding('list', 4 entries, 1 layers, norm=...)
    """

    def __init__(
        self,
        probe: ProbeNetwork | nn.Module | str,
        method: MethodName = "montecarlo",
        *,
        likelihood: LikelihoodName | None = None,
        max_samples: int | None = 10_000,
        balanced: bool = True,
        skip_layers: int = 0,
        num_classes: int | None = None,
        head: HeadOptions | HeadMethod | None = None,
        features_budget: float | None = 4.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = EmbeddingOptions.of(
            method,
            head,
            likelihood=likelihood,
            max_samples=max_samples,
            balanced=balanced,
            skip_layers=skip_layers,
            num_classes=num_classes,
            features_budget=features_budget,
            seed=seed,
            **options,
        )
        probe = as_probe(probe)
        if not isinstance(probe, ProbeNetwork):
            probe = ProbeNetwork.from_module(probe)
        probe.stage_parameters(skip_layers)  # raises when the stage does not exist
        with torch.inference_mode(False):
            self.probe = copy.deepcopy(probe)
        self.save_hyperparameters(
            {"task2vec": {"probe": probe.name, **self.options.named()}},
            logger=False,  # on_fit_start gives them to loggers
            frame=inspect.currentframe(),  # Lightning's own way to it leaves a cycle that keeps the network in memory
        )
        self.probe_digest = probe.digest  # here, as a Trainer may change the precision of the weights
        self.probe.backbone.requires_grad_(False)
        self._original_head = (copy.deepcopy(self.probe.head),)  # in a tuple it is not part of the module

    def prepare(
        self,
        source: Any,
        loading: LoaderOptions,
        processes: int = 1,
        meta: dict[str, Any] | None = None,
        hooked: Sequence[Any] | None = None,
        before: Plan | None = None,
        dev_batches: int = 0,
        stream_cache: str | Path | None = None,
        progress: bool = False,
    ) -> Plan:
        """Chooses images, checks everything that can be checked early, and gives the probe the head to fit.

        Args:
            source: the dataset, or a LightningDataModule that has been set up (its train split is taken).
            loading: how batches are made.
            processes: that share the images, each with a copy of this module.
            meta: what is known about the task; None takes what the source says.
            hooked: the datamodule and module whose hooks change batches on their way to the device; None takes the
                source and this module, and warns if their hooks are random.
            before: this module's last plan, if the weights of its probe are the same as then: what was found out
                about the network is used again.
            dev_batches: of each phase in a development run (`Trainer(fast_dev_run=...)`); 0 for the whole task.
            stream_cache: where what is kept of a stream stays; None for a temporary folder.
            progress: show how far a stream has been read.

        Returns:
            The plan, on this module's probe; the next plan takes its place.
        """
        options = self.options
        dataset = (
            dataset_of(one_loader(source.train_dataloader()))
            if isinstance(source, LightningDataModule)
            else source
        )
        if not is_stream(dataset):
            check_map_style(dataset)
            warn_random_transforms(dataset)
        if options.likelihood == "gaussian" and getattr(source, "likelihood", None) == "softmax":
            raise ValueError(
                f"got likelihood='gaussian' for {type(source).__name__}, whose targets are numbers of classes; make it "
                "give real numbers (likelihood='gaussian' to image_folder and hf), or leave out the likelihood"
            )
        likelihood = choose_likelihood(options.likelihood, source, self.probe)
        options = options.under(likelihood)
        kind = get_likelihood(likelihood)
        kept = self._original_head[0] if options.head.method == "keep" or kind.of_inputs else None
        if is_stream(dataset):
            dataset = sampled(
                dataset,
                options,
                likelihood,
                loading.num_workers,
                stream_cache,
                self.run_folder,
                processes,
                progress,
            )
        selection = select_images(
            dataset,
            likelihood=likelihood,
            balanced=options.balanced,
            max_samples=options.max_samples,
            num_classes=options.num_classes if kept is None else kept.out_features,
            seed=options.seed,
            targets=torch.zeros(len(dataset), 1) if kind.of_inputs else targets_of_items(dataset, kind),
        )
        if kind.of_inputs:
            selection = replace(selection, num_classes=self.probe.num_classes)
        if dev_batches:
            few = dev_batches * loading.batch_size * processes
            selection, options = selection.first(few, options.seed), options.shortened(few)
        if kept is None:
            self.probe.reset_head(selection.num_classes, torch.Generator().manual_seed(options.seed))
        elif not self._shares_head(options):
            head = copy.deepcopy(kept)
            if options.head.method == "bias" and head.bias is None:
                head.register_parameter("bias", nn.Parameter(head.weight.new_zeros(head.out_features)))
            self.probe.head = head.to(self.probe.head.weight.device)
        self.embedding = None
        of_datamodule = isinstance(source, LightningDataModule)
        plan = Plan(
            self.probe,
            self.probe_digest,
            options,
            selection,
            dataset,
            loading,
            describe_task(source, dataset) if meta is None else meta,
            processes,
            self.run_folder,
            ([source, self] if of_datamodule else [self]) if hooked is None else hooked,
            before,
            dev_batches,
        )
        if hooked is None:
            warn_random_hooks(plan.hooks, plan.random_hooks)
        return plan

    def _shares_head(self, options: EmbeddingOptions) -> bool:
        """Whether the head stays one weight with the table of tokens: neither fitted nor measured apart from it."""
        counted = getattr(options.own, "token_table", False)
        return bool(self.probe.tied) and options.head.method == "keep" and not counted

    def embed(
        self,
        dataset: Any,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        num_workers: int | None = None,
        progress: bool = True,
        test: Any = None,
        image_key: Key | None = None,
        target_key: Key | None = None,
        stream_cache: str | Path | None = None,
    ) -> Embedding:
        """Embeds a dataset on one device, without a Trainer.

        Args:
            dataset: map-style, of (image, target): PIL images, or float tensors [C, H, W] that the probe takes; of
                (text, target) for a language model; or a LightningDataModule or DataLoader over such a dataset, a
                `datasets.Dataset`, a folder or table of images, or the name of a datamodule. Of a stream (an
                `IterableDataset`, or anything else to iterate over) a sample of `max_samples` items is kept, see
                `loading.streams.sample_stream`.
            device: "auto" takes a GPU if there is one.
            batch_size: images per batch; changes speed and memory only, except that the variational method takes a
                step for each batch, so that its embeddings compare at one size. None takes that of the DataLoader, 64
                for a dataset.
            num_workers: processes that read images; 0 reads them in this one. None takes that of the DataLoader, 0
                for a dataset.
            progress: show a progress bar.
            test: other images of the task, as a dataset or DataLoader, or a datamodule with a test split. How the
                fitted head does on them goes into `meta["test"]`; see `task2vec.evaluation.Evaluation`.
            image_key, target_key: where items that are dicts or longer tuples hold the image and its label.
            stream_cache: folder for what is kept of a stream. A later call takes it from there, and goes on reading
                where an earlier one was stopped. None for a temporary folder.

        Raises:
            TypeError, ValueError: the dataset cannot be embedded; the message says why.
            FileNotFoundError: there is no such folder.
        """
        where = pick_device(device)
        if test is not None:
            test = as_task(test, image_key, target_key)
        source, loading = open_source(as_task(dataset, image_key, target_key), batch_size, num_workers)
        with torch.inference_mode(False):
            self.plan = plan = self.prepare(source, loading, stream_cache=stream_cache, progress=progress)
            evaluation = None
            if test is not None:
                hooked = [source, self] if isinstance(source, LightningDataModule) else [self]
                evaluation = Evaluation(plan, *held_out_source(test, loading, hooked))
            with EmbedProgress(plan.items) if progress else nullcontext() as bar:
                self.embedding = run_plan(plan, where, bar)
                if evaluation is not None:
                    self.embedding.meta["test"] = evaluate(evaluation, where, bar)
        return self.embedding


def embed(
    dataset: Any,
    probe: ProbeNetwork | nn.Module | str,
    method: MethodName = "montecarlo",
    *,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    num_workers: int | None = None,
    seed: int = 0,
    progress: bool = True,
    test: Any = None,
    image_key: Key | None = None,
    target_key: Key | None = None,
    stream_cache: str | Path | None = None,
    **options: Any,
) -> Embedding:
    """Embeds a dataset with a probe in one call; `options` are those of `Task2Vec`, the others of `Task2Vec.embed`.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 9))
    >>> probe = ProbeNetwork.from_module(net, input_size=(1, 8, 8))
    >>> task = [(torch.full((1, 8, 8), float(i)), i % 2) for i in range(6)]
    >>> len(embed(task, probe, sampling="exact", progress=False))
    4
    """
    with torch.inference_mode(False):
        module = Task2Vec(probe, method, seed=seed, **options)
    return module.embed(
        dataset,
        device=device,
        batch_size=batch_size,
        num_workers=num_workers,
        progress=progress,
        test=test,
        image_key=image_key,
        target_key=target_key,
        stream_cache=stream_cache,
    )


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; for "auto" a GPU if there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if device == "auto" else device)
