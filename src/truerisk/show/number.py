"""Numbers rounded to what is known of them."""

from __future__ import annotations

import math


def leading_power(value: float) -> int:
    """Find the power of ten of a number's first digit.

    >>> leading_power(0.0123), leading_power(-250.0)
    (-2, 2)
    """
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def format_fixed(value: float, last: int) -> str:
    """Round a number to the power of ten ``last``.

    Args:
        value: any number; one that is not finite is written as it is.
        last: -3 for thousandths, 1 for tens.

    >>> format_fixed(0.12345, -3), format_fixed(1234.5, 1)
    ('0.123', '1230')
    """
    if not math.isfinite(value):
        return f"{value:g}"
    return f"{round(value, -last):.{max(0, -last)}f}"


def format_significant(value: float, digits: int = 4) -> str:
    """Write a number with a few significant digits, in powers of ten only where that is shorter.

    Args:
        value: any number.
        digits: how many.

    >>> [format_significant(value) for value in (0.123456, 2.0, 1e-9, float("nan"))]
    ['0.1235', '2.000', '1.000e-09', 'nan']
    """
    # 0.00001234 and 12345678 are as long as their powers of ten
    if value and math.isfinite(value) and not -5 < leading_power(value) < 6:
        return f"{value:.{digits - 1}e}"
    return format_fixed(value, min(0, leading_power(value) - digits + 1))


def format_with_stderr(value: float, stderr: float | None) -> str:
    """Write a number and its standard error, rounded to two significant digits of the latter.

    Args:
        value: any number.
        stderr: its standard error: 0 where nothing was left to chance, None where there is none.

    >>> format_with_stderr(0.52341, 0.00816), format_with_stderr(1234.5, 56.7)
    ('0.5234 ± 0.0082', '1234 ± 57')
    >>> format_with_stderr(0.52341, 0.0), format_with_stderr(0.52341, None)
    ('0.5234 exact', '0.5234')
    >>> format_with_stderr(3.2e-9, 1.4e-10)
    '(3.20 ± 0.14)e-09'
    """
    if stderr is None or not math.isfinite(value):
        return format_significant(value)
    if stderr == 0:
        return f"{format_significant(value)} exact"
    if not math.isfinite(stderr):
        return f"{format_significant(value)} ± {stderr:g}"
    # where the error is greater than the number, its digits decide
    scale = leading_power(max(abs(value), stderr))
    if not -5 < scale < 6:
        return f"({format_with_stderr(value / 10.0**scale, stderr / 10.0**scale)})e{scale:+03d}"
    # rounding may carry: 0.0996 has its two digits at 0.10
    last = leading_power(float(f"{stderr:.1e}")) - 1
    return f"{format_fixed(value, last)} ± {format_fixed(stderr, last)}"
