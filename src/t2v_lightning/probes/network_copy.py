"""A copy of a network that is independent of the original and of a run around it."""

import copy
from collections import OrderedDict
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils.prune import BasePruningMethod

from t2v_lightning.functional.inputs import tensors_in

Network = TypeVar("Network", bound=nn.Module)

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def copy_network(network: Network, keep_hooks: bool = False, share_weights: bool = False) -> Network:
    """A deep copy without gradients, trainer or hooks, except PyTorch's own hooks that compute weights.

    A hook that the run put on its network would mistake the copy's passes for the run's. The hooks of weight norm,
    spectral norm and pruning are part of the network. What a network keeps of a graph (a weight that such a hook
    has computed, a list of losses) is copied by value, as `copy.deepcopy` refuses it.

    Args:
        network: any; not changed.
        keep_hooks: copy all of its hooks too.
        share_weights: the copy has the network's own parameters and buffers, and all else for itself.

    Raises:
        TypeError: it holds something that cannot be copied, such as an open file.

    >>> net = nn.Linear(2, 2)
    >>> handle = net.register_forward_hook(lambda *a: print("seen"))
    >>> copied = copy_network(net)
    >>> len(net._forward_hooks), len(copied._forward_hooks)
    (1, 0)
    """
    memo: dict[int, Any] = {}  # what `deepcopy` takes in place of a copy of its own, by identity
    if share_weights:
        memo = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    for module in network.modules():
        for tensor in tensors_in(list(vars(module).values())):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
        for name in () if keep_hooks else _HOOKS:
            hooks = getattr(module, name)
            kept = {key: copy.deepcopy(hook) for key, hook in hooks.items() if _makes_weights(hook)}
            memo[id(hooks)] = OrderedDict(kept)
    try:
        return copy.deepcopy(network, memo)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise TypeError(
            f"{type(network).__name__} cannot be copied ({error}); name the part of it that is the classifier"
        ) from error


def _makes_weights(hook: Any) -> bool:
    return isinstance(hook, BasePruningMethod) or type(hook).__module__.startswith("torch.nn.utils.")
