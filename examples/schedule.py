"""Does a learning rate that falls along a line beat one that drops in steps?

Command: python -m cifar_jax.main study examples/schedule.py --seeds 10
Cost: COST
Answer: not measured yet.

A schedule is a function of the learning rate, the steps of an epoch, and the steps of the whole
training. It returns an optax schedule, a function of the step.
"""

import optax

import cifar_jax as cj


def linear(rate, steps_per_epoch, steps):
    return optax.linear_schedule(rate, 0.0, steps)


model = cj.CNN(norm="batch")
arms = {
    "steps": cj.Experiment(model=model),  # times 0.1 every 10 epochs
    "linear": cj.Experiment(model=model, schedule=linear),
}
claims = [cj.better("linear", "steps")]
