"""How the tests of the models compare: printed digits, and a formula against seeded runs.

`agrees` is a two-sided t-test over independent seeds. With 30 runs a limit of 4.5 standard errors
has a false-alarm size of 1 in 10,000 (t, 29 degrees of freedom); the seeds are fixed, so a test
that is green stays green. `contradicts` asks for at least 10 standard errors.
"""

from collections.abc import Callable

import numpy as np

RUNS = 30
LIMIT = 4.5
FAR = 10.0


def printed(value: float, digits: str) -> bool:
    """True if `value`, rounded to as many decimals as `digits` has, reads exactly `digits`."""
    decimals = len(digits.partition(".")[2])
    assert f"{value:.{decimals}f}" == digits, f"{value} does not print as {digits}"
    return True


def standard_errors(formula: float, run: Callable[[int], float], runs: int = RUNS) -> float:
    """Distance between `formula` and the mean of run(seed), in standard errors of that mean."""
    values = np.array([run(seed) for seed in range(runs)])
    error = float(values.std(ddof=1)) / runs**0.5
    distance = float(values.mean()) - formula
    if error < 1e-12 * max(1.0, abs(formula)):
        return 0.0 if abs(distance) <= 1e-9 * max(1.0, abs(formula)) else np.inf
    return distance / error


def agrees(formula: float, run: Callable[[int], float], runs: int = RUNS) -> bool:
    distance = standard_errors(formula, run, runs)
    assert abs(distance) < LIMIT, f"{formula} is {distance:.1f} standard errors from the runs"
    return True


def contradicts(formula: float, run: Callable[[int], float], runs: int = RUNS) -> bool:
    distance = standard_errors(formula, run, runs)
    assert abs(distance) > FAR, f"{formula} is only {distance:.1f} standard errors from the runs"
    return True
