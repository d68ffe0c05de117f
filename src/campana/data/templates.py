"""Chat templates: the model's own or a named one of ours, as tokens with an exact mask.

    template = load_template("model", tokenizer)
    row = template.encode([Message("user", "2+2?"), Message("assistant", "4")])
    row.ids, row.supervised           # the answer and its end token are supervised, and nothing else
    template.prompt([Message("user", "2+2?")])   # the first tokens of row.ids, up to where the answer starts

Law: for each supervised turn, `encode(messages).ids[:start] == prompt(messages before that turn)`. It holds by construction, since a piece
that the model writes and a piece that it is given are never tokenised together. A control token inside a message stays ordinary text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from campana.data.format import DroppedRow
from campana.data.pieces import Piece, PieceTokenizer
from campana.data.rendering import OTHERS, ChangesEarlierTurns, Rendering
from campana.errors import DataError
from campana.parts import nearest
from campana.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = Sequence[Message | Mapping[str, str]]


def _by_roles(system: str, user: str, assistant: str, generation: str) -> str:
    return (
        "{{ bos }}{% for message in messages %}"
        "{% if message.role == 'system' %}" + system + "{% elif message.role == 'user' %}" + user + "{% else %}" + assistant + "{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}" + generation + "{% endif %}"
    )


NAMED: dict[str, str] = {
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "alpaca": _by_roles(
        "{{ message.content + '\n\n' }}",
        "{{ '### Instruction:\n' + message.content + '\n\n' }}",
        "{{ '### Response:\n' + message.content + eos_token + '\n\n' }}",
        "{{ '### Response:\n' }}",
    ),
    "belle": _by_roles(
        "{{ message.content + '\n\n' }}",
        "{{ 'Human: ' + message.content + '\n\n' }}",
        "{{ 'Assistant: ' + message.content + eos_token + '\n\n' }}",
        "{{ 'Assistant: ' }}",
    ),
    "plain": _by_roles("{{ message.content + '\n' }}", "{{ message.content + '\n' }}", "{{ message.content + eos_token + '\n' }}", ""),
}
"""Templates of ours. `bos` is the start token where the tokenizer sets one by itself, else empty."""

REQUIRED: dict[str, tuple[str, ...]] = {"chatml": ("<|im_start|>", "<|im_end|>")}
"""Tokens that a template of ours writes, which the tokenizer must know as one token each."""

FIXED_DATE = "26 Jul 2024"
"""For templates that write a date: the default of those that have one, the same on every day."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as tokens."""

    ids: list[int]
    supervised: list[bool]
    """Of the length of `ids`: whether the token is learned."""
    turns: tuple[tuple[int, int], ...]
    """(start, end) of each supervised answer, its end token included."""


class ChatTemplate:
    """A template bound to a tokenizer. Make it with `load_template`."""

    def __init__(self, name: str, source: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self._source = source
        self._tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise DataError("the tokenizer has no fast (Rust) form", hint="use a model folder with a tokenizer.json")
        _require_tokens(backend, REQUIRED.get(name, ()))
        backend.no_truncation()
        backend.no_padding()
        control, special = _control_tokens(backend, source)
        self._rendering = Rendering(source, _variables(tokenizer), control, special)
        self._pieces = PieceTokenizer(backend, control)
        self.end_id: int = backend.token_to_id(self._rendering.end_token)
        """The token that ends an answer."""
        eos = tokenizer.eos_token_id
        self.stop_ids: frozenset[int] = frozenset({self.end_id} | ({eos} if isinstance(eos, int) else set()))
        """Tokens at which generation stops."""

    @property
    def every_turn(self) -> bool:
        """False for a template that changes earlier answers as turns follow: only the last answer of a row is then learned."""
        return self._rendering.every_turn

    @property
    def end_is_pad(self) -> bool:
        """Whether the end token is the padding token too. It is learned all the same, because masks come from places, not from ids."""
        return self._tokenizer.pad_token_id == self.end_id

    def encode(self, messages: Turns) -> Encoded:
        """The tokens of a conversation, up to the end token of its last answer. Raises DroppedRow where the template has no form for it."""
        encoded = self.encode_many([messages])[0]
        if isinstance(encoded, DroppedRow):
            raise encoded
        return encoded

    def encode_many(self, conversations: Sequence[Turns]) -> list[Encoded | DroppedRow]:
        """As `encode`, for many at once on all cores; what cannot be encoded is in its place as a DroppedRow."""
        rows: list[tuple[list[Piece], str] | DroppedRow] = []
        for messages in conversations:
            try:
                rows.append(self._rendering.pieces(_messages(messages)))
            except ChangesEarlierTurns:
                rows.append(DroppedRow("refused by the template", "it changes earlier answers as turns follow"))
            except DroppedRow as dropped:
                rows.append(dropped)
        tokens = iter(self._pieces.rows([row for row in rows if not isinstance(row, DroppedRow)]))
        return [row if isinstance(row, DroppedRow) else _encoded(row[0], next(tokens)) for row in rows]

    def prompt(self, messages: Turns) -> list[int]:
        """The tokens to generate from: all turns so far, ending where the assistant starts to write.

        Rendered from the template itself every time, by another way than `encode`, so that the two can be compared.
        """
        try:
            pieces, mark = self._rendering.prompt_pieces(_messages(messages))
        except ChangesEarlierTurns:
            raise DroppedRow("refused by the template", "it changes earlier answers as turns follow") from None
        return [token for piece in self._pieces.rows([(pieces, mark)])[0] for token in piece]

    def describe(self) -> dict[str, Any]:
        """What the data report says of the template."""
        return {
            "name": self.name,
            "sha256": hashlib.sha256(self._source.encode()).hexdigest(),
            "end_token": self._tokenizer.convert_ids_to_tokens(self.end_id),
            "stop_ids": sorted(self.stop_ids),
            "supervised_turns": "every" if self._rendering.every_turn else "last",
            "rendered": "once a sequence of roles" if self._rendering.opaque else "every row",
        }


def load_template(name: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The chat template of that name for a tokenizer; `model` is the one that the tokenizer brings.

    Raises DataError: an unknown name, a model without a template, tokens that the tokenizer lacks, no end token, or a template whose
    text depends on the day.
    """
    if name == "model":
        own: Any = tokenizer.chat_template
        source = own.get("default") if isinstance(own, dict) else own
        if not source:
            raise DataError("the model brings no chat template", hint=f"name one: template: {' | '.join(NAMED)}")
        if "strftime_now" in source and "date_string" not in source:
            raise DataError("the model's chat template writes the date of the day, so training and generation would differ", hint=OTHERS)
    elif name in NAMED:
        source = NAMED[name]
        if "eos_token" in source and not tokenizer.eos_token:
            raise DataError(f"the template {name!r} needs an end token, and the tokenizer has none", hint="use a model with an eos_token")
    else:
        raise DataError(f"unknown template {name!r}", hint=nearest(name, ["model", *NAMED]))
    return ChatTemplate(name, source, tokenizer)


def _require_tokens(backend: Any, tokens: Sequence[str]) -> None:
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    missing = ", ".join(token for token in tokens if token not in added)
    if missing:
        raise DataError(f"the tokenizer has no token {missing}, which the template needs", hint="template: alpaca | belle | plain")


def _variables(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    given: Any = tokenizer.special_tokens_map
    special: dict[str, str] = dict(given)
    start: Any = tokenizer.encode("a")
    adds_bos = tokenizer.bos_token_id is not None and len(start) > 0 and start[0] == tokenizer.bos_token_id
    return {**special, "bos": special.get("bos_token", "") if adds_bos else "", "date_string": FIXED_DATE}


@lru_cache(maxsize=16)
def _literals(source: str) -> str:
    from jinja2 import Environment, TemplateError, nodes

    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)  # It is parsed, never rendered.
    except TemplateError:
        return source
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    return "\0".join(texts + [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)])


def _control_tokens(backend: Any, source: str) -> tuple[list[str], list[str]]:
    """All special tokens and the added tokens that the template itself writes; and the special tokens alone."""
    written = _literals(source)
    added = [token for token in backend.get_added_tokens_decoder().values() if len(token.content) > 1]
    return (
        [token.content for token in added if token.special or token.content in written],
        [token.content for token in added if token.special],
    )


def _messages(turns: Turns) -> list[Message]:
    return [turn if isinstance(turn, Message) else Message(turn["role"], turn["content"]) for turn in turns]  # type: ignore[arg-type]  # roles are checked by the template


def _encoded(pieces: Sequence[Piece], ids: Sequence[list[int]]) -> Encoded:
    tokens: list[int] = []
    supervised: list[bool] = []
    turns: list[tuple[int, int]] = []
    for piece, found in zip(pieces, ids, strict=True):
        if piece.supervised:
            turns.append((len(tokens), len(tokens) + len(found)))
        tokens += found
        supervised += [piece.supervised] * len(found)
    if supervised and supervised[0]:
        supervised[0] = False  # Nothing stands before a row's first token, so nothing can predict it.
    return Encoded(tokens, supervised, tuple(turns))
