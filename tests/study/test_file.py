"""An experiment file: what it may say, and the line of each mistake. Nothing is trained."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cifar_jax.config.settings import Config
from cifar_jax.core.model import CNN
from cifar_jax.core.train import INPUTS, Experiment, draw_key, epoch_order, init_state
from cifar_jax.errors import UserError
from cifar_jax.study.file import ExperimentFile, load_file
from cifar_jax.study.file_checks import Problem, check_arm, unshared_draws
from cifar_jax.study.grid import parse_sweep
from cifar_jax.study.kept import check_unchanged
from cifar_jax.study.values import set_values

HEAD = '''"""Does it   help?
Really?

More words."""
import cifar_jax as cj, flax.linen as nn, jax, jax.numpy as jnp, optax
def small(**fields):
    model = cj.CNN(num_classes=3, widths=(2,), hidden=4)
    return cj.Experiment(**{"model": model, "batch_size": 4, **fields})
'''
FIRST = HEAD.count("\n") + 1  # line of what follows
TWO = "arms = {'a': small(), 'b': small(epochs=2)}\n"
PROBLEM = Problem((8, 8, 3), 3, 20)


def write(tmp_path: Path, body: str, head: str = HEAD) -> Path:
    path = tmp_path / "own.py"
    path.write_text(head + body)
    return path


def check(path: Path) -> ExperimentFile:
    """Load a file, and check all its arms as commands do."""
    file = load_file(path)
    config = Config()
    for name in file.arms:
        check_arm(file, file.arm(name).config(config, 0), PROBLEM)
    return file


def mistake(path: Path) -> str:
    """The error of a file, without its path: `:12: what is wrong`."""
    with pytest.raises(UserError) as caught:
        check(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said.removeprefix(str(path))


def test_a_file_says_title_arms_labels_control_and_claims(tmp_path):
    body = TWO + "labels = {'b': 'B & C'}\ncontrol = 'b'\nclaims = [cj.better('a', 'b', by=0.5)]\n"
    file = check(write(tmp_path, body))
    assert file.title == "Does it help? Really?"
    assert list(file.arms) == ["a", "b"]
    assert file.labels == {"a": "a", "b": "B & C"}
    assert file.control == "b"
    (claim,) = file.claims
    assert (claim.arm, claim.than, claim.by) == ("a", "b", 0.5)
    plain = load_file(write(tmp_path, TWO))
    assert (plain.control, plain.claims, plain.images) == ("a", (), None)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "own.py"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + TWO).encode())
    assert check(path).sha256 == load_file(write(tmp_path, TWO)).sha256


def test_a_file_may_import_its_neighbours_but_hides_no_library(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_neighbour.py").write_text("WIDTH = 3\n")
    (tmp_path / "optax.py").write_text("raise RuntimeError\n")
    body = "import my_neighbour\n" + TWO + "arms['a'] = small(batch_size=my_neighbour.WIDTH)\n"
    assert check(write(tmp_path, body)).arms["a"].experiment.batch_size == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"arms = {\n", ":1: not valid Python: '{' was never closed"),
        (b"x = 1\nx = (\n\n", ":2: not valid Python: '(' was never closed"),
        (b"x = 1\n[][3]\n", ":2: IndexError: list index out of range"),
        (b"import nowhere_at_all\n", ":1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        (b"import sys\nsys.exit('no\\nmore')\n", ":2: SystemExit: no more"),
        (b"raise SystemExit\n", ":1: SystemExit: SystemExit"),
        (b"def f(): f()\nf()\n", ":1: RecursionError: maximum recursion depth exceeded"),
        (b"# caf\xe9\n", ": cannot be read (not UTF-8 text)"),
        ("x = 1".encode("utf-16"), ": cannot be read (not UTF-8 text)"),
        (b"x = 1\0\n", ": SyntaxError: source code string cannot contain null bytes"),
        (b"#" * (1 << 20 | 1), ": cannot be read (larger than 1,048,576 bytes)"),
        (b"", ": needs arms, such as"),
        (b"arms = {}\n", ": needs arms, such as"),
        (b"arms = ['a']\n", ": needs arms, such as"),
        (b"arms = {'a': 5}\n", ": arms['a']: is a int; allowed: Experiment or Arm"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, content, said):
    path = tmp_path / "own.py"
    path.write_bytes(content)
    assert mistake(path).startswith(said)


def test_a_directory_or_nothing_is_no_file(tmp_path):
    assert mistake(tmp_path) == ": cannot be read (Is a directory)"
    assert mistake(tmp_path / "x.py") == ": cannot be read (No such file or directory)"


@pytest.mark.parametrize("name", ["a-b", "a b", "", ".", "../a", "é", "x" * 65, 3, None, "a\n"])
def test_a_name_that_is_no_name(tmp_path, name):
    said = mistake(write(tmp_path, f"arms = {{{name!r}: small()}}\n"))
    assert said == f": arms[{name!r}]: a name has 1 to 64 letters, digits and '_'"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("arms['lock'] = small()", "arms['lock']: no arm can be called groups, figures, lock"),
        ("arms['a'] = small(epochs=0)", "arms['a']: epochs: 0 is out of range"),
        ("arms['a'] = small(epochs=1.5)", "arms['a']: epochs: 1.5 is not an integer"),
        ("arms['a'] = small(batch_size='all')", "arms['a']: batch_size: 'all' is not an integer"),
        ("arms['a'] = small(eval_batch_size=0)", "arms['a']: eval_batch_size: 0 is out of range"),
        ("arms['a'] = small(inputs=cj.Inputs(mean=[0.5]))", "arms['a']: must be hashable, so use"),
        ("arms['a'] = cj.Arm(small(), 5)", "arms['a']: hyper is a int; allowed: Hyper or a"),
        ("arms['a'] = cj.Arm(5)", "arms['a']: is a FileArm; allowed: Experiment or Arm"),
        ("arms['a'] = cj.Arm(small(), cj.Hyper('x'))", "learning_rate: 'x' is not a finite"),
        ("arms['a'] = cj.Arm(small(), cj.Hyper(-1))", "learning_rate: -1.0 is out of range"),
        (
            "class H(cj.Hyper):\n    beta: float = float('nan')\narms['a'] = cj.Arm(small(), H())",
            "arms['a']: beta: nan is not a finite number",
        ),
        ("control = 'c'", "control: 'c' is not an arm; allowed: a, b"),
        ("control = ['a']", "control: ['a'] is not an arm; allowed: a, b"),
        ("control = 0", "control: 0 is not an arm; allowed: a, b"),
        ("labels = {'c': 'C'}", "labels: 'c' is not an arm; allowed: a, b"),
        ("labels = {'a': 5}", "labels['a']: 5 is not a line of text"),
        ("labels = {'a': 'x\\n'}", "labels['a']: 'x\\n' is not a line of text"),
        ("labels = ['A']", "labels: is a list; allowed: a dict"),
        ("claims = [cj.better('a', 'c')]", "claims: 'c' is not an arm of this study"),
        ("claims = ['a is better']", "claims: 'a is better' is not a claim"),
        ("claims = cj.better('a', 'b')", "claims: is a Better; allowed: a list"),
        ("data = 'synthetic'", "data: is a str; allowed: what from_arrays or load returns"),
        ("def data(): return 5", "data: is a int; allowed: what from_arrays or load returns"),
    ],
)
def test_a_name_with_a_wrong_value(tmp_path, body, said):
    assert said in mistake(write(tmp_path, f"{TWO}{body}\n"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("claims = [cj.better('a', 'b', by='much')]", "by='much' is not a number of points"),
        ("claims = [cj.better('a', 'b', metric='speed')]", "metric='speed' is not known"),
        ("claims = [cj.better('a', 'b', text=5)]", "text=5 is not a line of text"),
        ("claims = [cj.better('a', 'b', text='\\x1b[0m')]", "is not a line of text"),
        ("claims = [cj.better('a', 'a')]", "compares 'a' with itself"),
        ("claims = [cj.equivalent('a', 'b')]", "TypeError: equivalent() missing 1 required"),
        ("cj.Experiment(optimiser=1)", "unexpected keyword argument 'optimiser'"),
        ("arms['a'] = cj.CMM()", "module 'cifar_jax' has no attribute 'CMM'"),
        ("data = cj.load('nowhere')", "--dataset nowhere: no such dataset or folder"),
        ("def data(x): return x", "data(): TypeError: data() missing 1 required positional"),
        ("def data(): return cj.from_arrays(([1], [2]), ([1], [2]))", "must be uint8"),
    ],
)
def test_a_mistake_in_a_line_names_the_line(tmp_path, line, said):
    found = mistake(write(tmp_path, f"{TWO}{line}\n"))
    assert found.startswith(f":{FIRST + 1}: ")
    assert said in found


MODEL = "class Net(nn.Module):\n    @nn.compact\n    def __call__(self, x, train):\n        {}\n"


def net(body: str) -> str:
    return MODEL.format(body) + "arms = {'a': small(model=Net())}\n"


def function(field: str, head: str, body: str) -> str:
    return f"def own({head}):\n    {body}\narms = {{'a': small({field}=own)}}\n"


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        (net("return nn.Dense(7)(x.mean((1, 2)))"), 1, "returns (2, 7) for 2 images; must be"),
        (net("return nn.Dense(3)(x.mean((1, 2))), x"), 1, "returns a tuple for 2 images"),
        (net("return nn.Dense(3)(x).mean()"), 1, "returns () for 2 images; must be logits (2, 3)"),
        (net("return x.mean((1, 2))"), 1, "the model has no parameters"),
        (net("return nn.Dense(3)(x.mean((1, 2))) @ jnp.ones((4, 3))"), 3, "model(x, train=False)"),
        (
            net("return nn.Dense(3)(x.mean((1, 2)))").replace(", train", ""),
            1,
            "the model has no `train`; write __call__(self, x, train)",
        ),
        (
            net(
                "if train: self.variable('batch_stats', 'n', jnp.zeros, ())\n"
                "        return nn.Dense(3)(x.mean((1, 2)))"
            ),
            1,
            "a step adds ['n']; a state must keep its form",
        ),
        (
            net(
                "n = self.variable('batch_stats', 'n', jnp.zeros, (2,))\n"
                "        if train: n.value = jnp.zeros((3,))\n"
                "        return nn.Dense(3)(x.mean((1, 2)))"
            ),
            1,
            "a step changes ['n'] from float32 (2,) to float32 (3,)",
        ),
        (function("model", "x, train", "return x"), 0, "model: is a own; must be a Flax module"),
        (function("loss", "logits, targets", "return logits[:, 0]"), 0, "loss of 2 images is (2,)"),
        (function("loss", "logits, targets", "pass"), 0, "the loss of 2 images is a NoneType"),
        (function("loss", "logits, targets", "return targets.sum()"), 0, "the loss is int32"),
        (function("loss", "logits", "return 0.0"), 0, "takes 1 positional argument but 2 were"),
        (
            function("loss", "logits, targets, hyper", "return 1.0 if hyper.momentum else 0.0"),
            1,
            "loss(logits, targets): needs the value of a traced array, as `if` and float() do",
        ),
        (function("optimizer", "rate", "return optax.sgd(rate)"), 0, "takes 1 positional argument"),
        (function("optimizer", "hyper, schedule", "pass"), 0, "'NoneType' object has no attribute"),
        (
            function(
                "optimizer",
                "hyper, schedule",
                "return optax.GradientTransformation(lambda p: p, lambda g, s, p=None: "
                "(g, jax.tree.map(lambda x: x.astype('bfloat16'), s)))",
            ),
            0,
            "a step changes .opt_state['conv1']['bias'] from float32 (2,) to bfloat16 (2,)",
        ),
        (function("inputs", "images", "return images / 255"), 0, "takes 1 positional argument but"),
        (
            function("inputs", "key, images", "pass"),
            0,
            "inputs return a NoneType; must be an array",
        ),
        (
            function("inputs", "key, images", "return jax.random.normal(key, images.shape)"),
            1,
            "inputs(None, images), as in evaluation: TypeError",
        ),
        (function("schedule", "rate, steps, total", "raise ValueError('no')"), 1, "ValueError: no"),
        (function("schedule", "rate", "return rate"), 0, "takes 1 positional argument but 3 were"),
        (function("schedule", "rate, steps, total", "return rate"), 0, "object is not callable"),
        (
            function("schedule", "rate, steps, total", "return lambda step: jnp.ones(2) * rate"),
            0,
            "the learning rate is (2,); must be a number",
        ),
        (function("evaluated", "state", "return state.params"), 0, "evaluated(state): ValueError"),
    ],
)
def test_a_function_that_cannot_be_used_names_its_line(tmp_path, body, line, said):
    found = mistake(write(tmp_path, body))
    assert found.startswith(f":{FIRST + line}: arm a: ")
    assert said in found


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("model=cj.CNN(widths=(2,), hidden=4)", "the model returns (2, 10) for 2 images"),
        ("model=cj.CNN", "model: is the class CNN; must be a Flax module"),
        ("model=None", "model: is a NoneType; must be a Flax module"),
        ("loss=5", "loss(logits, targets): TypeError: 5 is not a callable object"),
        ("optimizer=optax.sgd(0.1)", "must be a function (hyper, schedule) that returns this"),
        ("optimizer=optax.sgd", "optimizer(hyper, schedule): TypeError"),
        ("schedule=0.1", "'float' object is not callable"),
        ("inputs=5", "inputs(None, images), as in evaluation: TypeError"),
        ("precision='fast'", "precision: ValueError"),
    ],
)
def test_a_mistake_outside_the_file_has_no_line_of_it(tmp_path, field, said):
    """The line of a library's function would be a line of the wrong file."""
    found = mistake(write(tmp_path, f"arms = {{'a': small({field})}}\n"))
    assert found.startswith(": arm a: ")
    assert said in found


def test_arms_are_checked_as_they_will_train(tmp_path):
    """A schedule sees the steps of the run, not those of the two images of the check."""
    body = function(
        "schedule",
        "rate, steps, total",
        "assert (steps, total) == (5, 150)\n"
        "    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, 100, total)\n"
        "    return lambda step: rate * shape(step)",
    )
    check(write(tmp_path, body))


def test_a_subclass_of_hyper_has_more_hyper_parameters(tmp_path):
    """Without a decorator; they are float32 leaves, so that other values compile nothing."""
    body = (
        "class Own(cj.Hyper):\n    gamma: float = 2.0\n"
        "def loss(logits, targets, hyper): return hyper.gamma * cj.cross_entropy(logits, targets)\n"
        "arms = {'a': cj.Arm(small(loss=loss), Own(learning_rate=0.5))}\n"
    )
    file = check(write(tmp_path, body))
    config = file.arm("a").config(Config(experiment=file.table), 0)
    _, hyper = file.build(set_values(config, "hyper.gamma", 3.0))
    values = {key: float(value) for key, value in vars(hyper).items()}
    assert values == pytest.approx(
        {"learning_rate": 0.5, "momentum": 0.9, "weight_decay": 5e-4, "gamma": 3.0}
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(hyper)} == {np.dtype(np.float32)}
    with pytest.raises(UserError, match=r"hyper\.beta: arm a of .* has no such hyper-parameter"):
        file.build(set_values(config, "hyper.beta", 3.0))


def sweep_of(file: ExperimentFile | None, text: str):
    config = Config(experiment=file.table) if file else Config()
    study = config.study.__class__(sweep=text)
    return parse_sweep(config.__class__(experiment=config.experiment, study=study))


def test_what_a_file_can_sweep(tmp_path):
    file = load_file(write(tmp_path, TWO))
    assert sweep_of(file, "hyper.gamma=2,1").values == (1.0, 2.0)
    # The protocol's own hyper-parameters have one name only.
    assert sweep_of(file, "hyper.learning_rate=0.1").field == "training.learning_rate"
    for text, said in (
        ("dropout=0.1", "own.py defines 'dropout'; change it there"),
        ("hyper.gamma=nan", "'nan' is not a finite number"),
        ("hyper.a.b=1", "is no setting; allowed: .*hyper.NAME"),
    ):
        with pytest.raises(UserError, match=said):
            sweep_of(file, text)
    with pytest.raises(UserError, match=r"--sweep hyper\.gamma: needs an experiment file"):
        sweep_of(None, "hyper.gamma=1,2")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("a\nb\n", "a\nc\n", "line 2: 'b' -> 'c'"),
        ("a\n", "a\nb\n", "line 2: '' -> 'b'"),
        ("a\n\n", "a\n", r"line 2: '\n' -> ''"),
        ("a\n", "a\r\n", r"line 1: 'a\n' -> 'a\r\n'"),
        ("a", "a\n", r"line 1: 'a' -> 'a\n'"),
        ("x" * 200 + "1", "x" * 200 + "2", f"line 1: '{'x' * 15}1' -> '{'x' * 15}2'"),
    ],
)
def test_a_changed_file_is_refused_with_the_first_line_that_differs(tmp_path, before, after, said):
    def file_of(text):
        # The text alone: the files need not run.
        return ExperimentFile(tmp_path / "own.py", text, "", {}, {}, "", (), None)

    kept = tmp_path / "study"
    kept.mkdir()
    (kept / "experiment.py").write_bytes(before.encode())
    begun = file_of(before).sha256
    check_unchanged(file_of(before), begun, kept)
    for where in (kept, kept / "a" / "seed1" / "checkpoints"):
        with pytest.raises(UserError) as caught:
            check_unchanged(file_of(after), begun, where)
        assert f"is not the file with which {where} began; {said}; restore" in str(caught.value)
    # A copy that someone changed is no evidence.
    (kept / "experiment.py").write_text("other")
    with pytest.raises(UserError, match="began; restore it"):
        check_unchanged(file_of(after), begun, kept)


def test_arms_of_a_seed_share_their_draws():
    """Same path and shape, same initial value; same order; same augmentation."""
    shape, key = (8, 8, 3), jax.random.key(7)
    control = Experiment(CNN(num_classes=3, widths=(4,), hidden=8))
    arms = {
        "norm": Experiment(CNN(num_classes=3, widths=(4,), hidden=8, norm="batch")),
        "wide": Experiment(CNN(num_classes=3, widths=(4,), hidden=12)),
        "bright": Experiment(control.model, inputs=lambda key, images: images / 255),
        "batch": Experiment(control.model, batch_size=16),
        "loss": Experiment(control.model, loss=lambda logits, targets: logits.sum()),
    }
    said = unshared_draws(arms, control, shape)
    own = {
        "norm": [
            "4 of 10 parameters exist only in this arm, such as norm1.bias, norm1.scale, "
            "norm2.bias."
        ],
        "wide": [
            "4 of 6 parameters have other initial values, such as dense1.bias, dense1.kernel, "
            "dense2.bias."
        ],
        "batch": ["Its batches have 16 instead of 128 images, so augmentation and dropout differ."],
    }
    assert {name: said[name] for name in own} == own
    assert list(said) == ["norm", "wide", "bright", "batch"]
    assert "augmentation may differ" in said["bright"][0]

    def initial(experiment: Experiment) -> dict[str, np.ndarray]:
        params = jax.jit(lambda key: init_state(experiment, key, shape).params)(key)
        leaves = jax.tree_util.tree_leaves_with_path(params)
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    first = initial(control)
    for name, (second, count) in {"norm": (arms["norm"], 6), "wide": (arms["wide"], 2)}.items():
        found = initial(second)
        same = [k for k in first if k in found and np.array_equal(first[k], found[k])]
        assert len(same) == count, name
    # Order and augmentation depend on the run's key and on nothing of the experiment.
    orders = [epoch_order(key, epoch, 20) for epoch in (0, 1)]
    assert not np.array_equal(*orders)
    images = jax.random.randint(key, (4, *shape), 0, 256).astype("uint8")
    labels = np.zeros(4, np.int32)
    drawn = [
        arm.inputs.train(draw_key(key, INPUTS, 3), images, labels)[0]
        for arm in (control, arms["norm"])
    ]
    assert np.array_equal(*drawn)
