"""Numbers as people read them: three digits, units, and a word where there is no number."""

from __future__ import annotations

import math

NOT_MEASURED = "n/a"
EXACT = "exact"


def number(value: float | None) -> str:
    """Three significant digits.

    Example:
        >>> number(1234.5), number(0.00012345), number(0.5), number(None)
        ('1,234', '0.000123', '0.5', 'n/a')
    """
    if value is None or math.isnan(value):
        return NOT_MEASURED
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 999.5:
        return f"{value:,.0f}"
    if size < 1e-5:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def decibels(value: float | None) -> str:
    """A ratio in decibels; where nothing differs, it is infinite.

    Example:
        >>> decibels(41.26), decibels(math.inf), decibels(math.nan)
        ('41.3 dB', 'exact', 'n/a')
    """
    if value is None or math.isnan(value) or value == -math.inf:
        return NOT_MEASURED
    return EXACT if math.isinf(value) else f"{value:.1f} dB"


def percent(fraction: float | None) -> str:
    """A fraction as a percentage.

    Example:
        >>> percent(0.9934), percent(1.0), percent(0.00001), percent(0.99996)
        ('99.3 %', '100 %', '0.001 %', '99.996 %')
    """
    if fraction is None or not math.isfinite(fraction):
        return NOT_MEASURED
    if 0.9995 <= abs(fraction) < 1:  # never round what is not all to 100 %
        return f"{math.floor(abs(fraction) * 1e5) / 1e3 * (1 if fraction > 0 else -1):.3f} %"
    return f"{number(100 * fraction)} %"


def similarity(value: float | None) -> str:
    """A cosine: as many nines as there are.

    Example:
        >>> similarity(0.99987654), similarity(1.0), similarity(0.5)
        ('0.99988', '1', '0.500')
    """
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if value >= 1:
        return "1"
    digits = min(9, max(3, 1 - math.floor(math.log10(1 - value))))
    text = f"{value:.{digits}f}"
    return text if float(text) < 1 else f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def noise(sqnr_db: float | None) -> str:
    """What an SQNR means: the error as a share of the signal, root mean square.

    Example:
        >>> noise(40.0), noise(math.inf)
        ('1 %', 'exact')
    """
    if sqnr_db is None or math.isnan(sqnr_db) or sqnr_db == -math.inf:
        return NOT_MEASURED
    return EXACT if math.isinf(sqnr_db) else f"{float(f'{100 * 10 ** (-sqnr_db / 20):.2g}'):g} %"


def times(ratio: float) -> str:
    """How many times as much.

    Example:
        >>> times(3.812), times(0.97)
        ('3.8x', '0.97x')
    """
    return f"{ratio:.2f}x" if ratio < 0.995 else f"{ratio:.1f}x"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds.

    Example:
        >>> milliseconds(0.0123456)
        '12.3 ms'
    """
    return f"{number(1e3 * seconds)} ms"
