"""Question answering as the well-known scripts on transformers do it: what campana's reader is measured against.

Written from the published algorithm (BERT's run_squad and its successors), with the same transformers, tokenizers and weights:
- every window padded to 384 tokens, stride 128, the tokenizer run on each (question, passage) pair;
- a Trainer-like loop in fp32: batches of 8 windows in file order for evaluation, 16 for training, AdamW, clipped gradients;
- answers by Python loops over the 20 best starts x 20 best ends of each window, the lowest null score of all windows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_LENGTH, STRIDE, NUM_BEST, LONGEST_ANSWER = 384, 128, 20, 30
EVALUATION_BATCH, TRAINING_BATCH, TOKENISED_AT_ONCE = 8, 16, 1000


def features_of(tokenizer: Any, examples: Sequence[Any], answers: bool = False) -> list[dict[str, Any]]:
    """One feature a window, as lists; with `answers`, start and end positions (0, the classifier token, where there is none)."""
    features: list[dict[str, Any]] = []
    for first in range(0, len(examples), TOKENISED_AT_ONCE):
        part = examples[first : first + TOKENISED_AT_ONCE]
        encoded = tokenizer(
            [example.question.lstrip() for example in part],
            [example.passage for example in part],
            truncation="only_second",
            max_length=MAX_LENGTH,
            stride=STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            padding="max_length",
        )
        for row, sample in enumerate(encoded["overflow_to_sample_mapping"]):
            sides = encoded.sequence_ids(row)
            offsets = [pair if side == 1 else None for pair, side in zip(encoded["offset_mapping"][row], sides, strict=True)]
            feature = {name: encoded[name][row] for name in ("input_ids", "attention_mask", "token_type_ids")}
            feature |= {"example": first + sample, "offsets": offsets}
            if answers:
                feature |= dict(zip(("start", "end"), positions_of(part[sample], offsets), strict=True))
            features.append(feature)
    return features


def positions_of(example: Any, offsets: list[Any]) -> tuple[int, int]:
    """First and last token of the answer in a window, or (0, 0) where it does not hold all of it."""
    if not example.spans:
        return 0, 0
    span = example.spans[0]
    inside = [index for index, pair in enumerate(offsets) if pair is not None]
    if not inside or offsets[inside[0]][0] > span.start or offsets[inside[-1]][1] < span.end:
        return 0, 0
    starts = [index for index in inside if offsets[index][0] <= span.start]
    ends = [index for index in inside if offsets[index][1] >= span.end]
    return starts[-1], ends[0]


def logits_of(model: Any, features: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(W, 384) start and end logits."""
    import torch

    starts, ends = [], []
    for first in range(0, len(features), EVALUATION_BATCH):
        part = features[first : first + EVALUATION_BATCH]
        batch = {name: torch.tensor([feature[name] for feature in part]) for name in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.no_grad():
            output = model(**batch)
        starts.append(output.start_logits.numpy())
        ends.append(output.end_logits.numpy())
    return np.concatenate(starts), np.concatenate(ends)


Pieces = list[tuple[dict[str, Any], list[dict[str, Any]]]]


def pieces_of(num_examples: int, features: Sequence[dict[str, Any]], logits: tuple[np.ndarray, np.ndarray]) -> Pieces:
    """For each example the lowest null and the best spans, their characters and scores."""
    windows = defaultdict(list)
    for index, feature in enumerate(features):
        windows[feature["example"]].append(index)
    found: Pieces = []
    for number in range(num_examples):
        lowest_null: dict[str, Any] = {}
        candidates = []
        for index in windows[number]:
            start_logits, end_logits, offsets = logits[0][index], logits[1][index], features[index]["offsets"]
            null = start_logits[0] + end_logits[0]
            if not lowest_null or null < lowest_null["score"]:
                lowest_null = {"offsets": (0, 0), "score": null}
            starts = np.argsort(start_logits)[-1 : -NUM_BEST - 1 : -1].tolist()
            ends = np.argsort(end_logits)[-1 : -NUM_BEST - 1 : -1].tolist()
            for start in starts:
                for end in ends:
                    if start >= len(offsets) or end >= len(offsets) or offsets[start] is None or offsets[end] is None:
                        continue
                    if end < start or end - start + 1 > LONGEST_ANSWER:
                        continue
                    score = start_logits[start] + end_logits[end]
                    candidates.append({"offsets": (offsets[start][0], offsets[end][1]), "score": score})
        found.append((lowest_null, sorted(candidates, key=lambda candidate: candidate["score"], reverse=True)[:NUM_BEST]))
    return found


def answers_of(examples: Sequence[Any], features: Sequence[dict[str, Any]], logits: tuple[np.ndarray, np.ndarray]) -> dict[str, str]:
    """Question id -> answer, "" for none; at threshold 0. With the text and the probability of each kept span."""
    predictions: dict[str, str] = {}
    for example, (lowest_null, spans) in zip(examples, pieces_of(len(examples), features, logits), strict=True):
        kept = [*spans, lowest_null]
        for candidate in kept:
            begin, stop = candidate["offsets"]
            candidate["text"] = example.passage[begin:stop]
        scores = np.array([candidate["score"] for candidate in kept])
        exponents = np.exp(scores - np.max(scores))
        for probability, candidate in zip(exponents / exponents.sum(), kept, strict=True):
            candidate["probability"] = probability
        best = next((candidate for candidate in kept if candidate["text"]), None)
        predictions[example.id] = best["text"] if best is not None and lowest_null["score"] - best["score"] <= 0 else ""
    return predictions


def evaluate(model: Any, tokenizer: Any, examples: Sequence[Any]) -> dict[str, str]:
    """The whole way from examples to answers."""
    features = features_of(tokenizer, examples)
    return answers_of(examples, features, logits_of(model, features))


def train(model: Any, features: Sequence[dict[str, Any]], num_steps: int, learning_rate: float = 3e-5) -> None:
    """Optimiser steps of 16 windows each, in a shuffled order."""
    import torch

    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(num_steps, 1))
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0)).tolist()
    for step in range(num_steps):
        part = [features[order[(step * TRAINING_BATCH + index) % len(order)]] for index in range(TRAINING_BATCH)]
        batch = {name: torch.tensor([feature[name] for feature in part]) for name in ("input_ids", "attention_mask", "token_type_ids")}
        starts, ends = (torch.tensor([feature[name] for feature in part]) for name in ("start", "end"))
        loss = model(**batch, start_positions=starts, end_positions=ends).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    model.eval()
