"""A look at all texts of a task before the work starts: none may be empty, and those that are too long are counted."""

import logging
from collections.abc import Mapping

from t2v_lightning.loading.dataset import IndexedDataset, as_pair, naming_text
from t2v_lightning.probes.text_transform import TextTransform

log = logging.getLogger(__name__)


def count_long_texts(dataset: IndexedDataset) -> int | None:
    """Number of texts of which the probe sees the beginning only; a warning says how many, and how much is left out.

    Returns:
        None where the items are not texts, which token ids are not.

    Raises:
        TypeError, ValueError: a text is empty, or is not a text; the message names the item.
    """
    transform = dataset.transform
    if not isinstance(transform, TextTransform):
        return None
    surplus: list[int] = []
    for item in dataset.chosen.tolist():
        text, _ = as_pair(dataset.dataset[item], item)
        if isinstance(text, Mapping):  # of token ids, which are checked as they are read
            return None
        try:
            surplus.append(transform.surplus(text))
        except (TypeError, ValueError) as error:
            raise naming_text(error, item) from error
    long = [tokens for tokens in surplus if tokens]
    if long:
        log.warning(
            "%d of %d texts have more than the %d tokens that the probe takes, so that their ends are left out, %.0f "
            "tokens of each in the mean; split them into parts to embed the whole",
            len(long),
            len(surplus),
            transform.max_length,
            sum(long) / len(long),
        )
    return len(long)
