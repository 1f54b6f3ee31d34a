"""Inputs that are dicts and tuples of tensors, such as token ids and their mask, from the dataset to the batch."""

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from t2v_lightning.loading.dataset import IndexedDataset
from t2v_lightning.loading.fingerprint import fingerprint
from t2v_lightning.loading.loader import LoaderOptions, PhaseLoader, Reader
from t2v_lightning.loading.sampler import ShardedSampler
from t2v_lightning.loading.selection import select_images

LENGTH = 6


def sentence(i: int) -> dict[str, Tensor]:
    """Token ids i, i + 1, ... of which the first i % LENGTH + 1 count."""
    return {"ids": i + torch.arange(LENGTH), "mask": torch.arange(LENGTH) <= i % LENGTH}


def sentences(n: int) -> list[tuple[Any, int]]:
    return [(sentence(i), i % 3) for i in range(n)]


def loader(items: Any, rank: int = 0, world_size: int = 1, **options: Any) -> PhaseLoader:
    """Over all items, in a shuffled order."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(5))
    sampler = ShardedSampler(order, len(items), 4, rank, world_size)
    reader = Reader(IndexedDataset(items, torch.arange(len(items))), LoaderOptions(4, **options))
    return PhaseLoader(reader, sampler)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_tensors_by_their_names(workers: int) -> None:
    seen = []
    for inputs, positions in loader(sentences(23), num_workers=workers):
        assert {name: tensor.dtype for name, tensor in inputs.items()} == {
            "ids": torch.int64,
            "mask": torch.bool,
        }
        for k, position in enumerate(positions.tolist()):
            expected = sentence(position)
            assert torch.equal(inputs["ids"][k], expected["ids"])
            assert torch.equal(inputs["mask"][k], expected["mask"])
            seen.append(position)
    assert sorted(seen) == list(range(23))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_shares_of_three_processes(workers: int) -> None:
    shares = [list(loader(sentences(22), rank, 3, num_workers=workers)) for rank in range(3)]
    positions = sorted(p for share in shares for _, at in share for p in at.tolist())
    assert positions == [*range(22), 22, 23]  # the last two are padding
    for share in shares:
        assert [len(at) for _, at in share] == [4, 4]
        assert all(len(inputs["ids"]) == len(at) for inputs, at in share)


def test_tuples_stay_tuples_and_lists_become_tuples() -> None:
    for form in (tuple, list):
        items = [(form([torch.tensor(float(i)), {"x": torch.tensor([i])}]), i % 2) for i in range(4)]
        (batch,) = loader(items)
        inputs, positions = batch
        assert isinstance(inputs, tuple)
        assert inputs[0].tolist() == positions.tolist() == inputs[1]["x"][:, 0].tolist()


def test_a_transform_may_make_a_dict() -> None:
    """As a tokenizer does with a text."""
    dataset = IndexedDataset([("a", 0), ("bc", 1)], torch.arange(2), lambda text: sentence(len(text)))
    assert torch.equal(dataset[1][0]["ids"], sentence(2)["ids"])


def test_dicts_that_are_tensors_already_get_no_transform() -> None:
    dataset = IndexedDataset(sentences(2), torch.arange(2), lambda _: pytest.fail("the transform was called"))
    assert dataset[1][0].keys() == {"ids", "mask"}


def test_only_numbers_with_a_point_must_be_finite() -> None:
    good = {"ids": torch.tensor([3, 1]), "scores": torch.tensor([0.5, 1.0])}
    bad = {"ids": torch.tensor([3, 1]), "scores": torch.tensor([0.5, float("nan")])}
    dataset = IndexedDataset([(good, 0), (bad, 1)], torch.arange(2))
    dataset[0]
    with pytest.raises(ValueError, match="input 1 of the dataset holds NaN or infinite values"):
        dataset[1]


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        ({"ids": torch.arange(2), "text": "a b"}, r"a dict of ids: int64 \[2\], text: str"),
        ((torch.arange(2), 3), r"a tuple of \(int64 \[2\], int\)"),
        ({"picture": Image.new("L", (2, 2))}, "a dict of picture: Image"),
        ({}, "a dict of nothing"),
    ],
    ids=["text", "number", "picture", "empty"],
)
def test_dicts_that_hold_something_else_are_named(inputs: Any, got: str) -> None:
    with pytest.raises(
        TypeError, match=f"input 0 of the dataset is {got}; give a tensor, or a dict or tuple"
    ):
        IndexedDataset([(inputs, 0)], torch.arange(1))[0]


def test_a_bare_tensor_of_integers_is_no_image() -> None:
    """Numbers 0 to 255 would pass for an image that is ready for the network."""
    with pytest.raises(
        ValueError, match=r"image 0 of the dataset is a torch\.int64 tensor; give float tensors"
    ):
        IndexedDataset([(torch.arange(3), 0)], torch.arange(1))[0]


def test_inputs_of_different_length_say_so() -> None:
    items = [({"ids": torch.arange(2 + i)}, i) for i in range(2)]
    with pytest.raises(
        ValueError,
        match=r"differ in form, \(ids: int64 \[2\]\) and \(ids: int64 \[3\]\); pad them to one length",
    ):
        list(loader(items))


def test_images_beside_dicts_say_so() -> None:
    items = [(sentence(0), 0), (torch.zeros(1, 2, 2), 1)]
    with pytest.raises(ValueError, match="inputs of a batch differ in form"):
        list(loader(items))


def padded(items: list[Any]) -> Any:
    """Token ids of different length with their mask, and the targets."""
    longest = max(len(inputs["ids"]) for inputs, _ in items)
    ids = torch.stack([torch.nn.functional.pad(x["ids"], (0, longest - len(x["ids"]))) for x, _ in items])
    lengths = torch.tensor([len(x["ids"]) for x, _ in items])
    return {"ids": ids, "mask": torch.arange(longest) < lengths[:, None]}, [y for _, y in items]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_users_collate_function_pads(workers: int) -> None:
    items = [({"ids": torch.full((1 + i,), i)}, i % 2) for i in range(8)]
    for inputs, positions in loader(items, num_workers=workers, collate_fn=padded):
        assert inputs["mask"].sum(1).tolist() == [1 + p for p in positions.tolist()]
        assert (inputs["ids"] * inputs["mask"]).amax(1).tolist() == positions.tolist()


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (({"ids": torch.zeros(3, 2)}, None), r"a tuple of \(ids: float32 \[3, 2\], NoneType\)"),
        (
            ({"a": torch.zeros(4), "b": torch.zeros(3)}, None),
            r"a tuple of \(a: float32 \[4\], b: float32 \[3\]",
        ),
        ({"ids": torch.zeros(4, 2)}, r"a dict of ids: float32 \[4, 2\]"),
        (torch.zeros(4, 2), r"a Tensor of float32 \[4, 2\]"),
        (({"text": "a"}, None), r"a tuple of \(text: str, NoneType\)"),
        ((torch.arange(4), None), r"a tuple of \(int64 \[4\], NoneType\)"),
    ],
    ids=["too few", "uneven", "no targets", "images only", "text", "integers"],
)
def test_other_batches_of_the_users_collate_function(batch: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"makes 4 items into {got}.*needed are .inputs, targets."):
        list(loader(sentences(4), collate_fn=lambda _: batch))


def test_targets_of_dicts_are_found() -> None:
    assert select_images(sentences(7)).targets.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_the_fingerprint_of_a_dataset_depends_on_all_tensors_of_its_items() -> None:
    def found(**changes: Tensor) -> str:
        return IndexedDataset([({**sentence(1), **changes}, 0)], torch.arange(1)).fingerprint

    assert found() == found()
    assert (
        len({found(), found(mask=torch.zeros(LENGTH, dtype=torch.bool)), found(ids=torch.arange(LENGTH))})
        == 3
    )


def test_the_fingerprint_of_images_is_what_it_was() -> None:
    """Checkpoints of earlier versions go on."""
    images = [(torch.full((1, 2, 2), i / 7, dtype=torch.float64), i % 2) for i in range(9)]
    assert IndexedDataset(images, torch.arange(1, 9)).fingerprint == "eb0f6eb22ffe9996"
    assert fingerprint(torch.tensor([1, 2, 3])) == "e2e2033ae7e19d68"


def test_the_fingerprint_of_half_precision() -> None:
    one, two = torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([1.0, 2.5], dtype=torch.bfloat16)
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one[:0], torch.tensor(True)) == fingerprint(torch.tensor(True))
