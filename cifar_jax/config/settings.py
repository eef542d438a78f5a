"""Settings of an experiment: frozen dataclasses, with help text and limits in each field.

A config has the tables `[data]`, `[model]`, `[training]`, `[transfer]` and `[study]`, all
optional, and an optional `name`. The defaults are the course report's protocol.
`flags.py` makes the flags from the fields. `tables.py` reads and checks TOML and flags by them.
This module imports nothing slow, so that `--help` and a wrong flag answer at once.
"""

from dataclasses import dataclass

from cifar_jax.config.fields import Fitted, field

NORMS = ("none", "batch", "layer", "instance", "group", "ghost")
MODELS = (
    "cnn", "resnet20", "resnet32", "resnet56", "resnet18", "plain20", "plain32", "plain56"
)  # fmt: skip
PIPELINES = ("device", "stream")
OPTIMIZERS = ("sgd", "nesterov", "adamw", "muon")
SCHEDULES = ("step", "constant", "multistep", "cosine", "onecycle")
LR_SCALINGS = ("none", "linear")
PRECISIONS = ("float32", "tf32", "bfloat16")
KERNELS = ("auto", "plain")


@dataclass(frozen=True)
class DataConfig:
    """Images, their split, and how they reach the device."""

    dataset: str = field(
        "auto",
        "auto, cifar10, cifar100, cifar100_coarse, svhn, mnist, fashion_mnist, synthetic, a CSV "
        "table of files and labels, a directory prepared by tensorflow-datasets, or an image "
        "folder with train/<class>/ and test/<class>/",
    )
    data_dir: str | None = field(
        None, "directory of published datasets: a tfds directory, or one for their files"
    )
    classes: str | None = field(
        None,
        "use only these classes of the dataset, separated by commas (default: all); a name with "
        "a comma may be in double quotes",
    )
    train_examples: int | None = field(
        None, "train on the first N images of the training split (default: all)", low=2
    )
    val_examples: int = field(
        Fitted(5000),
        "training images to split off for validation; the default is at most a fifth of them",
        low=1,
        flag="val-examples",
    )
    split_seed: int = field(
        42, "seed of the train/validation split, the same for every run", low=0, high=2**32 - 1
    )
    augment: bool = field(True, "random flip and crop of the training images")
    flip: bool | None = field(
        None, "flip in --augment (default: yes, but no for the digits of svhn and mnist)"
    )
    mean: str | None = field(
        None,
        "mean of each channel, of pixels in [0, 1], such as 0.49,0.48,0.45 (default: CIFAR-10's "
        "for cifar10, synthetic, folders and CSV tables; else computed from training images)",
    )
    std: str | None = field(None, "standard deviation of each channel, see --mean")
    folder_is_cifar10: bool = field(
        False,
        "the image folder has CIFAR-10's images: reports compare with its published numbers",
    )
    resize: bool = field(
        False,
        "in files: crop other images to their centred square and resize it to --image-size",
    )
    image_size: int | None = field(
        None,
        "in files: height and width of the images, in pixels (default: 32)",
        low=8,
        high=1024,
    )
    test_split: str = field(
        "test", "in an image folder: name of the folder with the test images, for example val"
    )
    val_split: str | None = field(
        None,
        "in an image folder: name of the folder with the validation images, for example val "
        "(default: --val-examples training images)",
    )
    white_level: float | None = field(
        None,
        "grey value of white in files of more than 8 bits (default: the format's, for example "
        "65535)",
        low=1e-6,
        high=2**32 - 1,
    )
    drop_duplicates: bool = field(
        False,
        "drop training images that are also in the test set, have two labels, or repeat another",
    )
    pipeline: str = field(
        "device",
        "device: all images stay on the device; stream: the host sends the same batches",
        choices=PIPELINES,
    )


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = field(
        "cnn",
        "cnn: three convolutions and two dense layers; resnet: a residual network; plain: the same "
        "without shortcuts",
        choices=MODELS,
        flag="model",
    )
    norm: str = field("none", "normalisation after each layer but the last", choices=NORMS)
    norm_groups: int = field(
        8, "groups of --norm group; divides the channels of the first layer", low=1, high=64
    )
    norm_parts: int = field(
        8,
        "of --norm ghost: equal parts of a batch, each with statistics of its own; with as many "
        "devices of --data-parallel, each device has its own statistics",
        low=1,
        high=1024,
    )
    norm_momentum: float = field(
        0.9,
        "weight of the old running statistics of --norm batch and ghost; PyTorch's momentum is 1 "
        "minus this",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    dropout: float = field(
        0.5,
        "dropout rate before the last layer; residual networks are usually trained with 0",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    zero_init_residual: bool = field(
        False, "the last norm of each residual block starts at scale 0"
    )
    num_classes: int | None = field(
        None, "number of classes (default: the dataset's)", low=2, high=1000
    )


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained. The defaults are the course report's."""

    seed: int = field(
        42, "seed of initial values, order, augmentation, dropout", low=0, high=2**32 - 1
    )
    epochs: int = field(30, "passes over the training images", low=1, high=100_000)
    batch_size: int = field(
        Fitted(128),
        "images per step; the default is at most the number of training images",
        low=1,
        high=65_536,
    )
    learning_rate: float = field(
        0.01,
        "initial learning rate; about 0.01 suits sgd, 0.001 adamw, 0.02 muon; the peak of onecycle",
        low=0.0,
        low_open=True,
        high=1e6,
        flag="lr",
    )
    momentum: float = field(
        0.9, "momentum of SGD and of Muon, beta1 of AdamW", low=0.0, high=1.0, high_open=True
    )
    weight_decay: float = field(
        5e-4,
        "weight decay on every parameter: coupled (L2) for SGD, decoupled for AdamW and Muon",
        low=0.0,
        high=1e3,
    )
    decay_every: int = field(10, "epochs between two drops of --schedule step", low=1, high=100_000)
    decay_factor: float = field(
        0.1,
        "factor of each drop of --schedule step and multistep",
        low=0.0,
        low_open=True,
        high=1.0,
    )
    optimizer: str = field(
        "sgd",
        "sgd with momentum, nesterov (SGD with Nesterov's momentum), adamw, or muon (adamw for "
        "biases, norms and the last layer)",
        choices=OPTIMIZERS,
    )
    schedule: str = field(
        "step",
        "learning rate schedule: step (drops every --decay-every epochs), multistep (drops at "
        "--milestones), constant; cosine and onecycle change it every step",
        choices=SCHEDULES,
    )
    milestones: str | None = field(
        None,
        "epochs after which --schedule multistep drops the rate: 82,123 (in a sweep 82+123)",
    )
    final_fraction: float = field(
        0.0, "final rate of --schedule cosine, as a fraction of --lr", low=0.0, high=1.0
    )
    warmup_epochs: float = field(
        0.0, "epochs of linear warm-up of the learning rate, may be a fraction", low=0.0, high=1e5
    )
    lr_scaling: str = field(
        "none", "linear: --lr is for batches of 128 and scales with the batch", choices=LR_SCALINGS
    )
    label_smoothing: float = field(
        0.0, "share of each label spread over all classes", low=0.0, high=1.0, high_open=True
    )
    cutout: int = field(
        0, "side in pixels of a square of the mean colour in every training image", low=0, high=32
    )
    random_erasing: float = field(
        0.0, "probability that a rectangle of a training image becomes noise", low=0.0, high=1.0
    )
    erasing_area_low: float = field(
        0.02, "smallest share that --random-erasing erases", low=0.0, low_open=True, high=1.0
    )
    erasing_area_high: float = field(
        0.4, "largest share that --random-erasing erases", low=0.0, low_open=True, high=1.0
    )
    erasing_ratio: float = field(
        0.3,
        "smallest height over width that --random-erasing erases; the largest is its inverse",
        low=0.0,
        low_open=True,
        high=1.0,
    )
    mixup: float = field(
        0.0, "alpha of mixup, the blend of two training images; 0 is off", low=0.0, high=1000.0
    )
    precision: str = field(
        "float32",
        "float32: full float32, on GPUs too; tf32: products of 10-bit mantissas, on NVIDIA GPUs; "
        "bfloat16: activations and products; parameters, statistics and loss stay float32",
        choices=PRECISIONS,
    )
    kernels: str = field(
        "auto",
        "auto: faster code for the layers that have it; plain: Flax's own layers",
        choices=KERNELS,
    )


@dataclass(frozen=True)
class TransferConfig:
    """Initial values, and the learning rate of each layer."""

    init_from: str | None = field(
        None,
        "initial values from a run's directory or from torchvision's names in a .safetensors file; "
        "{seed} in the path is the run's seed; none: from scratch",
    )
    freeze: str | None = field(
        None, "parameters not to train, as patterns: 'conv*,norm1'; none: train all"
    )
    lr_multipliers: str | None = field(
        None, "factors of the learning rate of some parameters: 'dense*=10,conv1=0.1'"
    )


@dataclass(frozen=True)
class StudyConfig:
    """Runs of a study: every arm with every seed. `training.seed` is the first seed.

    An arm is a norm or an arm of an experiment file. With `sweep`, it is one at one value of the
    swept setting.
    """

    arms: str | None = field(
        None,
        "arms to compare, separated by commas: norms (default: none,batch), or arms of FILE "
        "(default: all)",
    )
    sweep: str | None = field(
        None,
        "another setting to vary, with its values: learning_rate=0.01,0.05,0.1; any of data, "
        "model, training or transfer; several together as "
        "optimizer+learning_rate=sgd:0.01,adamw:0.001",
    )
    seeds: int = field(5, "number of seeds, counted up from --seed", low=1, high=10_000)
    half_width: float | None = field(
        None,
        "add seeds until the 95 % interval of the difference of test accuracy is at most this many "
        "points wide on each side; --seeds is the first stage (Stein's two stages)",
        low=0.0,
        low_open=True,
        high=100.0,
    )
    seed_parallelism: str = field(
        "auto", "runs trained together in one program: a number, or auto (1 on the CPU)"
    )


@dataclass(frozen=True)
class FileConfig:
    """The experiment file that defines model, inputs, loss, optimiser and schedule.

    Without a file, the other tables define them.
    """

    file: str | None = field(None, "name of the file, without its directory")
    sha256: str | None = field(None, "digest of the file, in hex")
    arm: str | None = field(None, "name of the arm in the file")
    hyper: str | None = field(None, "swept hyper-parameters of the file: gamma=2.0")


# Settings that an experiment file leaves to the config, besides the images. All others are its own.
_FREE = ("seed", "epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "kernels")
FILE_SETTINGS = tuple(f"training.{name}" for name in _FREE)


def is_free(field: str) -> bool:
    """Return whether an experiment file leaves a setting, `section.name`, to the config."""
    section, _, name = field.partition(".")
    images = section == "data" and name not in ("augment", "flip", "mean", "std")
    known = ("model.num_classes", *FILE_SETTINGS)
    return images or section in ("study", "experiment", "hyper") or field in known


@dataclass(frozen=True)
class Config:
    """Settings of one experiment. `name`, if not empty, prefixes the default run directory."""

    name: str = ""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    transfer: TransferConfig = TransferConfig()
    study: StudyConfig = StudyConfig()
    experiment: FileConfig = FileConfig()


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "transfer": TransferConfig,
    "study": StudyConfig,
    "experiment": FileConfig,
}
# Sections without flags of their own: the commands set these fields.
WITHOUT_FLAGS = ("experiment",)
