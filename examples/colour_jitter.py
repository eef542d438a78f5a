"""Does colour jitter help beside flips and crops?

Command: python -m cifar_jax.main study examples/colour_jitter.py --seeds 10
Cost: 2 minutes for the short study; in full, with ten seeds, about 4 hours on 2 CPU cores.
Answer: undecided (-1.08 points, 95 % interval -7.78 to +5.61).

Answer and cost are of a short study: 10,000 images, 5 epochs, 3 seeds, with `--dataset FOLDER
--folder-is-cifar10 --train-examples 10000 --epochs 5 --seeds 3`. FOLDER has CIFAR-10 re-encoded
as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

An augmentation takes a random key and images, uint8 (B, H, W, 3), and returns such images. It is
part of the compiled program. Evaluation does not use it.
"""

import jax
import jax.numpy as jnp

import cifar_jax as cj


def colour_jitter(key, images):
    """Scale brightness, contrast and saturation of each image by 0.7 to 1.3."""
    shape = (3, len(images), 1, 1, 1)
    brightness, contrast, saturation = jax.random.uniform(key, shape, minval=0.7, maxval=1.3)
    x = brightness * images
    mean = x.mean((1, 2, 3), keepdims=True)
    x = mean + contrast * (x - mean)
    grey = x.mean(3, keepdims=True)
    x = grey + saturation * (x - grey)
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8)


jittered = cj.Inputs(augment=(cj.random_crop_and_flip, colour_jitter))
arms = {
    "plain": cj.Experiment(model=cj.CNN(norm="batch")),
    "jitter": cj.Experiment(model=cj.CNN(norm="batch"), inputs=jittered),
}
labels = {"plain": "flip, crop", "jitter": "flip, crop, colour jitter"}
claims = [cj.better("jitter", "plain")]
