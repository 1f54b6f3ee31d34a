"""The input with which a probe is traced before a phase begins."""

from t2v_lightning.functional.inputs import Inputs, to, transform
from t2v_lightning.probes import ProbeNetwork
from t2v_lightning.probes.text_transform import SAMPLE, TextTransform


def batch_of_one(probe: ProbeNetwork, example: Inputs | None = None) -> Inputs:
    """A batch of one input on the probe's device and in its dtype.

    Args:
        probe: any.
        example: an input without batch dimension, such as an image [C, H, W]; a black image or a few words when None.

    Raises:
        ValueError: no example for a probe that takes neither images nor texts.
    """
    weight = probe.head.weight
    if example is None and isinstance(probe.transform, TextTransform):
        example = probe.transform(SAMPLE)
    if example is None:
        if probe.input_size is None:
            raise ValueError(f"probe {probe.name!r} takes no images; pass an example of its inputs")
        return weight.new_zeros(1, *probe.input_size)
    return to(transform(lambda tensor: tensor[None], example), weight.device, weight.dtype)
