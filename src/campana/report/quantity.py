"""How figures are written, on the page and in the terminal alike: three decimals for scores, units that people read.

A figure that is missing is written as a dash; it is never 0.

    duration(200) == "3 min 20 s"
    count(1_240_000) == "1.24 M"
"""

from __future__ import annotations

NONE = "–"
_PREFIXES = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def score(value: float | None) -> str:
    """A score of 0..1, three decimals."""
    return NONE if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference, three decimals, with its sign; what rounds to zero has none."""
    if value is None:
        return NONE
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def interval(low: float | None, high: float | None) -> str:
    """`0.581 to 0.645`; signed where it reaches below zero."""
    if low is None or high is None:
        return NONE
    return f"{low:.3f} to {high:.3f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return NONE
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: float | None) -> str:
    """Tokens, rows, parameters: exact to four digits, then with k, M, G."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) < 10_000 else _prefixed(value)


def flops(value: float | None) -> str:
    """Floating-point operations, `3.21 PFLOP`."""
    if value is None:
        return NONE
    return f"{_prefixed(value)}FLOP" if value else "0"


def size(num_bytes: float | None) -> str:
    """Bytes, in powers of ten."""
    return NONE if num_bytes is None else f"{_prefixed(num_bytes)}B"


def energy(joules: float | None) -> str:
    """Joules, `3.21 kJ`."""
    return NONE if joules is None else f"{_prefixed(joules)}J"


def spent(text: str, value: float | None, complete: bool) -> str:
    """A cost as it was written, marked where more is to come: `> 1 min 15 s`; a dash where nothing was spent yet."""
    if complete or value is None:
        return text
    return f"> {text}" if value else NONE


def rate(value: float | None) -> str:
    """Tokens a second, say: no more digits than it is steady to."""
    return NONE if value is None else f"{_prefixed(value)}/s" if value >= 10_000 else f"{value:,.0f}/s"


def money(value: float | None, currency: str | None) -> str:
    """An amount with its currency; cents below 100, and more digits where it is small."""
    if value is None or currency is None:
        return NONE
    digits = 2 if value >= 1 or value == 0 else 4
    return f"{value:,.{digits}f} {currency}"


def ratio(value: float | None) -> str:
    """`0.61x`."""
    if value is None:
        return NONE
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def learning_rate(value: float | None) -> str:
    """`3e-4`, as it is written in study files."""
    if value is None:
        return NONE
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def percent(share: float | None) -> str:
    """`4.2%`."""
    return NONE if share is None else f"{100 * share:.1f}%"


def _prefixed(value: float) -> str:
    for unit, prefix in _PREFIXES:
        if abs(value) >= unit * 0.9995:
            return f"{_three_digits(value / unit)} {prefix}"
    return f"{_three_digits(value)} "


def _three_digits(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
