"""Write a tiny Qwen2 with random weights and a tokenizer of its own. Runs in the training environment's interpreter.

Started by ``scripts.make_tiny_model`` as a file: the standard library, torch, transformers and tokenizers only.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = (
    "what is plus minus times how many there are boxes with pens each coins shared by people until left does get a town"
    " has houses and builds more now let us think step output the final answer after user assistant system number sum"
    " find value of equals then so total give first second third every day week box apple road tree river letter green"
    " slow quick small large before under over between left right half twice three four five six seven eight nine ten"
)
WORDS = TEXT.split()


def corpus(seed: int) -> Iterator[str]:
    """Give sentences of our own words and numbers, the same for the same seed."""
    draw = random.Random(seed)  # noqa: S311  # not for secrets
    for _ in range(4000):
        words = [draw.choice(WORDS) if draw.random() < 0.7 else str(draw.randint(0, 9999)) for _ in range(12)]  # noqa: PLR2004
        yield " ".join(words).capitalize() + draw.choice([".", "?", "\n#### " + str(draw.randint(0, 999))])


def make_tokenizer(place: Path, wanted: dict[str, Any]) -> int:
    """Train a byte-level BPE on the corpus and save it with a chat template; give its number of tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=wanted["vocabulary"],
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(wanted["seed"]), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106  # a token of the vocabulary, not a secret
        pad_token="<|endoftext|>",  # noqa: S106  # a token of the vocabulary, not a secret
        additional_special_tokens=["<|im_start|>"],
        model_max_length=wanted["positions"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(place)
    return len(fast)


def make_model(place: Path, wanted: dict[str, Any]) -> int:
    """Save a Qwen2 of the wanted size in bfloat16; give its number of parameters."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(wanted["seed"])
    config = Qwen2Config(
        vocab_size=wanted["vocabulary"],
        hidden_size=wanted["hidden"],
        intermediate_size=2 * wanted["hidden"],
        num_hidden_layers=wanted["layers"],
        num_attention_heads=wanted["heads"],
        num_key_value_heads=wanted["kv_heads"],
        max_position_embeddings=wanted["positions"],
        tie_word_embeddings=False,
        bos_token_id=SPECIALS.index("<|endoftext|>"),
        eos_token_id=SPECIALS.index("<|im_end|>"),
        pad_token_id=SPECIALS.index("<|endoftext|>"),
        torch_dtype="bfloat16",
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(place, safe_serialization=True)
    return sum(parameter.numel() for parameter in model.parameters())


def look_again(place: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Load what was saved, as verl will, and use it once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place)
    chat = [{"role": "user", "content": "What is 3 plus 4? é"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(place, torch_dtype=torch.float32)
    with torch.no_grad():
        logits = model(ids).logits
    return {
        "round_trip": tokenizer.decode(ids[0]) == text,
        "prompt_tokens": int(ids.shape[1]),
        "largest_id": int(ids.max()),
        "finite": bool(torch.isfinite(logits).all()),
        "logits": list(logits.shape[1:]) == [int(ids.shape[1]), wanted["vocabulary"]],
        "eos": tokenizer.eos_token_id == model.config.eos_token_id,
        "pad": tokenizer.pad_token_id == model.config.pad_token_id,
    }


def main() -> None:
    """Make everything below the folder that the request names; print one line of JSON."""
    wanted = json.loads(sys.argv[1])
    place = Path(wanted["out"])
    tokens = make_tokenizer(place, wanted)
    parameters = make_model(place, wanted)
    import torch
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"tokens": tokens, "parameters": parameters, "seen": look_again(place, wanted)} | versions))


if __name__ == "__main__":
    HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [
        place for place in sys.path if os.path.abspath(place or ".") != HERE
    ]  # our names hide none of theirs
    main()
