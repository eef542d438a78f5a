"""Does a learning rate that falls along a line beat one that drops in steps?

Command: python -m cifar_jax.main study examples/schedule.py --seeds 10
Cost: 2 minutes for the short study; in full, with ten seeds, about 3 hours on 2 CPU cores.
Answer: undecided (+2.08 points, 95 % interval -0.74 to +4.91).

Answer and cost are of a short study: 10,000 images, 5 epochs, 3 seeds, with `--dataset FOLDER
--folder-is-cifar10 --train-examples 10000 --epochs 5 --seeds 3`. FOLDER has CIFAR-10 re-encoded
as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

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
