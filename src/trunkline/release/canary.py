"""Whether nodes with the new version do worse than those with the old, under the same load at the same time.

The test: Fisher's exact test, one-sided, on two fourfold tables. *Errors*: requests that failed against those that did
not, new against old. *Slow*: requests above the bucket bound that 95 % of the old nodes' stayed below. "Worse" when
either has less than `significance` chance of coming about with nodes that are alike. It is looked at LOOKS times in a
run, and each time at `significance / LOOKS` (Bonferroni), so that looking often does not make a false alarm likelier.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

LOOKS: Final = 10
QUANTILE: Final = 0.95
MAX_TERMS: Final = 2_000_000
REQUESTS: Final = "trunkline_http_seconds"
ERRORS: Final = "5xx"


class Sample(msgspec.Struct, frozen=True):
    """What a group of nodes has answered."""

    requests: float = 0.0
    errors: float = 0.0
    buckets: Mapping[float, float] = {}
    """Upper bound in seconds -> requests at most as slow."""

    def since(self, before: "Sample") -> "Sample":
        """What came after `before`; a counter that began anew counts from nothing."""
        if self.requests < before.requests:
            return self
        buckets = {bound: count - before.buckets.get(bound, 0.0) for bound, count in self.buckets.items()}
        return Sample(self.requests - before.requests, self.errors - before.errors, buckets)


class Verdict(msgspec.Struct, frozen=True):
    """What the comparison says."""

    is_enough: bool
    """Whether both groups had the smallest sample."""
    worse: str
    """What is worse, in a line; empty: nothing."""
    told: str
    """The figures, in a line."""


def read(metrics: str) -> Sample:
    """A node's sample, of its /metrics. Raises ValueError when that is not the format."""
    requests = errors = 0.0
    buckets: dict[float, float] = {}
    for family in text_string_to_metric_families(metrics):
        if family.name != REQUESTS:
            continue
        for sample in family.samples:
            if sample.name.endswith("_count"):
                requests += sample.value
                errors += sample.value if sample.labels.get("status") == ERRORS else 0.0
            elif sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
    return Sample(requests, errors, buckets)


def together(samples: Iterable[Sample]) -> Sample:
    """The sum over nodes."""
    requests = errors = 0.0
    buckets: dict[float, float] = {}
    for each in samples:
        requests, errors = requests + each.requests, errors + each.errors
        for bound, count in each.buckets.items():
            buckets[bound] = buckets.get(bound, 0.0) + count
    return Sample(requests, errors, buckets)


def judge(new: Sample, old: Sample, significance: float, minimum: int) -> Verdict:
    """Compare what both groups answered in the same time; see the module."""
    told = f"{new.errors:.0f} of {new.requests:.0f} requests failed, {old.errors:.0f} of {old.requests:.0f} before"
    if min(new.requests, old.requests) < minimum:
        return Verdict(is_enough=False, worse="", told=f"{told}; {minimum} on each side are needed to judge")
    alpha = significance / LOOKS
    chance = fisher(new.errors, new.requests, old.errors, old.requests)
    worse = "" if chance >= alpha else f"more requests fail (chance {chance:.2g})"
    bound = _bound(old)
    slow = [each.requests - each.buckets.get(bound, each.requests) for each in (new, old)]
    if not math.isinf(bound):
        told += f"; above {bound:g} s {slow[0]:.0f}, before {slow[1]:.0f}"
        chance = fisher(slow[0], new.requests, slow[1], old.requests)
        if chance < alpha and not worse:
            worse = f"more requests take longer than {bound:g} s (chance {chance:.2g})"
    return Verdict(is_enough=True, worse=worse, told=told)


def _bound(old: Sample) -> float:
    """The bound below which 95 % stayed."""
    fitting = (bound for bound, count in sorted(old.buckets.items()) if count >= QUANTILE * old.requests)
    return next(fitting, math.inf)


def fisher(bad_new: float, new: float, bad_old: float, old: float) -> float:
    """The chance that so many or more of all bad ones fall among the new ones, if both are alike."""
    least, most = int(bad_new), int(min(bad_new + bad_old, new))
    bad, total = int(bad_new + bad_old), int(new + old)
    if least <= 0:
        return 1.0
    if most - least > MAX_TERMS:
        most = least + MAX_TERMS  # the terms fall off long before
    whole = _choose(total, int(new))
    terms = (math.exp(_choose(bad, k) + _choose(total - bad, int(new) - k) - whole) for k in range(least, most + 1))
    return min(1.0, math.fsum(terms))


def _choose(n: int, k: int) -> float:
    """The logarithm of n over k."""
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
