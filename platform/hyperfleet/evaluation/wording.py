"""Numbers as text, with digits and units, and the outcome of a comparison."""

from hyperfleet.evaluation.paired import Interval, PairedDifference
from hyperfleet.link.network import PAPER_NETWORKS

NOTHING = "-"
P_COLUMNS = ("p, Wilcoxon", "p, permutation")


def percent(fraction: float | None) -> str:
    """Format a fraction as a percentage with one decimal."""
    return NOTHING if fraction is None else f"{100 * fraction:.1f}%"


def points(fraction: float | None) -> str:
    """Format a difference of fractions as signed percentage points with one decimal."""
    if fraction is None:
        return NOTHING
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def interval_points(interval: Interval | None) -> str:
    """Format an interval of differences in percentage points."""
    return NOTHING if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def p_value(value: float | None) -> str:
    """Format a p-value; below 0.001 only the bound."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_values(test: PairedDifference) -> tuple[str, str]:
    """Format both p-values of a comparison for the columns `P_COLUMNS`."""
    return p_value(test.p_value), p_value(test.permutation_p_value)


def tested(test: PairedDifference) -> str:
    """Format both p-values for a sentence."""
    rank, sign = (text if text.startswith("<") else f"= {text}" for text in p_values(test))
    return f"Wilcoxon p {rank}, permutation p {sign}"


def milliseconds(seconds: float) -> str:
    """Format seconds as milliseconds with three significant digits and no exponent."""
    return significant(1000 * seconds)


def significant(value: float) -> str:
    """Format with three significant digits and no exponent."""
    if value == 0:
        return "0"
    magnitude = abs(float(f"{value:.3g}"))
    decimals = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 1 else 3
    return f"{value:,.{decimals}f}" if magnitude >= 0.001 else "< 0.001"


def kib(num_bytes: int | float) -> str:
    """Format bytes as KiB with two decimals."""
    return f"{num_bytes / 1024:,.2f}"


def mib(num_bytes: int | float) -> str:
    """Format bytes as whole MiB."""
    return f"{num_bytes / 2**20:,.0f}"


def duration(seconds: float) -> str:
    """Format a wall time: seconds below two minutes, else minutes and seconds."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def millions(count: int) -> str:
    """Format a parameter count the way the papers print it: 28.1M, 37.2K."""
    if count < 1_000_000:
        return f"{count / 1e3:.1f}K"
    return f"{count / 1e6:.1f}M"


def devices(number: int) -> str:
    """Format a number of devices with its noun."""
    return "1 device" if number == 1 else f"{number:,} devices"


def network(name: str) -> str:
    """Return the papers' label of a network; any other name is returned unchanged."""
    return PAPER_NETWORKS[name].label if name in PAPER_NETWORKS else name


def outcome(difference: PairedDifference) -> str:
    """Return "win", "lose" or "tie"; a tie is any difference that is not significant."""
    if not difference.is_significant:
        return "tie"
    return "win" if difference.difference > 0 else "lose"
