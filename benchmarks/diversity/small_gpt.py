"""A small GPT-2 that has learned from one half of the passages of all domains: two minutes on one core."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

LENGTH = 64
WORDS = 4096


def small_gpt(folder: Path, passages: Sequence[str], steps: int = 500) -> Any:
    """The model with its tokenizer, from `folder` where it was trained before."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    if (folder / "model.safetensors").exists():
        return GPT2LMHeadModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer = _tokenizer(passages)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=WORDS, n_positions=LENGTH, n_embd=128, n_layer=4, n_head=4,
            bos_token_id=0, eos_token_id=0, pad_token_id=1,
        )
    )  # fmt: skip
    found = tokenizer(
        list(passages), truncation=True, max_length=LENGTH, padding="max_length", return_tensors="pt"
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    generator, start = torch.Generator().manual_seed(0), time.process_time()
    model.train()
    for step in range(steps):
        rows = torch.randint(0, len(passages), (16,), generator=generator)
        ids, mask = found["input_ids"][rows], found["attention_mask"][rows]
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.2f}, {time.process_time() - start:.0f} s", flush=True)
    model.eval().save_pretrained(folder)
    return model, tokenizer


def _tokenizer(passages: Sequence[str]) -> Any:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = tokenizers.ByteLevelBPETokenizer()
    backend.train_from_iterator(
        passages, vocab_size=WORDS, special_tokens=["<|end|>", "<|pad|>"], show_progress=False
    )
    made: Any = PreTrainedTokenizerFast
    return made(
        tokenizer_object=backend._tokenizer, eos_token="<|end|>", bos_token="<|end|>", pad_token="<|pad|>",
        model_max_length=LENGTH,
    )  # fmt: skip
