"""How often campana's 95% intervals hold the truth, by simulation: arms' means and paired differences, over prompts and seeds.

    python benchmarks/coverage.py            # about six minutes on one free core
    python benchmarks/coverage.py --quick    # a few settings, some seconds

Scores are drawn from crossed random effects on the logit scale: a category's level, a prompt's difficulty (shared by both arms, and a
part of each arm's own), a seed's luck (overall and in each category), and a residual. Binary scores are coin flips of the result,
continuous scores the result itself. The truth is the expectation over prompts and seeds, by Gauss-Hermite quadrature. With one seed,
luck is 0: the intervals claim to cover prompts only. `luck` is the standard deviation of a seed's effect in logits (0.1 is about
2 points of score).

Prints a table a section and, as the last line, one JSON object with "settings", "within" (the share inside 0.93..0.97), "methods",
"limits", "strict_limits" and "family_wise_error".
Legend: S seeds, N prompts, C categories, B bootstrap draws.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from campana.stats.comparison import Comparison, compared
from campana.stats.components import Average, Components, components, weights_of
from campana.stats.estimate import SEED_POWER, Difference, score_estimate
from campana.stats.scores import ScoreTable

Floats = NDArray[np.float64]
BELLE = (285, 179, 131, 98, 113, 65, 52, 40, 37)
PROMPT_SD, OWN_SD, RESIDUAL_SD, CATEGORY_LUCK = 1.0, 0.5, 0.5, 0.5
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(61)


@dataclass(frozen=True)
class Setting:
    """One simulated study of two arms."""

    binary: bool
    level: float
    """The left arm's macro mean."""
    gap: float
    """Left minus right, macro."""
    sizes: tuple[int, ...]
    seeds: int
    luck: float

    @property
    def name(self) -> str:
        """For the table."""
        sizes = "BELLE" if self.sizes == BELLE else f"{len(self.sizes)}x{self.sizes[0]}"
        return f"{'binary' if self.binary else 'continuous':10} {self.level:4} {sizes:>6} S={self.seeds} luck={self.luck}"


@dataclass(frozen=True)
class Coverage:
    """Shares of the replicates whose interval held the truth."""

    mean: float
    difference: float
    seed_share: float
    """The seeds' share of the variance of the mean, estimated, on average."""


class Simulator:
    """Draws pairs of tables of scores whose true means are known."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.rng = np.random.default_rng([seed, setting.seeds, len(setting.sizes), sum(setting.sizes), round(1000 * setting.level)])
        self.codes = np.repeat(np.arange(len(setting.sizes)), setting.sizes)
        self.luck = setting.luck if setting.seeds > 1 else 0.0
        self.sd = math.sqrt(PROMPT_SD**2 + OWN_SD**2 + RESIDUAL_SD**2 + self.luck**2 * (1 + CATEGORY_LUCK**2))
        offsets_C = self.rng.normal(0.0, 0.5, len(setting.sizes))
        self.levels = [self._at(setting.level - gap, offsets_C) for gap in (0.0, setting.gap)]

    def truth(self, average: Average) -> tuple[float, float]:
        """The left arm's mean, and the difference."""
        weights_C = weights_of(np.asarray(self.setting.sizes, dtype=np.float64), average)
        left, right = (float(self._means(level_C) @ weights_C) for level_C in self.levels)
        return left, left - right

    def draw(self) -> tuple[Floats, Floats]:
        """Two S x N tables on the same prompts."""
        shared_N = PROMPT_SD * self.rng.standard_normal(len(self.codes))
        left, right = (self.arm(level_C, shared_N) for level_C in self.levels)
        return left, right

    def arm(self, level_C: Floats, shared_N: Floats) -> Floats:
        """One arm's S x N table; `shared_N` is what makes prompts hard for every arm."""
        seeds, count = self.setting.seeds, len(self.codes)
        prompts_N = level_C[self.codes] + shared_N + OWN_SD * self.rng.standard_normal(count)
        luck_SC = self.rng.standard_normal((seeds, 1)) + CATEGORY_LUCK * self.rng.standard_normal((seeds, len(level_C)))
        logit_SN = prompts_N + self.luck * luck_SC[:, self.codes] + RESIDUAL_SD * self.rng.standard_normal((seeds, count))
        chance_SN = 1.0 / (1.0 + np.exp(-logit_SN))
        return (self.rng.random((seeds, count)) < chance_SN).astype(np.float64) if self.setting.binary else chance_SN

    def _means(self, level_C: Floats) -> Floats:
        weights = NODE_WEIGHTS / NODE_WEIGHTS.sum()
        return (1.0 / (1.0 + np.exp(-(level_C[:, None] + self.sd * NODES))) * weights).sum(axis=1)

    def _at(self, mean: float, offsets_C: Floats) -> Floats:
        return brentq(lambda shift: float(self._means(shift + offsets_C).mean()) - mean, -20.0, 20.0) + offsets_C


def coverage(setting: Setting, average: Average, replicates: int, seed: int = 0) -> Coverage:
    """Of the shipped intervals at 95%."""
    simulator = Simulator(setting, seed)
    true_mean, true_difference = simulator.truth(average)
    means = differences = 0
    share = 0.0
    for _ in range(replicates):
        left_SN, right_SN = simulator.draw()
        parts = components(left_SN, simulator.codes, average)
        means += _holds(score_estimate(parts, 0.95), true_mean)
        share += (parts.seeds or 0.0) / (parts.variance or 1.0) if parts.variance else 0.0
        gaps_SN = left_SN - right_SN
        num_nonzero = int((np.abs(gaps_SN.mean(axis=0)) > 1e-9).sum())
        differences += _holds(Difference.of(components(gaps_SN, simulator.codes, average), num_nonzero).estimate(0.95), true_difference)
    return Coverage(means / replicates, differences / replicates, share / replicates)


def _holds(estimate: object, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high  # type: ignore[attr-defined]  # an Estimate of a table with scores has both


def rivals(setting: Setting, average: Average, replicates: int, draws: int = 300, seed: int = 0) -> dict[str, float]:
    """Coverage of the mean by methods not chosen: bootstraps (percentile) and the plain t with Satterthwaite's degrees of freedom."""
    simulator = Simulator(setting, seed)
    truth = simulator.truth(average)[0]
    weights_C = weights_of(np.asarray(setting.sizes, dtype=np.float64), average)
    held = dict.fromkeys(("prompts bootstrap", "pigeonhole bootstrap", "Satterthwaite t", "seeds t", "shipped"), 0)
    for _ in range(replicates):
        table_SN = simulator.draw()[0]
        counts_BN = np.concatenate(
            [
                simulator.rng.multinomial(size, np.full(size, 1 / size), draws) * weight / size
                for size, weight in zip(setting.sizes, weights_C, strict=True)
            ],
            axis=1,
        )
        headlines_BS = counts_BN @ table_SN.T
        seeds_BS = simulator.rng.multinomial(setting.seeds, np.full(setting.seeds, 1 / setting.seeds), draws) / setting.seeds
        for name, boot_B in (
            ("prompts bootstrap", headlines_BS.mean(axis=1)),
            ("pigeonhole bootstrap", (headlines_BS * seeds_BS).sum(axis=1)),
        ):
            low, high = np.quantile(boot_B, [0.025, 0.975])
            held[name] += bool(low <= truth <= high)
        parts = components(table_SN, simulator.codes, average)
        held["Satterthwaite t"] += abs(parts.mean - truth) <= _satterthwaite(parts)
        seeds_only = stats.t.ppf(0.975, setting.seeds - 1) * math.sqrt(parts.seeds_and_residual or 0.0) if setting.seeds > 1 else 0.0
        held["seeds t"] += abs(parts.mean - truth) <= seeds_only
        held["shipped"] += _holds(score_estimate(parts, 0.95), truth)
    return {name: count / replicates for name, count in held.items()}


def _satterthwaite(parts: Components) -> float:
    prompts, seeds = parts.prompts_and_residual or 0.0, parts.seeds or 0.0
    below = prompts**2 / parts.prompts_df + (seeds**2 / (parts.num_seeds - 1) if seeds else 0.0)
    return float(stats.t.ppf(0.975, (prompts + seeds) ** 2 / below)) * math.sqrt(prompts + seeds) if below else 0.0


def family_wise_error(replicates: int, seeds: int, luck: float, size: int, seed: int = 0) -> float:
    """How often any of the six pairs of four equal arms is called different."""
    simulator = Simulator(Setting(True, 0.6, 0.0, (size,) * 9, seeds, luck), seed)
    names = tuple("abcd")
    arms = {name: ({"arm": name}, tuple(f"{name}/{k}" for k in range(seeds))) for name in names}
    pairs = [(f"{one} - {other}", (one,), (other,), False) for one, other in itertools.combinations(names, 2)]
    wrong = 0
    for replicate in range(replicates):
        shared_N = PROMPT_SD * simulator.rng.standard_normal(len(simulator.codes))
        tables = {name: simulator.arm(simulator.levels[0], shared_N) for name in names}
        values = {f"{name}/{k}": tables[name][k] for name in names for k in range(seeds)}
        table = ScoreTable(tuple(str(k) for k in range(len(simulator.codes))), tuple("123456789"), simulator.codes, values, {})
        comparisons = [Comparison.of(table, arms, pair, "macro") for pair in pairs]
        found = compared(comparisons, table, arms, average="macro", confidence=0.95, margin=0.0, seed=replicate)
        wrong += any(each["p_adjusted"] <= 0.05 for each in found)
    return wrong / replicates


def limit(seeds: int, draws: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Lowest and highest coverage, over all shares of luck and residual, with prompts so many that their variance is known.

    The same formulas as `Components.seeds` and `degrees_of_freedom`, over arrays of draws.
    """
    rng = np.random.default_rng(seed)
    taken = 1.0 - 0.5 / (seeds - 1) ** 2
    found: dict[str, list[float]] = {"shipped": [], "shipped, luck at most half": [], "Satterthwaite": []}
    for residual_share, luck in itertools.product((0.0, 0.3, 0.6, 0.9), (0.0, 0.1, 0.2, 0.35, 0.5, 0.6, 0.7, 0.85, 0.95)):
        v_prompts = 1.0 - luck
        v_residual = residual_share * v_prompts
        error = np.abs(rng.standard_normal(draws))
        v_seeds = (luck + v_residual) * rng.chisquare(seeds - 1, draws) / (seeds - 1)
        variance = v_prompts + np.maximum(v_seeds - taken * v_residual, 0.0)
        share = np.minimum(np.where(v_seeds > taken * v_residual, v_seeds, 0.0) / variance, 1.0)
        df = 1.0 / ((1.0 - share) ** 2 / 1000.0 + share**SEED_POWER / (seeds - 1))
        shipped = float(np.mean(error <= np.sqrt(variance) * stats.t.ppf(0.975, df)))
        found["shipped"].append(shipped)
        if luck <= 0.5:
            found["shipped, luck at most half"].append(shipped)
        extra = np.maximum(v_seeds - v_residual, 0.0)
        total = v_prompts + extra
        df = total**2 / (v_prompts**2 / 1000.0 + extra**2 / (seeds - 1))
        found["Satterthwaite"].append(float(np.mean(error <= np.sqrt(total) * stats.t.ppf(0.975, df))))
    return {name: (min(values), max(values)) for name, values in found.items()}


def strict_limit(seeds: int, draws: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Of 99% and 99.8% intervals, with prompts as in `limit` and luck at most half of the variance: the most errors over those promised, as
    shipped and where seeds enter the degrees of freedom only if `V_S` is above `V_R`; and how much wider the former are in the mean where
    seeds move nothing and a tenth, three tenths or six tenths of the prompts' variance is residual.
    """
    rng = np.random.default_rng(seed)
    taken = 1.0 - 0.5 / (seeds - 1) ** 2
    found: dict[str, dict[str, float]] = {}
    for confidence in (0.99, 0.998):
        worst, wider = {"shipped": 0.0, "only above V_R": 0.0}, {}
        for residual, luck in itertools.product((0.0, 0.1, 0.3, 0.6, 0.9), (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)):  # V_P is 1
            error = np.abs(rng.standard_normal(draws)) * math.sqrt(1.0 + luck)
            v_seeds = (luck + residual) * rng.chisquare(seeds - 1, draws) / (seeds - 1)
            variance = 1.0 + np.maximum(v_seeds - taken * residual, 0.0)
            half = {}
            for name, entering in (("shipped", v_seeds), ("only above V_R", np.where(v_seeds > taken * residual, v_seeds, 0.0))):
                share = np.minimum(entering / variance, 1.0)
                df = 1.0 / ((1.0 - share) ** 2 / 1000.0 + share**SEED_POWER / (seeds - 1))
                half[name] = np.sqrt(variance) * stats.t.isf(0.5 - confidence / 2, df)
                worst[name] = max(worst[name], float(np.mean(error > half[name])) / (1 - confidence))
            if luck == 0 and residual in (0.1, 0.3, 0.6):
                wider[f"wider, residual {residual}"] = float(np.mean(half["shipped"] / half["only above V_R"]))
        found[f"{confidence:.1%}"] = worst | wider
    return found


def settings(quick: bool) -> Iterator[tuple[Setting, Average]]:
    """What is simulated: the central grid, then more luck."""
    if quick:
        yield from ((Setting(binary, 0.6, 0.03, (30,) * 9, seeds, 0.1), "macro") for binary in (True, False) for seeds in (1, 3))
        return
    shapes: tuple[tuple[tuple[int, ...], Average], ...] = (
        ((10,) * 9, "macro"),
        ((30,) * 9, "macro"),
        ((100,) * 9, "macro"),
        (BELLE, "macro"),
        (BELLE, "micro"),
    )
    levels = ((0.6, 0.03), (0.98, 0.01), (0.02, -0.01))
    for binary, (level, gap), (sizes, average), seeds in itertools.product((True, False), levels, shapes, (1, 2, 3, 5)):
        yield Setting(binary, level, gap, sizes, seeds, 0.1), average
    for sizes, seeds in itertools.product(((10,) * 9, (30,) * 9, BELLE), (2, 3, 5)):
        yield Setting(True, 0.6, 0.03, sizes, seeds, 0.3), "macro"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four settings")
    parser.add_argument("--replicates", type=int, default=0, help="of each setting; default 500, with --quick 300")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    replicates = options.replicates or (300 if options.quick else 500)
    started = time.perf_counter()
    print(f"95% intervals, {replicates} replicates: Monte Carlo error {math.sqrt(0.05 * 0.95 / replicates):.4f}")
    print(f"{'setting':46} {'average':>7} {'mean':>7} {'diff':>7} {'seeds share':>12}")
    rows: list[dict[str, object]] = []
    inside: list[bool] = []
    for setting, average in settings(options.quick):
        found = coverage(setting, average, replicates, options.seed)
        marks = [0.93 <= value <= 0.97 for value in (found.mean, found.difference)]
        inside += marks
        mean, difference = (f"{value:.3f}{' ' if ok else '*'}" for value, ok in zip((found.mean, found.difference), marks, strict=True))
        print(f"{setting.name:46} {average:>7} {mean:>7} {difference:>7} {found.seed_share:12.2f}", flush=True)
        rows.append({**asdict(setting), "average": average, "coverage": asdict(found)})
    print("\nmethods, arm means, binary 0.6, macro:")
    rival_rows: list[dict[str, object]] = []
    shapes = ((30,) * 9,) if options.quick else ((30,) * 9, BELLE)
    for sizes, (seeds, luck) in itertools.product(shapes, ((1, 0.1), (2, 0.1), (3, 0.1), (3, 0.3), (5, 0.3))):
        setting = Setting(True, 0.6, 0.03, sizes, seeds, luck)
        shares = rivals(setting, "macro", max(replicates // 2, 100), seed=options.seed)
        print(f"{setting.name:46} " + "  ".join(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)
        rival_rows.append({**asdict(setting), "coverage": shares})
    print("\nin the limit of many prompts, lowest and highest coverage over all shares of luck and residual:")
    limits = {seeds: limit(seeds, 2_000 if options.quick else 20_000, options.seed) for seeds in (2, 3, 5)}
    for seeds, spans in limits.items():
        print(f"S={seeds}  " + "  ".join(f"{name} {low:.3f} .. {high:.3f}" for name, (low, high) in spans.items()), flush=True)
    strict = {seeds: strict_limit(seeds, 20_000 if options.quick else 150_000, options.seed) for seeds in (2, 3, 5)}
    for seeds, by_level in strict.items():
        for level, figures in by_level.items():
            print(f"S={seeds}  {level} intervals: " + "  ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)
    print("\nfamily-wise error of six comparisons of four equal arms, at 0.05")
    errors = {}
    for (seeds, luck), size in itertools.product(((1, 0.0), (2, 0.1), (2, 0.3), (3, 0.0), (3, 0.1), (3, 0.3), (5, 0.3)), (30, 100)):
        name = f"S={seeds} luck={luck} 9 x {size}"
        errors[name] = family_wise_error(50 if options.quick else 400, seeds, luck, size, options.seed)
        print(f"{name}  {errors[name]:.3f}", flush=True)
    print(f"{100 * sum(inside) / len(inside):.0f}% of the settings within 0.93..0.97; {time.perf_counter() - started:.0f} s")
    last = {
        "benchmark": "coverage",
        "replicates": replicates,
        "seed": options.seed,
        "within": sum(inside) / len(inside),
        "family_wise_error": errors,
        "settings": rows,
        "methods": rival_rows,
        "limits": limits,
        "strict_limits": strict,
    }
    print(json.dumps(last))


if __name__ == "__main__":
    main()
