"""Which numbers a text holds, exactly (as fractions).

    [n.value for n in numbers("1,234 kg, that is 3/4 of 50%")]        # 1234, 3/4, 50
    [n.value for n in numbers("三百二十一")]                            # 321

Digits win: number words (English, Chinese) are read only where a text holds no digits, because `one` and `一` are mostly
not meant as numbers. Full-width digits, thousands separators, `-$5`, `1.5e3`, `3千万` and `\\frac{3}{4}` are read. The minus of `10 - 5` is
no sign, and an ASCII digit's full-width comma is no thousands separator (`100，200`).
A digit that belongs to a name (`H2O`, `m²`) is no number, and `3/4/2020` is three.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from campana.checks._text import half_width, without_emphasis

_SCALES = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_DIGITS = re.compile(
    r"(?P<sign>(?:(?<![A-Za-z0-9_)\]%])[-+−](?:[$€£¥￥]\s?)?|负\s?)?)"
    r"(?<![A-Za-z_0-9])(?<![0-9]\.)"
    r"(?P<whole>\d{1,3}(?:[,\u00a0\u202f_'’]\d{3})+(?!\d)|\d+)?(?P<decimals>(?(whole)\.\d+|(?<!\w)\.\d+))?"
    r"(?P<exponent>[eE][-+]?\d{1,3}(?!\d))?"
    r"(?:\s?/\s?(?P<under>\d+)(?![\d/.]))?"
    r"\s?(?P<scale>[十百千]?[万萬亿億]|百(?!分)|千(?![克米瓦卡字帕赫伏安焦]))?\s?(?P<percent>%)?"
)
_LATEX = (
    (re.compile(r"\\d?t?frac\s*\{(\d+)\}\s*\{(\d+)\}"), r"\1/\2"),
    (re.compile(r"(?<=\d)(?:\{,\}|\\,)(?=\d{3})"), ","),
    (re.compile(r"\\(?=[%$])"), ""),
)
_MOST_DIGITS = 300

_ZH_DIGITS = {
    ch: n for n, chs in enumerate(("零〇", "一壹", "二两贰兩", "三叁", "四肆", "五伍", "六陆", "七柒", "八捌", "九玖")) for ch in chs
}
_ZH_UNITS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_ZH_CHARS = "".join([*_ZH_DIGITS, *_ZH_UNITS, *_SCALES])
_ZH_NUMBER = re.compile(
    rf"(负?)(?:([{_ZH_CHARS}]+)分之)?([{_ZH_CHARS}]+)(?:点([{''.join(_ZH_DIGITS)}]+)([{''.join(_ZH_UNITS)}]?[{''.join(_SCALES)}])?)?"
)
_LIST_COMMA = re.compile(r"(?<=[0-9])，(?=[0-9])")

_EN_ONES = "zero one two three four five six seven eight nine ten"
_EN_TEENS = "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_EN_SMALL = {word: n for n, word in enumerate(f"{_EN_ONES} {_EN_TEENS}".split())}
_EN_TENS = {word: 10 * n for n, word in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2)}
_EN_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_EN_WORD = "|".join([*_EN_SMALL, *_EN_TENS, "hundred", *_EN_LARGE])
_EN_NUMBER = re.compile(rf"\b(minus |negative )?((?:{_EN_WORD})(?:(?:[ -]| and )(?:{_EN_WORD}))*)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """A number, how it is written, and where."""

    value: Fraction
    written: str
    start: int
    percent: bool = False

    @property
    def readings(self) -> tuple[Fraction, ...]:
        """`50%` is 50 where percents are asked for, and also one half."""
        return (self.value, self.value / 100) if self.percent else (self.value,)


def prepared(text: str) -> str:
    """The text in which `numbers` counts its positions: half width, no emphasis, LaTeX fractions as `3/4`."""
    text = without_emphasis(half_width(_LIST_COMMA.sub(", ", text)))
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return text


def numbers(text: str) -> list[Number]:
    """All numbers of a text, in order. Those with more than 300 digits are passed over."""
    text = prepared(text)
    if any("0" <= ch <= "9" for ch in text):
        return _in_digits(text)
    chinese = [number for found in _ZH_NUMBER.finditer(text) if (number := _from_chinese(found))]
    english = [_from_english(found) for found in _EN_NUMBER.finditer(text)]
    return sorted([*chinese, *english], key=lambda number: number.start)


def plain(value: Fraction) -> str:
    """A fraction as people write it: `42`, `0.75`, `1/3`."""
    places = next((n for n in range(13) if 10**n % value.denominator == 0), None)
    if places is None:
        return f"{value.numerator}/{value.denominator}"
    if places == 0:
        return str(value.numerator)
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}}"
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _in_digits(text: str) -> list[Number]:
    found: list[Number] = []
    position = 0
    while position < len(text):
        match = _DIGITS.search(text, position)
        if match is None:
            break
        if not match["whole"] and not match["decimals"]:
            position = match.end() + 1 if match.end() == match.start() else match.end()
            continue
        dated = match["under"] is not None and text[: match.start()].endswith("/")
        position = match.end("whole") if dated and match["whole"] else match.end()
        digits = re.sub(r"\D", "", match["whole"] or "0")
        if len(digits) + len(match["decimals"] or "") + len(match["under"] or "") > _MOST_DIGITS:
            continue
        value = Fraction(digits + (match["decimals"] or "") + (match["exponent"] or ""))
        if match["under"] and int(match["under"]) and not dated:
            value /= int(match["under"])
        value *= _scale(match["scale"] or "")
        negative = match["sign"].startswith(("-", "−", "负"))
        found.append(Number(-value if negative else value, match.group().strip(), match.start(), bool(match["percent"])))
    return found


def _from_chinese(found: re.Match[str]) -> Number | None:
    """`found`: sign, denominator of `x分之y`, whole part, decimals, their scale (`三点五万`)."""
    under = _chinese_whole(f"一{found[2]}" if found[2][0] in _SCALES else found[2]) if found[2] else Fraction(1)
    whole = _chinese_whole(found[3])
    if not under or whole is None:
        return None
    if found[4]:
        whole += Fraction("0." + "".join(str(_ZH_DIGITS[ch]) for ch in found[4]))
    whole *= _scale(found[5] or "")
    value = -whole if found[1] else whole
    percent = found[2] in ("百", "一百")
    return Number(value if percent else value / under, found.group(), found.start(), percent)


def _chinese_whole(written: str) -> Fraction | None:
    """`三百二十一` is 321, `一万二千` 12000, `三千五` 3500, `三千零五` 3005, `二〇二四` 2024; None where it is no number (`百万` alone is
    1000000).
    """
    if len(written) > 1 and all(ch in _ZH_DIGITS for ch in written):
        return Fraction(int("".join(str(_ZH_DIGITS[ch]) for ch in written[:_MOST_DIGITS])))
    total = section = digit = 0
    next_unit = 1  # of a last digit without a unit of its own: a tenth of the unit before it
    for ch in written:
        if ch in _ZH_DIGITS:
            digit = _ZH_DIGITS[ch]
            next_unit = next_unit if digit else 1
        elif ch in _ZH_UNITS:
            section += (digit or 1) * _ZH_UNITS[ch]
            digit, next_unit = 0, _ZH_UNITS[ch] // 10
        else:
            if not (total or section or digit):
                return None
            total = (total + section + digit) * _SCALES[ch] if _SCALES[ch] > 10**4 else total + (section + digit) * _SCALES[ch]
            section = digit = 0
            next_unit = _SCALES[ch] // 10
    return Fraction(total + section + digit * next_unit)


def _scale(written: str) -> int:
    """`千万` is 10000000."""
    scale = 1
    for ch in written:
        scale *= _SCALES.get(ch) or _ZH_UNITS[ch]
    return scale


def _from_english(found: re.Match[str]) -> Number:
    total = section = 0
    for word in re.findall(r"[a-z]+", found[2].lower()):
        if word in _EN_LARGE:
            total += (section or 1) * _EN_LARGE[word]
            section = 0
        elif word == "hundred":
            section = (section or 1) * 100
        else:
            section += _EN_SMALL.get(word, 0) + _EN_TENS.get(word, 0)
    value = Fraction(total + section)
    return Number(-value if found[1] else value, found.group(), found.start())
