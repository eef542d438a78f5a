"""Does Lion beat SGD with momentum in the report's CNN?

Command: python -m cifar_jax.main study examples/lion.py --seeds 10
Cost: 2 minutes for the short study; in full, with ten seeds, about 3 hours on 2 CPU cores.
Answer: yes (+5.49 points, 95 % interval +3.69 to +7.29).

Answer and cost are of a short study: 10,000 images, 5 epochs, 3 seeds, with `--dataset FOLDER
--folder-is-cifar10 --train-examples 10000 --epochs 5 --seeds 3`. FOLDER has CIFAR-10 re-encoded
as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

Lion (Chen et al. 2023, arXiv 2302.06675) steps by the sign of a mean gradient, so it needs a
smaller learning rate and a larger weight decay. An optimiser is a function of the
hyper-parameters and the schedule. It returns any optax transformation. Each optimiser deserves
its best learning rate. This command compares several:

    python -m cifar_jax.main study examples/lion.py --arms lion --sweep learning_rate=1e-4,3e-4,1e-3
"""

import optax

import cifar_jax as cj


def lion(hyper, schedule):
    return optax.lion(schedule, b1=hyper.momentum, b2=0.99, weight_decay=hyper.weight_decay)


model = cj.CNN(norm="batch")
arms = {
    "sgd": cj.Experiment(model=model),
    "lion": cj.Arm(
        cj.Experiment(model=model, optimizer=lion),
        cj.Hyper(learning_rate=0.0003, weight_decay=0.1),
    ),
}
labels = {"sgd": "SGD", "lion": "Lion"}
claims = [cj.better("lion", "sgd")]
