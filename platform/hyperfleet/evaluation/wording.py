"""How numbers become text: digits, units, and the sentence that says what a run brought."""

from collections import Counter

from hyperfleet.evaluation.latency import ALL_NETWORKS, TOTAL
from hyperfleet.evaluation.metrics import FleetScore, GroupScore
from hyperfleet.evaluation.paired import Interval, PairedDifference
from hyperfleet.link.network import PAPER_NETWORKS

NOTHING = "-"
_MAX_REASONS = 3


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
    """Format a p-value; below 0.001 only the bound is said."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


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
    """Label of a network as the papers write it; a name of another table stays as it is."""
    if name == ALL_NETWORKS:
        return "All networks"
    return PAPER_NETWORKS[name].label if name in PAPER_NETWORKS else name


def outcome(difference: PairedDifference) -> str:
    """Name the result: "win", "lose" or "tie", a tie being any difference that is not significant."""
    if not difference.is_significant:
        return "tie"
    return "win" if difference.difference > 0 else "lose"


def headline(score: FleetScore) -> str:
    """One sentence with the true result over all devices, whichever head it favours."""
    group = score.overall
    opening = {
        "win": "Personalized heads answered better than the static head",
        "lose": "Personalized heads answered worse than the static head",
        "tie": "No significant difference between personalized heads and the static head",
    }[outcome(group.device_mean)]
    if group.device_mean.interval is None:
        opening = "Too few devices for a test of personalized heads against the static head"
    return f"{opening}: {_comparison(group)}."


def held_out_sentence(score: FleetScore) -> str:
    """What happened on devices that training never saw; empty where the run had none."""
    if score.held_out is None:
        return ""
    verdict = {
        "win": "the gain holds there",
        "lose": "personalized heads did worse there",
        "tie": "the difference is not significant there",
    }[outcome(score.held_out.device_mean)]
    if outcome(score.held_out.device_mean) == "win" and outcome(score.overall.device_mean) != "win":
        verdict = "personalized heads did better there"
    return f"Devices that training never saw: {_comparison(score.held_out)}; {verdict}."


def cost_sentence(score: FleetScore) -> str:
    """What a personalized head cost in time, and how often none arrived."""
    sentences = []
    if score.latency:
        total = score.latency[0].parts[TOTAL]
        sentences.append(
            f"A personalized head took {milliseconds(total.p50_s)} ms end to end at the median, "
            f"{milliseconds(total.p99_s)} ms at the 99th percentile."
        )
    if score.num_fallbacks:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in score.fallbacks.items())
        sentences.append(
            f"For {score.num_fallbacks:,} of {score.overall.num_samples:,} samples no head arrived and the "
            f"device's own static head answered ({reasons})."
        )
    else:
        sentences.append("Every request got its head.")
    if score.skipped:
        sentences.append(skipped_sentence(score))
    return " ".join(sentences)


def skipped_sentence(score: FleetScore) -> str:
    """How many devices have no sample in the score, with the commonest reasons."""
    reasons = Counter(score.skipped.values()).most_common(_MAX_REASONS)
    listed = ", ".join(f"{reason}: {count:,}" for reason, count in reasons)
    return f"Skipped: {devices(len(score.skipped))}" + (f" ({listed})." if listed else ".")


def _comparison(group: GroupScore) -> str:
    test = group.device_mean
    personalized, static = percent(group.personalized.device_mean), percent(group.static.device_mean)
    numbers = (
        f"{personalized} against {static} mean accuracy over {devices(group.num_devices)} "
        f"({points(test.difference)} points"
    )
    if test.interval is not None:
        numbers += f", 95% interval {interval_points(test.interval)}, p {_relation(test.p_value)}"
    return numbers + ")"


def _relation(value: float | None) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"
