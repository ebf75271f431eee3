"""Forms of L(N, D): Chinchilla's, and others that have been proposed.

Each is a function of its constants, an array of unbounded numbers, and of x and y, the logs of N and D over those of the middle
run; it returns losses. `FORMS` lists them; a new form is a function and its entry there, with a start in `starts_of`.
"""

from collections.abc import Callable

import numpy as np

from sweep.fit.surface import Surface

BIG = 50.0  # of exponents: beyond it a form has blown up
Constants = np.ndarray
Form = Callable[[Constants, np.ndarray, np.ndarray], np.ndarray]


def chinchilla(c: Constants, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.exp(c[0]) + np.exp(c[1] - np.exp(c[3]) * x) + np.exp(c[2] - np.exp(c[4]) * y)


def tied(c: Constants, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return chinchilla(c[[0, 1, 2, 3, 3]], x, y)


def interaction(c: Constants, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return chinchilla(c, x, y) + np.exp(c[5] - np.exp(c[3]) * x - np.exp(c[4]) * y)


def power_of_sum(c: Constants, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.exp(c[0]) + (chinchilla(c[:5], x, y) - np.exp(c[0])) ** np.exp(c[5])


def farseer(c: Constants, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Its powers of N are written as (exp(g x) - 1) / g, which does not change the form and keeps its constants apart."""

    def bent(g: np.ndarray) -> np.ndarray:
        curved = np.abs(g) > 1e-6
        return np.where(curved, np.expm1(np.clip(g * x, -BIG, BIG)) / np.where(curved, g, 1), x)

    floor, level, fall = c[0] + c[1] * bent(c[2]), c[3] + c[4] * bent(c[5]), c[6] + c[7] * bent(c[8])
    return np.exp(np.clip(floor, -BIG, BIG)) + np.exp(np.clip(level - y * np.exp(np.clip(fall, -BIG, 3)), -BIG, BIG))


def kaplan(c: Constants, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.exp(np.exp(c[3]) * np.logaddexp(c[0] - np.exp(c[2]) * x, c[1] - y))


# By name: the form, its equation, how many constants it has, and whether the first is log E.
FORMS: dict[str, tuple[Form, str, int, bool]] = {
    "Chinchilla": (chinchilla, "E + A/N^α + B/D^β", 5, True),
    "tied": (tied, "E + A/N^α + B/D^α", 4, True),
    "interaction": (interaction, "E + A/N^α + B/D^β + F/(N^α D^β)", 6, True),
    "power of the sum": (power_of_sum, "E + (A/N^α + B/D^β)^γ", 6, True),
    "Farseer": (farseer, "exp(a₃N^γ + b₃) + exp(a₂N^β + b₂) D^-exp(a₁N^α + b₁)", 9, False),
    "Kaplan": (kaplan, "[(N_c/N)^(α_N/α_D) + D_c/D]^α_D", 4, False),
}


def starts_of(name: str, surface: Surface, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Where to start from: Chinchilla's surface of the same runs, in the units of their middle, as this form has it."""
    E, A, B = max(surface.E, 1e-3), surface.A, surface.B
    alpha, beta = max(surface.alpha, 0.02), max(surface.beta, 0.02)
    base = np.log([E, A, B, alpha, beta])
    level = E + A
    return {
        "Chinchilla": [base],
        "tied": [np.append(base[:3], np.log((alpha + beta) / 2))],
        "interaction": [np.append(base, np.log(A * B / E)), np.append(base, np.log(A * B / E) - 4)],
        "power of the sum": [np.append(base, 0.0), np.append(base, 0.4), np.append(base, -0.4)],
        "Farseer": [
            np.array([np.log(level), -alpha * A / level, -alpha, np.log(B), shift, -0.1, np.log(beta), 0.0, -0.1])
            for shift in (0.0, -0.05)
        ],
        "Kaplan": [np.array([u, v, 0.0, np.log(w)]) for w in (0.07, 0.15, 0.3) for u in (np.log(level) / w,) for v in (u - 1,)],
    }[name]
