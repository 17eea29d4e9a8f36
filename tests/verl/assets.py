"""What verl reads from files: a tokenizer of bytes, the configuration of a tiny model, and prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

__all__ = ["write"]

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_PROMPTS = 40
_VALIDATION_PROMPTS = 3


def write(folder: Path, agent: Callable[[int], str]) -> None:
    """Write ``model/``, ``train.jsonl`` and ``val.jsonl`` into *folder*. *agent* names the agent loop of a prompt."""
    model = folder / "model"
    model.mkdir()
    vocabulary = _vocabulary()
    _dump(model / "tokenizer.json", _tokenizer(vocabulary))
    _dump(
        model / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "chat_template": _CHAT,
        },
    )
    _dump(
        model / "config.json",
        {
            "model_type": "qwen2",
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 512,
            "eos_token_id": vocabulary["<|im_end|>"],
            "pad_token_id": vocabulary["<|endoftext|>"],
        },
    )
    _write_prompts(folder / "train.jsonl", "train", [agent(number) for number in range(_PROMPTS)])
    _write_prompts(folder / "val.jsonl", "val", ["single_turn_agent"] * _VALIDATION_PROMPTS)


def _write_prompts(path: Path, split: str, agents: list[str]) -> None:
    rows = [
        {
            "data_source": "test",
            "prompt": [{"role": "user", "content": f"{split} question {number}"}],
            "agent_name": agent,
            "reward_model": {"style": "rule", "ground_truth": str(number)},
            "extra_info": {"split": split, "index": number},
        }
        for number, agent in enumerate(agents)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _vocabulary() -> dict[str, int]:
    """Return a token for each character by which byte-level tokenizers stand for the 256 bytes."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    characters = sorted(chr(byte if byte in visible else next(hidden)) for byte in range(256))
    return {token: number for number, token in enumerate([*characters, *_SPECIAL])}


def _tokenizer(vocabulary: dict[str, int]) -> dict[str, object]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": vocabulary[token], "content": token, **flags} for token in _SPECIAL],
        "pre_tokenizer": bytes_,
        "decoder": bytes_,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }


def _dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
