"""The interface of a likelihood: what the Fisher information and the fit of a head need from it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from t2v_lightning.functional.inputs import Inputs
from t2v_lightning.functional.likelihood.signs import Sampling, rank_signs


class Likelihood(ABC):
    """How network outputs f [N, C] become a distribution over targets.

    Attributes:
        name: as options and files give it.
        target: what each sample is labelled with, in words, for errors.
        measure: what says how well a head fits, in words; `measured` gives it.
        short: the same for the head of a column.
        test_measure: what says how well a head does on images that its fit has not seen, as logs and `meta["test"]`
            call it.
        test_short: the same for the head of a column.
        has_classes: whether a target is one class out of several, so that classes can be renumbered, balanced and
            represented equally in a subset.
        of_inputs: whether the inputs give the targets, as those of a language model do; see `targets_of`.
    """

    name: ClassVar[str]
    target: ClassVar[str]
    measure: ClassVar[str]
    short: ClassVar[str]
    test_measure: ClassVar[str]
    test_short: ClassVar[str]
    has_classes: ClassVar[bool] = False
    of_inputs: ClassVar[bool] = False

    # --- the factor of the Fisher information ------------------------------------------------------------

    @abstractmethod
    def columns(self, outputs: Tensor) -> int:
        """Number R of columns of the factor S."""

    @abstractmethod
    def factor_times(self, outputs: Tensor, coefficients: Tensor) -> Tensor:
        """S_n c_n for every sample; outputs [N, C], coefficients [N, R], result [N, C]."""

    @abstractmethod
    def fisher_times(self, outputs: Tensor, vectors: Tensor) -> Tensor:
        """H_n v_n for every sample; outputs and vectors [N, C], result [N, C]."""

    @abstractmethod
    def fisher_trace(self, outputs: Tensor, gram: Tensor) -> Tensor:
        """tr(H_n A) for every sample [N]; outputs [N, C], A symmetric [C, C]."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient of the log-likelihood of `targets` in the outputs, [N, C]."""

    @abstractmethod
    def sample_score(self, outputs: Tensor, seed: int, draw: int, index: Tensor) -> Tensor:
        """`score` at targets drawn from the model's own distribution, [N, C]."""

    def vectors(
        self,
        outputs: Tensor,
        sampling: Sampling,
        *,
        passes: int,
        seed: int,
        index: Tensor,
        targets: Tensor | None,
    ) -> Iterator[Tensor]:
        """What `cotangents` yields; it has checked the arguments.

        Raises:
            ValueError: the outputs or the targets have the wrong shape.
        """
        if outputs.dim() != 2:
            raise ValueError(
                f"{self.name} takes one row of outputs per sample, [N, C]; got {tuple(outputs.shape)}. Outputs "
                "[N, T, V] for the tokens of a sequence are those of likelihood='next_token'"
            )
        size = self.columns(outputs)
        if sampling == "empirical" and targets is not None:
            self.check_targets(outputs, targets)
            yield self.score(outputs, targets)
        elif sampling == "exact":
            for column in range(size):
                coefficients = outputs.new_zeros(len(outputs), size)
                coefficients[:, column] = 1
                yield self.factor_times(outputs, coefficients)
        else:
            for draw in range(passes):
                if sampling == "sign":
                    signs = rank_signs(seed, draw, passes, index, size).to(outputs.dtype)
                    vector = self.factor_times(outputs, signs)
                else:
                    vector = self.sample_score(outputs, seed, draw, index)
                yield vector / passes**0.5

    # --- targets -----------------------------------------------------------------------------------------

    def targets_of(self, x: Inputs) -> Tensor | None:
        """Targets that the inputs [N, ...] themselves give; None for most likelihoods, whose targets are labels."""
        return None

    def read_targets(self, raw: Any) -> Tensor:
        """The targets of a dataset as a tensor: one vector for each sample, float [N, C].

        Args:
            raw: a tensor or array, or a sequence of numbers, tensors or arrays.

        Raises:
            TypeError: they are not numbers of one shape, or not of the form that this likelihood takes.
            ValueError: values that it does not allow, such as NaN.
        """
        targets = self._stack(raw).to(torch.get_default_dtype())
        if targets.dim() == 1:
            targets = targets[:, None]
        if targets.dim() != 2:
            raise TypeError(f"{self.name} targets must be {self.target}, got shape {tuple(targets.shape)}")
        finite = torch.isfinite(targets).all(1)
        if not bool(finite.all()):
            raise ValueError(
                f"got NaN or infinite targets for {int((~finite).sum())} of {len(targets)} images: {self.name} targets "
                "must be finite numbers; leave these images out, for example by torch.utils.data.Subset"
            )
        return targets

    def _stack(self, raw: Any) -> Tensor:
        """Targets as one tensor on the CPU, of whatever shape and dtype they have."""
        if isinstance(raw, Tensor):
            return raw.detach().cpu()
        read: list[Tensor] = []
        for number, target in enumerate(raw):
            try:
                read.append(torch.as_tensor(target))
                same = read[number].shape == read[0].shape
            except (TypeError, ValueError, RuntimeError):
                same = False
            if not same:
                first = next(iter(raw))
                other = f", that of image {number} is {target!r} ({type(target).__name__})" if number else ""
                raise TypeError(
                    f"targets cannot be read as numbers of one shape; the first is {first!r} "
                    f"({type(first).__name__}){other}. {self.name.capitalize()} targets must be {self.target}"
                )
        return torch.stack(read)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raises ValueError unless targets fit the outputs [N, C]."""
        if targets.shape != outputs.shape:
            raise ValueError(
                f"{self.name} targets must have the shape of the outputs, {tuple(outputs.shape)}; got "
                f"{tuple(targets.shape)}"
            )

    def standardise(self, targets: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, list[float]]]:
        """Targets in the units in which a head is fitted to them, and what these units are, by name.

        They stay what they are, and there is nothing to say, unless the likelihood has a unit of its own.

        Args:
            targets: as `read_targets` gives them.
            weights: float64 [N], summing to 1.
        """
        return targets, {}

    @abstractmethod
    def describe_target(self, target: Tensor, names: Sequence[str]) -> str:
        """One sample's target in words; names[k] is what output k stands for."""

    # --- loss --------------------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of each sample up to a constant, [N]."""

    @abstractmethod
    def best_constant(self, targets: Tensor, weights: Tensor, num_outputs: int) -> Tensor:
        """The one output for all samples that has the least weighted loss, [num_outputs] in the dtype of the weights.

        Args:
            targets: as `read_targets` gives them.
            weights: float [N], summing to 1.
        """

    @abstractmethod
    def accuracy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How well each output fits its target, [N], at most 1."""

    def measured(self, accuracy: float, loss: float, constant_loss: float) -> float:
        """The number that `measure` names.

        Args:
            accuracy, loss: weighted means over the samples.
            constant_loss: the least mean loss of an output that is the same for all.
        """
        return accuracy

    def accuracy_text(self, measured: float) -> str:
        """What `measured` gives, for a person to read."""
        return f"{measured:.1%}"

    def describe_accuracy(self, measured: float) -> str:
        """The same with its name."""
        return f"{self.measure} {self.accuracy_text(measured)}"

    @property
    def log_name(self) -> str:
        """What logs call `measure`: `short` as one word."""
        return self.short.replace(" ", "_").replace("^", "")
