"""Proofs that a stored model is fit to use: its tokenizer gives back what it reads, its end token ends, its logits are finite.

A failure is a ModelError that names the text or the token; what cannot be decided is said in the result.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campana.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLES: Mapping[str, str] = {
    "english": "It's 7:45 pm; don't wait -- 1,234.50 dollars (50%) e-mail: a_b@c.org",
    "chinese": "我今天买了3本书，一共花了128.5元。“好吗？”",
    "japanese": "東京タワーは333メートルです。カタカナ",
    "korean": "안녕하세요 세계",
    "arabic": "مرحبا بالعالم ١٢٣",
    "hindi": "नमस्ते दुनिया",
    "russian": "Привет, мир!",
    "emoji": "🙂👩‍👩‍👧‍👦 ok",
    "code": "def f(x):\n    return x  # two  spaces\n\n\tif a >= b:\r\n",
    "accents": "Ça coûte 5 € à Málaga, naïve Übung ﬁ e\u0301",
}
"""Texts that a lossless tokenizer gives back unchanged."""


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What was found of a tokenizer."""

    num_tokens: int
    """Vocabulary entries, added ones included."""
    lossy: tuple[str, ...]
    """The samples it does not give back."""
    eos_id: int | None
    pad_id: int | None
    chat_template: bool
    turn_end_id: int | None
    """The special token that its chat template writes after an assistant's turn."""


def prove_tokenizer(tokenizer: PreTrainedTokenizerBase, vocab_size: int, *, lossless: bool) -> TokenizerFacts:
    """Check ids, special tokens, the round trip of `SAMPLES` and the chat template.

    `lossless`: a text that does not come back is an error, not a fact: right for tokenizers that were rebuilt.
    """
    if len(tokenizer) > vocab_size:
        raise ModelError(f"the tokenizer has {len(tokenizer)} tokens, the model only {vocab_size}", hint="are they of one model?")
    for token, index in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True):
        ids = tokenizer.encode(f"a{token}b", add_special_tokens=False)
        if index not in ids:
            raise ModelError(
                f"the special token {token!r} is cut into pieces: {ids}", hint="the tokenizer's files are damaged or incomplete"
            )
    lossy = tuple(name for name, text in SAMPLES.items() if not _comes_back(tokenizer, text))
    if lossless and lossy:
        raise ModelError(
            f"the tokenizer loses text: {', '.join(lossy)}", hint="give the model's safetensors folder, with its tokenizer.json"
        )
    template = bool(getattr(tokenizer, "chat_template", None))
    return TokenizerFacts(
        num_tokens=len(tokenizer),
        lossy=lossy,
        eos_id=_one_id(tokenizer.eos_token_id),
        pad_id=_one_id(tokenizer.pad_token_id),
        chat_template=template,
        turn_end_id=turn_end_id(tokenizer) if template else None,
    )


def _one_id(value: object) -> int | None:
    """transformers types special ids as anything that a special token may be; they are one number or none."""
    return value if isinstance(value, int) else None


def _comes_back(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False)
    decoded = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    # Canonically equal is equal (some tokenizers compose accents), and so is SentencePiece's space in front.
    wanted = unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", decoded) in (wanted, " " + wanted)


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token right after an assistant's answer, or None where the template writes none there. A broken template is an error."""
    from jinja2 import TemplateError

    answer = "xyzzy"
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}], tokenize=False
        )
    except TemplateError as error:
        raise ModelError(f"the chat template does not work: {error}", hint="mend chat_template in tokenizer_config.json") from error
    _, found, after = str(text).rpartition(answer)
    if not found:
        raise ModelError("the chat template does not write the assistant's answer", hint="mend chat_template in tokenizer_config.json")
    first = tokenizer.encode(after.strip(), add_special_tokens=False)[:1]
    return first[0] if first and first[0] in _end_candidates(tokenizer) else None


def _end_candidates(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *added}


def prove_model(model_dir: Path, *, num_parameters: int) -> None:
    """Run a few tokens through the stored model: every weight must have a place, every logit be finite.

    float32 below two thousand million parameters, else as stored, so that memory stays near the file's size.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    from campana.models.folder import read_json
    from campana.models.quiet import quiet

    architectures = read_json(model_dir / "config.json").get("architectures") or []
    auto = AutoModelForCausalLM if any("CausalLM" in name for name in architectures) else AutoModel
    with quiet(), torch.inference_mode():
        loaded: Any = auto.from_pretrained(
            str(model_dir),
            dtype=torch.float32 if num_parameters < 2_000_000_000 else "auto",
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
        )
        model, report = loaded
        refuse_missing(model_dir, report, model)
        output: Any = model.eval()(input_ids=torch.tensor([[1, 2, 3, 4]]))
    values = output.logits if hasattr(output, "logits") else output[0]
    if not bool(torch.isfinite(values).all()):
        raise ModelError("the model's output is not finite (NaN or infinity)", hint="the weights are damaged: fetch them again")


def refuse_missing(model_dir: Path, report: Mapping[str, Any], model: Any) -> None:
    """Raise ModelError where `from_pretrained` found no weights for some parameters: it would start them at random."""
    optional = ("pooler.",) if type(model).__name__.endswith("Model") else ()
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(optional or ("\0",)))
    wrong = sorted(str(key) for key in report["mismatched_keys"])
    if missing or wrong:
        what = f"has no weights for {missing[0]}" if missing else f"has weights of a wrong shape: {wrong[0]}"
        more = len(missing) + len(wrong) - 1
        raise ModelError(f"the model {what}" + (f" and {more} more" if more else ""), where=str(model_dir), hint="download the model again")
