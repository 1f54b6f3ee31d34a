"""Models of timm (an optional dependency) as probes, named "timm/<model>"."""

from __future__ import annotations

from types import ModuleType
from typing import Any, cast

from torch import nn

from t2v_lightning.probes.network import ProbeNetwork
from t2v_lightning.probes.transforms import ImageTransform
from t2v_lightning.probes.weights import IMAGENET_CLASSES, read_state_dict


def import_timm() -> ModuleType:
    """The timm package; a ModuleNotFoundError says how to install it."""
    try:
        import timm
    except ImportError as error:
        raise ModuleNotFoundError(
            "probes named 'timm/...' need the timm package: pip install 't2v-lightning[timm]'"
        ) from error
    return timm


def timm_names() -> list[str]:
    """Names of timm's models, without and with the tag of their weights, each after "timm/"."""
    timm = import_timm()
    return [f"timm/{model}" for model in [*timm.list_models(), *timm.list_models(pretrained=True)]]


def timm_probe(name: str, weights: str | None, crop: tuple[int, int] | None) -> ProbeNetwork:
    """A probe from a timm model; arguments as in `get_probe`.

    A file is loaded as timm loads its own weights, so files in the original authors' format work where
    timm knows that format. Models published without a head (DINOv2, CLIP) get a random one.
    """
    timm, model_name = import_timm(), name.removeprefix("timm/")
    config = timm.get_pretrained_cfg(model_name).to_dict()
    transform = ImageTransform.from_timm(config, crop)
    options: dict[str, Any] = {"num_classes": config["num_classes"]}
    if crop and config.get("fixed_input_size"):
        options["img_size"] = crop  # these are built for one size; other models refuse the argument
    if weights == "DEFAULT":
        if not (config.get("url") or config.get("hf_hub_id") or config.get("file")):
            raise ValueError(f"timm has no pretrained weights for {name}; pass weights=None or a file")
        options["pretrained"] = True
    elif weights is not None:
        options |= _options_of_file(config, weights)
    module: Any = _create(timm, name, config, options)
    if not options["num_classes"]:
        module.reset_classifier(IMAGENET_CLASSES)
    return ProbeNetwork.from_owned(module, (3, *transform.crop), transform, name)


def _options_of_file(config: dict[str, Any], path: str) -> dict[str, Any]:
    """Options that let timm load the file's tensors, with a head as large as theirs."""
    state = dict(read_state_dict(path))
    overlay: dict[str, Any] = {"state_dict": state}
    options: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    head = state.get(f"{config.get('classifier')}.weight")
    if head is not None and head.shape[0] != config["num_classes"] + config.get("label_offset", 0):
        options["num_classes"] = overlay["num_classes"] = head.shape[0]
        overlay["label_offset"] = 0
    return options


def _create(timm: ModuleType, name: str, config: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    try:
        model: Any = timm.create_model(name.removeprefix("timm/"), **options)
    except OSError as error:
        hub = config.get("hf_hub_id")
        where = f"https://huggingface.co/{hub}" if hub else config.get("url")
        raise FileNotFoundError(
            f"could not download the weights of {name} ({error}). On a machine with network access "
            f"download them from {where}, copy the file here and pass it: "
            f"get_probe({name!r}, weights='path/to/model.safetensors'), or weights=None for random weights"
        ) from error
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name}: {error}") from error
    if isinstance(getattr(model, "pretrained_cfg", None), dict):
        model.pretrained_cfg.pop("state_dict", None)
    return cast(nn.Module, model)
