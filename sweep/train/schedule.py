"""The learning rate of each step."""

import math

from sweep.plan.run import ScheduleSettings


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleSettings) -> float:
    """The rate of step `step` (from 0) of `steps`: a linear warm-up, then what `schedule.shape` says.

    "cosine" falls from `peak` to `final_fraction * peak` and ends with the last step of the run, as Chinchilla recommends
    (arXiv 2203.15556, section 3.1 and Fig. A1). With `cycle` > 1 it is that much longer than the run, which cuts it off: the
    ablation of Fig. A1. "linear" is the same in a straight line. Kaplan et al. (arXiv 2001.08361, Fig. 22) compare shapes.

    "wsd" (warm-up, stable, decay: Hu et al. 2024, arXiv 2404.06395) stays at `peak` and falls linearly in the last
    `decay_fraction` of the run's steps, at least one, or in all that follow the warm-up if those are fewer.

    "inverse_sqrt" is Vaswani et al.'s (arXiv 1706.03762, eq. 3): the n-th step, from 1, has `peak * sqrt(warmup_steps / n)`.
    Without a warm-up it falls as after one of one step. "constant" stays at `peak`.
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.shape == "constant":
        return peak
    if schedule.shape == "inverse_sqrt":
        return peak * math.sqrt(max(warmup, 1) / (step + 1))
    start = warmup  # of the decay, which the last step ends
    if schedule.shape == "wsd":
        start = max(warmup, steps - 1 - max(1, round(schedule.decay_fraction * steps)))
    elapsed, length = max(step - start, 0), schedule.cycle * max(steps - 1 - start, 1)
    left = 0.5 * (1 + math.cos(math.pi * elapsed / length)) if schedule.shape == "cosine" else 1 - elapsed / length
    return peak * (schedule.final_fraction + (1 - schedule.final_fraction) * left)
