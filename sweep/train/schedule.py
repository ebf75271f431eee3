"""The learning rate of each step."""

import math

from sweep.plan.run import ScheduleSettings


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleSettings) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up, then a cosine from `peak` to `final_fraction * peak`.

    The cosine ends with the last step of the run, as Chinchilla recommends (arXiv 2203.15556, section 3.1 and Fig. A1). With
    `cycle` > 1 the cosine is that much longer than the run, which cuts it off: the ablation of Fig. A1.
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    length = schedule.cycle * max(steps - 1 - warmup, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / length))
    return peak * (schedule.final_fraction + (1 - schedule.final_fraction) * cosine)
