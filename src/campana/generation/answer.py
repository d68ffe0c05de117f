"""Answer a suite: items in, `answers.jsonl` out, each turn journalled as it ends.

It owns the stage's work from files to files. An engine makes tokens; this makes prompts of items and text of tokens.

    answer_suite(engine=Packed(), model_dir=base, tuned_dir=None, suite_path=suite, suite_format="campana", template_name="model", ...)

The file is in the order of the suite and, however often the run was killed, the same to the byte as that of an undisturbed run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from campana.errors import DataError, ModelError
from campana.generation.engine import Engine, Greedy, Phases, Request, Sample
from campana.generation.meter import meter
from campana.generation.turns import Records, TurnRecord, answer_of, messages_until, num_turns, open_groups, read_records
from campana.journal import Journal
from campana.records import Item, write_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from campana.data.templates import ChatTemplate
    from campana.models.shape import Shape
    from campana.native.compiled import Compiled

_TELL_SECONDS = 0.5
"""Time between two reports of progress."""


class Progress(Protocol):
    """Tells the person how far the stage is."""

    def __call__(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """`done` of `total`, in `unit`s, and further figures by name."""


def answer_suite(
    *,
    engine: Engine,
    model_dir: Path,
    tuned_dir: Path | None,
    suite_path: Path,
    suite_format: Literal["campana", "belle"],
    template_name: str,
    sampling: Greedy | Sample,
    max_new_tokens: int,
    max_items: int | None,
    precision: Literal["fp32", "bf16"],
    journal_every: int,
    out_dir: Path,
    scratch_dir: Path,
    progress: Progress,
    compiled: Compiled | None = None,
) -> Mapping[str, Any]:
    """Let a model answer the chosen items of a suite; returns the meter (see `generation.meter`).

    DataError: a bad suite, a template that refuses an item, a conversation longer than the model's positions. ModelError: a model that
    cannot be loaded, or that the engine cannot run exactly.
    """
    from campana.data.suites import choose_items, read_suite
    from campana.data.templates import load_template
    from campana.models.load import load_model, load_tokenizer

    items = choose_items(read_suite(suite_path, suite_format), max_items)
    tokenizer = load_tokenizer(model_dir)
    template = load_template(template_name, tokenizer)
    phases, told, load_seconds = Phases(), _Told(progress, items), 0.0
    with Journal(scratch_dir / "turns.jsonl", journal_every) as journal:
        records = _of_items(read_records(journal.rows()), items)
        told.answered(len(records))
        if len(records) < sum(num_turns(item) for item in items):
            started = time.perf_counter()
            model = load_model(model_dir, tuned_dir, precision=precision)
            load_seconds = time.perf_counter() - started
            asker = _Asker(engine, model, tokenizer, template, sampling, max_new_tokens, phases, told.tokens, compiled)
            for turn in range(max(map(num_turns, items))):
                for group in open_groups(items, turn, records, engine.group_size):
                    for record in asker.ask(group, turn, records):
                        if (record.item_id, turn) in records:
                            continue
                        journal.append(record.as_row())
                        records[(record.item_id, turn)] = record
                        told.answered(len(records))
    write_jsonl(out_dir / "answers.jsonl", (answer_of(item, records) for item in items))
    return meter([records[key] for key in sorted(records)], phases, load_seconds, told.num_tokens, _shape_of(model_dir))


def _shape_of(model_dir: Path) -> Shape | None:
    """None where the cost model does not know the architecture."""
    from campana.models.load import read_config
    from campana.models.shape import Shape

    try:
        return Shape.from_config(read_config(model_dir))
    except ModelError:
        return None


def _of_items(records: Records, items: Sequence[Item]) -> Records:
    known = {(item.id, turn) for item in items for turn in range(num_turns(item))}
    return {key: record for key, record in records.items() if key in known}


class _Asker:
    """Turns of items into requests, completions into records."""

    def __init__(
        self,
        engine: Engine,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate,
        sampling: Greedy | Sample,
        max_new_tokens: int,
        phases: Phases,
        on_tokens: Callable[[int], None],
        compiled: Compiled | None,
    ) -> None:
        self._engine, self._model, self._tokenizer, self._template = engine, model, tokenizer, template
        self._sampling, self._max_new_tokens, self._phases, self._on_tokens = sampling, max_new_tokens, phases, on_tokens
        self._compiled = compiled
        self._stop_ids = template.stop_ids | _end_ids(model)
        self._most_tokens: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def ask(self, items: Sequence[Item], turn: int, records: Records) -> Iterator[TurnRecord]:
        """Yield the items' answers to one turn, as they end."""
        requests = [Request(f"{item.id}#{turn}", self._prompt(item, turn, records)) for item in items]
        ids = {request.id: item.id for request, item in zip(requests, items, strict=True)}
        lengths = {request.id: len(request.prompt_ids) for request in requests}
        completions = self._engine.complete(
            self._model, requests, self._sampling, self._max_new_tokens, self._stop_ids, self._on_tokens, self._phases, self._compiled
        )
        for completion in completions:
            yield TurnRecord(
                item_id=ids[completion.id],
                turn=turn,
                text=self._text(completion.token_ids),
                finish=completion.finish,
                num_prompt_tokens=lengths[completion.id],
                num_completion_tokens=len(completion.token_ids) + (completion.finish == "stop"),
                num_shared_tokens=completion.num_shared,
            )

    def _prompt(self, item: Item, turn: int, records: Records) -> tuple[int, ...]:
        from campana.data.format import DroppedRow

        where = f"item {item.id!r}, turn {turn + 1}"
        try:
            prompt = tuple(self._template.prompt(messages_until(item, turn, records)))
        except DroppedRow as refused:
            raise DataError(
                f"the chat template has no form for it: {refused}", where=where, hint="template: chatml, or another"
            ) from refused
        if self._most_tokens is not None and len(prompt) + self._max_new_tokens > self._most_tokens:
            raise DataError(
                f"{len(prompt)} prompt tokens and {self._max_new_tokens} new ones are more than the model's {self._most_tokens} positions",
                where=where,
                hint=f"generate: {{max_new_tokens: {max(1, self._most_tokens - len(prompt))}}}, or leave the item out",
            )
        return prompt

    def _text(self, token_ids: Sequence[int]) -> str:
        """The text of new tokens, without control tokens, with its white space as it was made."""
        text: Any = self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


def _end_ids(model: PreTrainedModel) -> frozenset[int]:
    """End tokens of the model's generation config."""
    ends: Any = getattr(model.generation_config, "eos_token_id", None)
    if isinstance(ends, int):
        return frozenset({ends})
    return frozenset(ends or ())


class _Told:
    """Progress in answers, at a measured pace."""

    def __init__(self, progress: Progress, items: Sequence[Item]) -> None:
        self._progress, self._total = progress, sum(num_turns(item) for item in items)
        self._started = self._last = time.perf_counter()
        self._done = 0
        self.num_tokens = 0

    def answered(self, done: int) -> None:
        self._done = done
        if done == self._total:
            self._tell()

    def tokens(self, count: int) -> None:
        self.num_tokens += count
        if time.perf_counter() - self._last >= _TELL_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._last = time.perf_counter()
        rate = self.num_tokens / max(self._last - self._started, 1e-9)
        self._progress(self._done, self._total, "answers", tokens_per_second=round(rate, 1))
