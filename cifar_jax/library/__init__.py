"""The functions of `import cifar_jax as cj`: load images, train seeds, compare arms."""
