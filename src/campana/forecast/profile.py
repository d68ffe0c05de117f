"""Profiles: how fast and how big one model's work is on one machine, measured; and what follows from that for other amounts of work.

    seconds = profile.seconds(passes, shape, method)
    profile.memory_bytes(passes.max_tokens, shape, method)

Plain arithmetic on the cost model's counts (`models.cost`): time is a fixed part, so much a pass, and so much an operation; memory is
what the process holds beside weights, gradients, optimiser state, kept activations or the key-value cache, which are computed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from campana.forecast.answers import AnsweringPasses, AnswerPass
from campana.forecast.packs import PackWork, TrainingPasses
from campana.models.cost import (
    BYTES,
    MethodLike,
    Precision,
    activation_bytes_per_token,
    disk_bytes,
    forward_flops,
    num_trainable,
    training_flops,
    training_memory_bytes,
)
from campana.models.shape import Shape, num_parameters

ROW_QUANTUM = 32
"""Rows of the packed engine's passes are padded to a multiple of this (`generation.lean`)."""


QUESTION_BYTES = 12_000
"""Of memory, a question more that a reader answers: a stage of 6,078 of SQuAD took 0.80 GB where a probe's 192 took 0.72 and 0.73."""


class _Coefficients:
    SCHEMA: ClassVar[str]

    def as_json(self) -> dict[str, Any]:
        """The form in the cache."""
        return asdict(self)  # type: ignore[call-overload]  # the subclasses are dataclasses

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """As `as_json` wrote it."""
        return cls(**value)


@dataclass(frozen=True)
class TuneProfile(_Coefficients):
    """Of tuning one shape by one family of methods (see `known.family`)."""

    load_seconds: float
    """Weights, proof, method: until the first pass."""
    other_seconds: float
    """Of a stage beside loading, training, validating and exporting."""
    first_seconds: float
    """What the first validation and the first step take more than others: memory that is touched for the first time."""
    pack_seconds: float
    flop_seconds: float
    step_seconds: float
    """Clipping and optimiser of one step, a parameter that learns."""
    export_seconds: float
    memory_offset_bytes: float
    """Peak of the process beside what the cost model counts."""
    compiled: bool
    """It ran by compiled code, which keeps less for the backward pass."""
    alone: bool = False
    """Rows cannot share a pack."""
    busy: float = 0.0
    """Share of the machine that others took while it was measured. Times are without it, as far as that goes."""

    def seconds(self, passes: TrainingPasses, shape: Shape, method: MethodLike, *, export: bool) -> float:
        """Of a whole stage."""
        flops = pack_flops(passes.whole, shape, method) * passes.scale
        train = len(passes.packs) * passes.scale * self.pack_seconds + flops * self.flop_seconds
        train += passes.num_steps * self.step_seconds * num_trainable(shape, method) + self.first_seconds
        flops = forward_pack_flops(passes.evaluation, shape)
        validate = passes.num_evaluations * validation_seconds(len(passes.validation), flops, self.pack_seconds, self.flop_seconds)
        ends = self.export_seconds if export else 0.0
        return self.load_seconds + train + validate + ends + self.other_seconds

    def memory_bytes(self, max_tokens: int, shape: Shape, method: MethodLike, precision: Precision, *, several: bool) -> int:
        """Peak of the process with packs of so many tokens, one or several a step."""
        counted = counted_tuning_bytes(max_tokens, shape, method, precision, several=several, compiled=self.compiled)
        return round(self.memory_offset_bytes + counted)

    def largest_pack(self, limit_bytes: int, shape: Shape, method: MethodLike, precision: Precision) -> int:
        """The most tokens of a pack, of several in a step, whose peak stays within a limit; 0 or less: none does."""

        def memory(tokens: int) -> int:
            return self.memory_bytes(tokens, shape, method, precision, several=True)

        a_token = activation_bytes_per_token(shape, method, precision=precision, compiled=self.compiled)
        most = max(0, limit_bytes) // a_token  # what else there is comes on top
        return bisect_right(range(most + 1), limit_bytes, key=memory) - 1


@dataclass(frozen=True)
class AnswerProfile(_Coefficients):
    """Of answering with one shape on one engine."""

    load_seconds: float
    merge_seconds: float
    """More, where an adapter is merged first."""
    other_seconds: float
    opening_seconds: float
    """An engine's own preparation, once a call."""
    read_pass_seconds: float
    read_flop_seconds: float
    step_seconds: float
    step_row_seconds: float
    """A step's time by its rows."""
    place_byte_seconds: float
    """A step's time by the bytes of keys and values that it reads."""
    memory_offset_bytes: float
    row_quantum: int = 1
    paged: bool = False
    """Whether the engine keeps keys in pages, and reads once what all prompts begin with."""
    busy: float = 0.0
    """As of `TuneProfile`."""

    def seconds(self, calls: list[AnsweringPasses], shape: Shape, *, adapted: bool, each: int) -> float:
        """Of a whole stage whose engine was called so often; `each`: bytes of a number."""
        work = sum(self.opening_seconds + call.scale * self.passes_seconds(call, shape, each) for call in calls)
        return self.load_seconds + self.merge_seconds * adapted + self.other_seconds + work

    def passes_seconds(self, call: AnsweringPasses, shape: Shape, each: int) -> float:
        """Of all admissions and steps of a call."""
        read = call.num_reads * self.read_pass_seconds + read_flops(call.read, shape) * self.read_flop_seconds
        rows = sum(padded_rows(rows, self.row_quantum) * count for rows, count in call.steps.items())
        seen = call.step_places * place_bytes(shape, each) * self.place_byte_seconds
        return read + call.steps.total() * self.step_seconds + rows * self.step_row_seconds + seen

    def memory_bytes(self, calls: list[AnsweringPasses], shape: Shape, *, each: int) -> int:
        """Peak of the process."""
        return round(self.memory_offset_bytes + max((counted_answering_bytes(call, shape, each) for call in calls), default=0))


@dataclass(frozen=True)
class ReadTrainProfile(_Coefficients):
    """Of training one encoder by one objective. Times are by tokens that are read, whatever the rows."""

    load_seconds: float
    other_seconds: float
    first_seconds: float
    """What the first steps take more than others: memory that is touched for the first time."""
    token_seconds: float
    validation_token_seconds: float
    fit_token_seconds: float
    """Of the fit, which reads the held-out questions in fp32."""
    export_seconds: float
    peak_bytes: float
    peak_tokens: int
    """Of the step that it was measured in."""
    token_bytes: float
    """What a token more in the largest step takes."""
    model_bytes: int
    busy: float = 0.0

    def seconds(self, work: Mapping[str, Any], num_evaluations: int, *, fit: bool) -> float:
        """Of a whole stage that does this work (`contents.reading_work`)."""
        validate = (num_evaluations + 1) * work["validated_tokens"] * self.validation_token_seconds  # the first before any step
        ends = self.export_seconds + fit * work["held_out_tokens"] * self.fit_token_seconds
        train = self.first_seconds + work["tokens"] * self.token_seconds
        return self.load_seconds + work["seconds"] + train + validate + ends + self.other_seconds

    def memory_bytes(self, work: Mapping[str, Any]) -> int:
        """Peak of the process."""
        return round(self.peak_bytes + (work["heavy_tokens"] - self.peak_tokens) * self.token_bytes + work["table_bytes"])


@dataclass(frozen=True)
class ReadAnswerProfile(_Coefficients):
    """Of answering with one encoder."""

    load_seconds: float
    token_seconds: float
    score_seconds: float
    score_question_seconds: float
    other_seconds: float
    peak_bytes: float
    num_questions: int
    """That it was measured with."""
    question_bytes: float
    """On the disk."""
    busy: float = 0.0

    def seconds(self, work: Mapping[str, Any]) -> float:
        """Of a whole stage with these questions (`contents.suite_work`)."""
        score = self.score_seconds + work["questions"] * self.score_question_seconds
        return self.load_seconds + work["tokens"] * self.token_seconds + score + self.other_seconds

    def memory_bytes(self, work: Mapping[str, Any]) -> int:
        """Peak of the process."""
        return round(self.peak_bytes + max(0, work["questions"] - self.num_questions) * QUESTION_BYTES)


def padded_rows(rows: int, quantum: int) -> int:
    """Rows that are computed for so many answers."""
    return -(-rows // quantum) * quantum


def pack_flops(pack: PackWork, shape: Shape, method: MethodLike) -> int:
    """Forward and backward of one pack."""
    return training_flops(shape, pack.tokens, pack.supervised, pack.squares, method)


def validation_seconds(num_packs: int, flops: int, pack_seconds: float, flop_seconds: float) -> float:
    """Of one evaluation's forward passes, by what packs and operations take in training: a third of a pack's calls are forward."""
    return num_packs * pack_seconds / 3 + flops * flop_seconds


def forward_pack_flops(pack: PackWork, shape: Shape) -> int:
    """Forward of one pack."""
    return forward_flops(shape, pack.tokens, pack.supervised, pack.squares)


def read_flops(one: AnswerPass, shape: Shape) -> int:
    """Of an admission's prompts."""
    return forward_flops(shape, one.read_tokens, one.read_rows, one.read_squares)


def place_bytes(shape: Shape, each: int) -> int:
    """Keys and values of one token."""
    return 2 * shape.num_layers * shape.kv_size * each


def counted_tuning_bytes(max_tokens: int, shape: Shape, method: MethodLike, precision: Precision, *, several: bool, compiled: bool) -> int:
    """Weights, gradients, optimiser state, kept activations and a block of logits."""
    frozen = BYTES[precision]
    return training_memory_bytes(shape, method, max_tokens, compiled=compiled, precision=precision, frozen_bytes=frozen, several=several)


def counted_answering_bytes(call: AnsweringPasses, shape: Shape, each: int) -> int:
    """Weights, keys and values, and two copies of a step's logits in fp32."""
    return num_parameters(shape) * each + call.peak_places * place_bytes(shape, each) + 8 * call.max_rows * shape.vocab_size


def stored_bytes(shape: Shape, method: MethodLike | None, tokenizer_bytes: int) -> int:
    """Files of a model (None), or of what a method learned, with the tokenizer beside it."""
    return disk_bytes(shape, method) + tokenizer_bytes
