"""Task2Vec as a LightningModule: one fit, phase after phase."""

import copy
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, Literal, get_args

import torch
from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader

from t2v_lightning.callbacks.progress import EmbedProgress
from t2v_lightning.embedding import Embedding
from t2v_lightning.functional.engine.per_sample import PerSampleFisher
from t2v_lightning.functional.engine.usage import Include, check_include
from t2v_lightning.functional.likelihood import LikelihoodName, Sampling, check_sampling, get_likelihood
from t2v_lightning.functional.noise.parameters import NoiseParameters
from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.loader import LoaderOptions, Reader
from t2v_lightning.loading.random_transforms import warn_random_transforms
from t2v_lightning.loading.selection import Selection, check_map_style, select_images
from t2v_lightning.loading.users import dataset_of, one_loader
from t2v_lightning.metrics import FilterwiseFisher
from t2v_lightning.phases import HeadOptions, VariationalOptions
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.task2vec.assembly import assemble
from t2v_lightning.task2vec.checkpoint_state import settings
from t2v_lightning.task2vec.lightning_fit import PhasedFit
from t2v_lightning.task2vec.lineup import first_image, line_up
from t2v_lightning.task2vec.plain_loop import run_phases

log = logging.getLogger(__name__)

Method = Literal["montecarlo", "variational"]

_METHOD_OPTIONS: Mapping[Method, Mapping[str, Any]] = {
    "montecarlo": {"sampling": "sign", "passes": 1, "target_stderr": None, "include": "weights"},
    "variational": asdict(VariationalOptions()),
}
"""Options that one method alone takes, with their defaults."""


class Task2Vec(PhasedFit):
    """Embeds a labelled image dataset with a pretrained probe (Achille et al., ICCV 2019, arXiv 1902.03545).

    Fits a new head on the task, then takes the diagonal Fisher information of the probe's filters. Either
    `embed(dataset)` in a plain loop on one device, or ``Trainer.fit(module, datamodule)`` with all that
    Lightning brings; then `embedding` holds the result.

    Args:
        probe: a `ProbeNetwork`, or any classifier that `ProbeNetwork.from_module` takes. It is copied.
        method: "montecarlo" squares the gradients of each image; "variational" learns how much noise each
            filter bears, which takes a training of the head with noisy weights.
        likelihood: "softmax" (classes), "bernoulli" (labels) or "gaussian" (regression); None takes the
            datamodule's own, or softmax.
        sampling: "sign", "categorical", "exact" or "empirical"; see `functional.likelihood.cotangents`.
        passes: random vectors an image.
        target_stderr: stop once the relative standard error (``embedding.relative_stderr``) is that small;
            None sees all images.
        max_samples: at most so many images, a seeded stratified subset; None for all.
        balanced: every class counts the same, whatever its number of images (softmax only).
        skip_layers: stage of the probe at which the vector starts; earlier stages cost no gradients.
        include: "weights", "weights+norm" or "all".
        num_classes: fixes the number of outputs; None counts the classes that occur.
        head: how the head is fitted: `HeadOptions`, or the name of a method with its defaults.
        epochs, beta, noise_lr, head_lr, num_samples, update_norm: of the variational method; see
            `phases.VariationalOptions`.
        features_budget: GB of stored features that memory may hold; more go to a memory-mapped file in the run
            folder, which is gone afterwards. None for no limit.
        seed: fixes subset, order, head and every random vector.

    Raises:
        ValueError, TypeError: an option is out of range; the text says what is allowed.

    >>> from t2v_lightning.probes import ProbeNetwork
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 9))
    >>> probe = ProbeNetwork.from_module(net, input_size=(1, 8, 8))
    >>> task = [(torch.full((1, 8, 8), float(i)), i % 2) for i in range(6)]
    >>> Task2Vec(probe).embed(task, progress=False)
    Embedding('list', 4 entries, 1 layers, norm=...)
    """

    selection: Selection
    engine: PerSampleFisher  # of the Monte Carlo method, with the accumulator
    accumulator: FilterwiseFisher
    noise: NoiseParameters  # of the variational method

    def __init__(
        self,
        probe: ProbeNetwork | nn.Module,
        method: Method = "montecarlo",
        *,
        likelihood: LikelihoodName | None = None,
        sampling: Sampling = "sign",
        passes: int = 1,
        max_samples: int | None = 10_000,
        balanced: bool = True,
        skip_layers: int = 0,
        target_stderr: float | None = None,
        include: Include = "weights",
        num_classes: int | None = None,
        head: HeadOptions | Literal["adam", "lbfgs", "keep"] = "adam",
        epochs: int = 2,
        beta: float = 1e-7,
        noise_lr: float = 1e-2,
        head_lr: float = 5e-4,
        num_samples: int = 10_000,
        update_norm: bool = False,
        features_budget: float | None = 4.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if method not in get_args(Method):
            raise ValueError(f"unknown method {method!r}; allowed are {', '.join(get_args(Method))}")
        self.variational_options = VariationalOptions(
            epochs, beta, noise_lr, head_lr, num_samples, update_norm
        )
        of_montecarlo = {
            "sampling": sampling,
            "passes": passes,
            "target_stderr": target_stderr,
            "include": include,
        }
        _check_belongs(method, of_montecarlo | asdict(self.variational_options))
        if likelihood is not None:
            get_likelihood(likelihood)
        check_sampling(sampling, passes)
        check_include(include)
        if target_stderr is not None and not 0 < target_stderr < 1:
            raise ValueError(f"target_stderr={target_stderr}; it is a share of the norm, between 0 and 1")
        for name, number in {"max_samples": max_samples, "passes": passes, "seed": seed}.items():
            if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
                raise TypeError(f"{name} must be a whole number, got {number!r}")
        if max_samples is not None and max_samples < 2:
            raise ValueError(f"max_samples={max_samples}; take at least one image a class, or None for all")
        if features_budget is not None and not features_budget >= 0:
            raise ValueError(f"features_budget={features_budget}; it is a number of GB, or None for no limit")
        if not isinstance(head, (str, HeadOptions)):
            raise TypeError(f"head must be HeadOptions(...) or the name of a method, got {head!r}")
        if not isinstance(probe, ProbeNetwork):
            probe = ProbeNetwork.from_module(probe)
        probe.stage_parameters(skip_layers)  # raises when the stage does not exist
        self.method, self.likelihood, self.sampling, self.passes = method, likelihood, sampling, passes
        self.target_stderr = target_stderr
        self.max_samples, self.balanced, self.skip_layers = max_samples, balanced, skip_layers
        self.include, self.num_classes, self.seed = include, num_classes, seed
        self.features_budget = features_budget
        self.head_options = HeadOptions(method=head) if isinstance(head, str) else head
        with torch.inference_mode(False):
            self.probe = copy.deepcopy(probe)
        self.probe_digest = probe.digest  # here, as a Trainer may change the precision of the weights
        self.probe.backbone.requires_grad_(False)
        self._original_head = (copy.deepcopy(self.probe.head),)  # in a tuple it is no part of the module
        self.task_meta: dict[str, Any] = {}

    # --- what both ways of running share -------------------------------------------------------------

    def prepare(self, source: Any, options: LoaderOptions, processes: int = 1) -> None:
        """Chooses images, checks everything that can be checked early, and lines up the phases.

        Args:
            source: the dataset, or a LightningDataModule that has been set up (its train split is taken).
            options: how batches are made.
            processes: that share the images, each with a copy of this module.
        """
        self.processes = processes
        dataset = (
            dataset_of(one_loader(source.train_dataloader()))
            if isinstance(source, LightningDataModule)
            else source
        )
        own: LikelihoodName = getattr(source, "likelihood", "softmax")
        likelihood = self.likelihood or own
        check_map_style(dataset)
        warn_random_transforms(dataset)
        keep = self.head_options.method == "keep"
        self.selection = select_images(
            dataset,
            likelihood=likelihood,
            balanced=self.balanced and likelihood == "softmax",
            max_samples=self.max_samples,
            num_classes=self._original_head[0].out_features if keep else self.num_classes,
            seed=self.seed,
        )
        if keep:
            self.probe.head = copy.deepcopy(self._original_head[0]).to(self.device)
        else:
            self.probe.reset_head(self.selection.num_classes, torch.Generator().manual_seed(self.seed))
        self.dataset = IndexedDataset(dataset, self.selection.chosen, self.probe.transform)
        self.reader = Reader(self.dataset, options)
        self.embedding = None
        self.task_meta = {
            name: getattr(source, attribute)
            for name, attribute in {
                "dataset": "name",
                "task_name": "task_name",
                "task_id": "task_id",
                "family": "family",
                "class_names": "class_names",
                "taxon": "taxon",
            }.items()
            if isinstance(source, LightningDataModule) and hasattr(source, attribute)
        }
        self.task_meta.setdefault("dataset", type(getattr(dataset, "dataset", dataset)).__name__)
        self.phases = line_up(self, first_image(self))

    def assemble(self) -> Embedding:
        """The embedding from what the phases have found."""
        return assemble(self)

    def settings(self) -> dict[str, Any]:
        """All on which the last digits depend beside the Trainer, by the names that a user knows."""
        return settings(self)

    # --- in a plain loop -------------------------------------------------------------------------------

    def embed(
        self,
        dataset: Any,
        *,
        device: str | torch.device = "auto",
        batch_size: int = 64,
        num_workers: int = 0,
        progress: bool = True,
    ) -> Embedding:
        """Embeds a dataset on one device, without a Trainer.

        Args:
            dataset: map-style, of (image, target): PIL images, or float tensors [C, H, W] that the probe takes;
                or a LightningDataModule or DataLoader over such a dataset.
            device: "auto" takes a GPU if there is one.
            batch_size: images a batch; changes speed and memory only.
            num_workers: processes that read images; 0 reads them in this one.
            progress: show a progress bar.

        Raises:
            TypeError, ValueError: the dataset cannot be embedded; the text says why.
        """
        options = LoaderOptions(batch_size=batch_size, num_workers=num_workers)
        if isinstance(dataset, LightningDataModule):
            dataset.prepare_data()
            dataset.setup("fit")
            options.collate_fn = one_loader(dataset.train_dataloader()).collate_fn
        elif isinstance(dataset, DataLoader):
            options.collate_fn, dataset = dataset.collate_fn, dataset_of(dataset)
        with torch.inference_mode(False):
            self.prepare(dataset, options)
            where = torch.device(_pick_device() if device == "auto" else device)
            with EmbedProgress() if progress else nullcontext() as bar:
                return run_phases(self, where, bar)


def embed(
    dataset: Any,
    probe: ProbeNetwork | nn.Module,
    method: Method = "montecarlo",
    *,
    device: str | torch.device = "auto",
    batch_size: int = 64,
    num_workers: int = 0,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Embedding:
    """Embeds a dataset with a probe in one call; `options` are those of `Task2Vec`.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 9))
    >>> probe = ProbeNetwork.from_module(net, input_size=(1, 8, 8))
    >>> task = [(torch.full((1, 8, 8), float(i)), i % 2) for i in range(6)]
    >>> len(embed(task, probe, sampling="exact", progress=False))
    4
    """
    with torch.inference_mode(False):
        module = Task2Vec(probe, method, seed=seed, **options)
    return module.embed(
        dataset, device=device, batch_size=batch_size, num_workers=num_workers, progress=progress
    )


def _check_belongs(method: Method, given: Mapping[str, Any]) -> None:
    """Raises for an option of the other method, which would have no effect."""
    for other, options in _METHOD_OPTIONS.items():
        for name, default in options.items():
            if other != method and given[name] != default:
                raise ValueError(
                    f"{name}={given[name]!r} is an option of method={other!r} and would have no effect with "
                    f"method={method!r}; leave it at {default!r}"
                )


def _pick_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
