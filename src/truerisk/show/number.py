"""Numbers rounded to what is known of them."""

from __future__ import annotations

import math


def leading(value: float) -> int:
    """The power of ten of a number's first digit.

    >>> leading(0.0123), leading(-250.0)
    (-2, 2)
    """
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def fixed(value: float, last: int) -> str:
    """A number rounded to the power of ten ``last``.

    >>> fixed(0.12345, -3), fixed(1234.5, 1)
    ('0.123', '1230')
    """
    return f"{round(value, -last):.{max(0, -last)}f}" if math.isfinite(value) else f"{value:g}"


def significant(value: float, digits: int = 4) -> str:
    """A number with a few significant digits, in powers of ten only where that is shorter.

    >>> significant(0.123456), significant(2.0), significant(1e-9), significant(float("nan"))
    ('0.1235', '2.000', '1.000e-09', 'nan')
    """
    if value and math.isfinite(value) and not -5 < leading(value) < 6:
        return f"{value:.{digits - 1}e}"
    return fixed(value, min(0, leading(value) - digits + 1))


def with_stderr(value: float, stderr: float | None) -> str:
    """A number and its standard error, rounded to two significant digits of the latter.

    A standard error of 0 says that nothing was left to chance; None, that there is none.

    >>> with_stderr(0.52341, 0.00816), with_stderr(1234.5, 56.7)
    ('0.5234 ± 0.0082', '1234 ± 57')
    >>> with_stderr(0.52341, 0.0), with_stderr(0.52341, None)
    ('0.5234 exact', '0.5234')
    >>> with_stderr(3.2e-9, 1.4e-10)
    '(3.20 ± 0.14)e-09'
    """
    if stderr is None or not math.isfinite(value):
        return significant(value)
    if stderr == 0:
        return f"{significant(value)} exact"
    if not math.isfinite(stderr):
        return f"{significant(value)} ± {stderr:g}"
    scale = leading(max(abs(value), stderr))
    if not -5 < scale < 6:
        return f"({with_stderr(value / 10.0**scale, stderr / 10.0**scale)})e{scale:+03d}"
    # rounding may carry: 0.0996 has its two digits at 0.10
    last = leading(float(f"{stderr:.1e}")) - 1
    return f"{fixed(value, last)} ± {fixed(stderr, last)}"
