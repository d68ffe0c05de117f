"""Variance components of a mean over categories, of scores crossed by seed and prompt: who owes how much of the uncertainty.

Owns the sums of squares of one table. Refuses to guess: what cannot be estimated is None.

    components(scores_SN, categories_N, "macro").seeds    # the share of the headline's variance that is training luck

Legend: S seeds, N prompts, C categories. The model is `y[s,i] = mean[c] + prompt[i] + seed[s] + seed_by_category[s,c] + residual[s,i]`,
categories fixed, prompts drawn within their category, seeds drawn. The headline is `sum_c w[c] mean[c]`. Three mean squares give
three variances *of the headline* (Cochran's two-way estimator; the same as Obuchowski and Rockette's for readers and cases):

- `V_P`, the spread of the prompts' means within categories, holds prompts and residual;
- `V_S`, the spread of the seeds' headlines, holds seeds (with seed by category) and residual;
- `V_R`, the interaction within categories, holds the residual, which both others have counted.

So the variance of the headline is `V_P + V_S - V_R`, with `V_S - V_R` at least 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
Average = Literal["macro", "micro"]
NO_VARIANCE = 1e-20
"""A variance below it is rounding: scores are of order 1."""


@dataclass(frozen=True)
class Components:
    """The headline of one table and the variances that make up its uncertainty, all in squared units of the score."""

    mean: float
    per_seed: tuple[float, ...]
    """The headline of every seed."""
    largest: float
    """The largest absolute value of a prompt, in the mean of the seeds."""
    num_items: int
    num_seeds: int
    num_effective: float
    """`1 / sum(w[c]**2 / n[c])`: as many prompts of one category would give the same precision."""
    prompts_and_residual: float | None
    """`V_P`; None where no two prompts can be compared."""
    prompts_df: float
    """Satterthwaite's degrees of freedom of `V_P`."""
    seeds_and_residual: float | None
    """`V_S`, with S - 1 degrees of freedom; None with one seed."""
    residual: float | None
    """`V_R`, at most `V_P`; None with one seed."""

    @property
    def prompts(self) -> float | None:
        """The share of the variance that more prompts, not more seeds, would lessen. With one seed it holds the residual too."""
        return None if self.prompts_and_residual is None else self.prompts_and_residual - (self.residual or 0.0)

    @property
    def seeds(self) -> float | None:
        """The share that more seeds, not more prompts, would lessen: `max(V_S - taken * V_R, 0)`. None with one seed.

        `taken` is `1 - 1 / (2 (S - 1)**2)`, near 1 but for two seeds. Of so few, `V_S` is often below `V_R` even where seeds do move
        something, and taking all of `V_R` off would call that no luck at all. Chosen by simulation (docs/statistics.md).
        """
        if self.seeds_and_residual is None or self.residual is None:
            return None
        taken = 1.0 - 0.5 / (self.num_seeds - 1) ** 2
        return max(self.seeds_and_residual - taken * self.residual, 0.0)

    @property
    def variance(self) -> float | None:
        """Of the headline: prompts, seeds and residual together."""
        return None if self.prompts_and_residual is None else self.prompts_and_residual + (self.seeds or 0.0)


def weights_of(counts_C: Floats, average: Average) -> Floats:
    """The weight of every category's mean in the headline; they add up to 1."""
    return counts_C / counts_C.sum() if average == "micro" else np.full(len(counts_C), 1.0 / len(counts_C))


def components(table_SN: Floats, categories_N: Codes, average: Average) -> Components:
    """The components of a table of scores (or of differences of scores): one row a seed, one column a prompt.

    `categories_N` holds each prompt's category as an integer. Rows must be independent draws: a repeated row is one row.
    Raises ValueError for an empty table.
    """
    num_seeds, num_items = table_SN.shape
    if not num_seeds or not num_items:
        raise ValueError(f"a table of {num_seeds} seeds and {num_items} prompts has no mean")
    code_N = np.unique(categories_N, return_inverse=True)[1]
    counts_C = np.bincount(code_N).astype(np.float64)
    weights_C = weights_of(counts_C, average)
    means_SC = np.stack([np.bincount(code_N, row) for row in table_SN]) / counts_C
    prompt_N = table_SN.mean(axis=0)
    category_C = np.bincount(code_N, prompt_N) / counts_C
    squares_C = _sums(code_N, (prompt_N - category_C[code_N]) ** 2)
    share_C = weights_C**2 / counts_C
    v_prompts, prompts_df = _stratified(squares_C, counts_C - 1, share_C)
    if v_prompts is None and num_items > 1:
        # Collapsed strata: one prompt in every category, so the spread between categories counts too (too wide, never too narrow).
        v_prompts, prompts_df = float(prompt_N.var(ddof=1)) * float(share_C.sum()), num_items - 1.0
    per_seed_S = means_SC @ weights_C
    v_seeds, v_residual = None, None
    if num_seeds > 1:
        v_seeds = float(per_seed_S.var(ddof=1)) / num_seeds
        v_seeds = v_seeds if v_seeds > NO_VARIANCE else 0.0
        rest_SN = table_SN - means_SC[:, code_N] - prompt_N + category_C[code_N]
        rest_C = _sums(code_N, (rest_SN**2).sum(axis=0))
        v_residual = (_stratified(rest_C, (counts_C - 1) * (num_seeds - 1), share_C)[0] or 0.0) / num_seeds
        v_residual = min(v_residual, v_prompts or 0.0)
    return Components(
        mean=float(per_seed_S.mean()),
        per_seed=tuple(float(value) for value in per_seed_S),
        largest=float(np.abs(prompt_N).max()),
        num_items=num_items,
        num_seeds=num_seeds,
        num_effective=1.0 / float(share_C.sum()),
        prompts_and_residual=v_prompts,
        prompts_df=prompts_df,
        seeds_and_residual=v_seeds,
        residual=v_residual,
    )


def _sums(code_N: Codes, values_N: Floats) -> Floats:
    """The sum of every category."""
    return np.bincount(code_N, values_N).astype(np.float64)


def _stratified(squares_C: Floats, df_C: Floats, share_C: Floats) -> tuple[float | None, float]:
    """`sum_c share[c] * squares[c] / df[c]` and its Satterthwaite degrees of freedom.

    A category of one prompt has no spread of its own and takes the pooled one; where no category has two, there is none (None).
    """
    own = df_C > 0
    if not own.any():
        return None, 0.0
    terms = share_C[own] * squares_C[own] / df_C[own]
    dfs = df_C[own]
    if not own.all():
        pooled = float(squares_C[own].sum() / dfs.sum())
        terms = np.append(terms, share_C[~own].sum() * pooled)
        dfs = np.append(dfs, dfs.sum())
    total = float(terms.sum())
    if total < NO_VARIANCE:
        return 0.0, float(df_C[own].sum())
    below = float((terms**2 / dfs).sum())
    return total, total**2 / below
