// The operators of cifar_jax/export/graph.py, for one image. Each is a function of a node's
// attributes and of arrays {shape, data}, see network.js. Truth is 1, and falsehood is 0.

// Returns the number of values from one index of each axis to the next.
function stridesOf(shape) {
  const strides = Array(shape.length).fill(1);
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1] * shape[i + 1];
  return strides;
}

// Calls row(at, offsets) for each row along the last axis of `shape`. `at` is the index of its first
// value. `offsets` has an index for each of `starts`, moved by that list of strides.
function eachRow(shape, strides, row, starts = strides.map(() => 0)) {
  let at = 0;
  const visit = (axis, offsets) => {
    if (axis === shape.length - 1) {
      row(at, offsets);
      at += shape[axis];
      return;
    }
    for (let i = 0; i < shape[axis]; i++) {
      visit(axis + 1, offsets.map((offset, k) => offset + i * strides[k][axis]));
    }
  };
  visit(0, starts);
}

const unary = f => (_, x) => ({shape: x.shape, data: x.data.map(value => f(value))});

const NOTHING = {shape: [], data: [0]};

// Applies f to up to three arrays. An axis of size 1, or a missing first axis, is repeated.
function broadcast(f, a, b = NOTHING, c = NOTHING) {
  const rank = Math.max(a.shape.length, b.shape.length, c.shape.length, 1);
  const shapes = [a, b, c].map(x => [...Array(rank - x.shape.length).fill(1), ...x.shape]);
  const out = zeros(shapes[0].map((_, i) => Math.max(...shapes.map(shape => shape[i]))));
  const strides = shapes.map(
    shape => stridesOf(shape).map((stride, i) => shape[i] === 1 ? 0 : stride));
  const [stepA, stepB, stepC] = strides.map(steps => steps[rank - 1]), n = out.shape[rank - 1];
  eachRow(out.shape, strides, (at, [i, j, l]) => {
    for (let k = 0; k < n; k++) {
      out.data[at + k] = f(a.data[i + k * stepA], b.data[j + k * stepB], c.data[l + k * stepC]);
    }
  });
  return out;
}

const several = f => (_, ...arrays) => broadcast(f, ...arrays);

// Returns the values at `start` + the sum of index * stride of each axis.
function take(x, shape, strides, start = 0) {
  const out = zeros(shape), step = strides[shape.length - 1], n = shape[shape.length - 1];
  eachRow(shape, [strides], (at, [i]) => {
    for (let k = 0; k < n; k++) out.data[at + k] = x.data[i + k * step];
  }, [start]);
  return out;
}

function transpose({perm}, x) {
  const strides = stridesOf(x.shape);
  return take(x, perm.map(axis => x.shape[axis]), perm.map(axis => strides[axis]));
}

function slice({axes, starts, ends, steps}, x) {
  const shape = [...x.shape], strides = stridesOf(x.shape);
  let start = 0;
  axes.forEach((axis, i) => {
    const size = x.shape[axis], step = steps[i], [low, high] = step > 0 ? [0, size] : [-1, size - 1];
    const [from, to] = [starts[i], ends[i]].map(
      place => Math.min(Math.max(place < 0 ? place + size : place, low), high));
    shape[axis] = Math.max(0, Math.ceil((to - from) / step));
    start += from * strides[axis];
    strides[axis] *= step;
  });
  return take(x, shape, strides, start);
}

function reshape({shape}, x) {
  const known = count(shape.filter(size => size !== -1));
  return {shape: shape.map(size => size === -1 ? x.data.length / known : size), data: x.data};
}

// Copies x into a larger array, whose axes it enters at `starts`.
function place(x, out, starts) {
  const strides = stridesOf(out.shape), n = x.shape[x.shape.length - 1];
  const start = starts.reduce((sum, from, axis) => sum + from * strides[axis], 0);
  eachRow(x.shape, [strides], (at, [i]) => {
    for (let k = 0; k < n; k++) out.data[i + k] = x.data[at + k];
  }, [start]);
}

function pad({pads, value}, x) {
  const rank = x.shape.length;
  const out = zeros(x.shape.map((size, axis) => size + pads[axis] + pads[axis + rank]));
  out.data.fill(value);
  place(x, out, pads.slice(0, rank));
  return out;
}

function concat({axis}, ...arrays) {
  const shape = [...arrays[0].shape];
  shape[axis] = arrays.reduce((sum, x) => sum + x.shape[axis], 0);
  const out = zeros(shape);
  let from = 0;
  for (const x of arrays) {
    place(x, out, shape.map((_, i) => i === axis ? from : 0));
    from += x.shape[axis];
  }
  return out;
}

// Reduces axes, which the result does not have, from `first` by f.
const reduce = (f, first) => ({axes}, x) => {
  const kept = x.shape.map((_, i) => i).filter(axis => !axes.includes(axis));
  const moved = transpose({perm: [...kept, ...axes]}, x);
  const out = zeros(kept.map(axis => x.shape[axis])), n = x.data.length / out.data.length;
  for (let i = 0; i < out.data.length; i++) {
    out.data[i] = moved.data.subarray(i * n, (i + 1) * n).reduce(f, first);
  }
  return out;
};

// Returns height and width of the output of a window.
const outputSize = ({strides, pads, dilations = [1, 1]}, kernel, shape) => [0, 1].map(i => Math.floor(
  (shape[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (kernel[i] - 1) - 1) / strides[i]) + 1);

// Calls at(k, out, index) for each position k of a window, each position `out` of the output, and
// its index in a channel of x. Positions in the padding have none.
function eachTap({strides, pads, dilations = [1, 1]}, [kh, kw], [, , height, width], [rows, columns], at) {
  for (let i = 0; i < kh; i++) for (let j = 0; j < kw; j++) for (let row = 0; row < rows; row++) {
    const y = row * strides[0] + i * dilations[0] - pads[0];
    if (y < 0 || y >= height) continue;
    for (let column = 0; column < columns; column++) {
      const x = column * strides[1] + j * dilations[1] - pads[1];
      if (x >= 0 && x < width) at(i * kw + j, row * columns + column, y * width + x);
    }
  }
}

// Convolves by one product of matrices a group: a row for each output position has its window.
function convolve(attributes, x, weight, bias) {
  const {group} = attributes, [filters, channels, ...kernel] = weight.shape;
  const size = outputSize(attributes, kernel, x.shape), area = count(size), taps = count(kernel);
  const out = zeros([1, filters, ...size]), depth = channels * taps, rows = filters / group;
  const inside = x.shape[2] * x.shape[3];
  for (let g = 0; g < group; g++) {
    const windows = new Float32Array(area * depth);
    for (let c = 0; c < channels; c++) {
      const from = (g * channels + c) * inside;
      eachTap(attributes, kernel, x.shape, size, (k, p, index) => {
        windows[p * depth + c * taps + k] = x.data[from + index];
      });
    }
    multiply(weight.data, windows, out.data, {
      rows, columns: area, depth, leftStart: g * rows * depth, start: g * rows * area,
    });
  }
  return bias ? broadcast((a, b) => a + b, out, {shape: [filters, 1, 1], data: bias.data}) : out;
}

// Reduces each window of each channel, from `first` by f.
const pool = (f, first, finish = total => total) => (attributes, x) => {
  const {kernel_shape} = attributes, size = outputSize(attributes, kernel_shape, x.shape);
  const out = zeros([1, x.shape[1], ...size]), area = count(size), inside = x.shape[2] * x.shape[3];
  out.data.fill(first);
  for (let c = 0; c < x.shape[1]; c++) {
    eachTap(attributes, kernel_shape, x.shape, size, (_, p, index) => {
      out.data[c * area + p] = f(out.data[c * area + p], x.data[c * inside + index]);
    });
  }
  return {shape: out.shape, data: out.data.map(total => finish(total, count(kernel_shape)))};
};

// Returns a matrix, or several, with the last two axes exchanged. Those of constants are kept.
const turned = new WeakMap();
function turn(x) {
  if (!turned.has(x)) {
    const axes = x.shape.map((_, i) => i);
    turned.set(x, transpose({perm: [...axes.slice(0, -2), ...axes.slice(-2).reverse()]}, x));
  }
  return turned.get(x);
}

function matmul(_, a, b) {
  const rank = Math.max(a.shape.length, b.shape.length);
  const [rows, depth] = a.shape.slice(-2), columns = b.shape.at(-1);
  const [first, second] = [a, b].map(x => [...Array(rank - x.shape.length).fill(1), ...x.shape]);
  const outer = first.slice(0, -2).map((size, i) => Math.max(size, second[i]));
  const spread = (x, shape) => broadcast(v => v, x, zeros([...outer, ...shape.slice(-2)]));
  const left = spread(a, first), right = count(outer) === 1 ? turn(b) : turn(spread(b, second));
  const out = zeros([...outer, rows, columns]);
  for (let i = 0; i < count(outer); i++) {
    multiply(left.data, right.data, out.data, {
      rows, columns, depth,
      leftStart: i * rows * depth, rightStart: i * columns * depth, start: i * rows * columns,
    });
  }
  return out;
}

function gemm(_, x, weight, bias) {
  const out = matmul({}, x, weight);
  return bias ? broadcast((a, b) => a + b, out, bias) : out;
}

// Abramowitz and Stegun, "Handbook of Mathematical Functions", formula 7.1.26: within 1.5e-7.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
  return Math.sign(x) * (1 - series.reduce((sum, a) => (sum + a) * t, 0) * Math.exp(-x * x));
}

const operators = {
  Cast: ({to}, x) => to === "bool" ? unary(v => v !== 0)({}, x) : x,
  Add: several((a, b) => a + b),
  Sub: several((a, b) => a - b),
  Mul: several((a, b) => a * b),
  Div: several((a, b) => a / b),
  Pow: several((a, b) => a ** b),
  Max: several((a, b) => Math.max(a, b)),
  Min: several((a, b) => Math.min(a, b)),
  Equal: several((a, b) => a === b),
  Less: several((a, b) => a < b),
  LessOrEqual: several((a, b) => a <= b),
  Greater: several((a, b) => a > b),
  GreaterOrEqual: several((a, b) => a >= b),
  And: several((a, b) => a && b),
  Or: several((a, b) => a || b),
  Where: several((condition, a, b) => condition ? a : b),
  Relu: unary(x => Math.max(x, 0)),
  Exp: unary(Math.exp),
  Log: unary(Math.log),
  Tanh: unary(Math.tanh),
  Sigmoid: unary(x => 1 / (1 + Math.exp(-x))),
  Sqrt: unary(Math.sqrt),
  Reciprocal: unary(x => 1 / x),
  Abs: unary(Math.abs),
  Neg: unary(x => -x),
  Sign: unary(Math.sign),
  Erf: unary(erf),
  Floor: unary(Math.floor),
  Ceil: unary(Math.ceil),
  Sin: unary(Math.sin),
  Cos: unary(Math.cos),
  Not: unary(x => !x),
  Conv: convolve,
  MaxPool: pool(Math.max, -Infinity),
  AveragePool: pool((sum, x) => sum + x, 0, (total, n) => total / n),
  Gemm: gemm,
  MatMul: matmul,
  ReduceSum: reduce((sum, x) => sum + x, 0),
  ReduceMax: reduce((most, x) => Math.max(most, x), -Infinity),
  ReduceMin: reduce((least, x) => Math.min(least, x), Infinity),
  Reshape: reshape,
  Expand: ({shape}, x) => broadcast(x => x, x, zeros(shape)),
  Transpose: transpose,
  Slice: slice,
  Pad: pad,
  Concat: concat,
};
