"""Describe in words how a network was trained."""

from collections.abc import Mapping
from typing import Any

from cifar_jax.errors import counted
from cifar_jax.runner.results import Results

OPTIMIZERS = {
    "sgd": "SGD",
    "nesterov": "SGD with Nesterov's momentum",
    "adamw": "AdamW",
    "muon": "Muon (AdamW for biases, norms and the last layer)",
}


def optimiser(training: Mapping[str, Any]) -> str:
    """Describe the optimiser, its settings and the batch, and a precision other than float32."""
    momentum = "beta1" if training["optimizer"] == "adamw" else "momentum"
    scaled = " for batches of 128, scaled with the batch" * (training["lr_scaling"] == "linear")
    precision = training.get("precision", "float32")
    return (
        f"{OPTIMIZERS[training['optimizer']]}, learning rate {training['learning_rate']:g}{scaled}"
        f", {momentum} {training['momentum']:g}, weight decay {training['weight_decay']:g}, "
        f"batches of {training['batch_size']}" + f", in {precision}" * (precision != "float32")
    )


def _epochs(every: int) -> str:
    return "epoch" if every == 1 else counted(every, "epoch")


def schedule(training: Mapping[str, Any]) -> str:
    """Describe the learning rate schedule."""
    factor = f"times {training['decay_factor']:g}"
    course = {
        "step": f"{factor} every {_epochs(training['decay_every'])}",
        "constant": "constant",
        "multistep": f"{factor} after epochs "
        + str(training.get("milestones", "")).replace("+", ",").replace(",", ", "),
        "cosine": f"along a cosine to {training['final_fraction']:g} of the first",
        "onecycle": "in one cycle, up from a 25th of it during 30 % of the steps and down to "
        "almost 0; the momentum is constant",
    }[training["schedule"]]
    warmup = training["warmup_epochs"]
    return f"learning rate {course}" + (
        f", after {warmup:g} epoch{'s' * (warmup != 1)} of warm-up" if warmup else ""
    )


def regularisers(training: Mapping[str, Any]) -> list[str]:
    """Describe the regularisers besides dropout and augmentation."""
    found = []
    if training["label_smoothing"]:
        found.append(f"label smoothing {training['label_smoothing']:g}")
    if training["cutout"]:
        found.append(f"cutout of {counted(training['cutout'], 'pixel')}")
    if training["random_erasing"]:
        low, high = training["erasing_area_low"], training["erasing_area_high"]
        found.append(
            f"random erasing with probability {training['random_erasing']:g} of {low:g} to "
            f"{high:g} of the image, ratio {training['erasing_ratio']:g} or more"
        )
    if training["mixup"]:
        found.append(f"mixup with alpha {training['mixup']:g}")
    return found


def rows(results: Results) -> dict[str, str]:
    """Describe network and training of a run, by topic."""
    training, described = results.config["training"], results.described
    epochs = counted(training["epochs"], "epoch")
    if described is not None:
        numbers = {
            "epochs": epochs,
            "batch size": f"{training['batch_size']}",
            "learning rate": f"{training['learning_rate']:g}",
            "momentum": f"{training['momentum']:g}",
            "weight decay": f"{training['weight_decay']:g}",
        }
        return {**described, **numbers}
    model, augment = results.config["model"], results.config["data"]["augment"]
    return {
        "random flip and crop in training": "yes" if augment else "no",
        "network": f"{model['name']}, dropout {model['dropout']:g}",
        "optimiser": optimiser(training),
        "schedule": f"{epochs}, {schedule(training)}",
        "regularisers besides dropout": ", ".join(regularisers(training)) or "none",
    }
