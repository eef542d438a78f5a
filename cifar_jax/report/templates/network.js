// Runs a network in the page: a list of operators of ONNX, on one image at a time.
//
// An array is {shape, data}: sizes of its axes, and its numbers in row-major order. The network comes
// as JSON, see report/demo.py. The operators are those of cifar_jax/export/graph.py.

// Numbers of every float16 (IEEE 754 binary16): a sign, 5 bits of exponent, 10 of fraction.
const halves = Float32Array.from({length: 65536}, (_, bits) => {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return bits & 32768 ? -size : size;
});

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const count = shape => shape.reduce((product, size) => product * size, 1);
const zeros = shape => ({shape, data: new Float32Array(count(shape))});

// Returns a network with its constants as arrays. `stored` is the JSON of one network.
function loadNetwork(stored) {
  const {buffer} = bytesOf(stored.weights), constants = {};
  for (const [name, [type, shape, start]] of Object.entries(stored.constants)) {
    const data = type === "float16"
      ? Float32Array.from(new Uint16Array(buffer, start, count(shape)), bits => halves[bits])
      : new Float32Array(buffer, start, count(shape));
    constants[name] = {shape, data};
  }
  return {...stored, constants, weights: ""};
}

// Returns the logits of a network, Float32Array (classes).
// `pixels` are 0 to 255, by rows, with three channels for each position; `size` is [height, width].
function logitsOf(network, pixels, size) {
  const images = {shape: [1, ...size, 3], data: Float32Array.from(pixels)};
  const values = {...network.constants, images};
  for (const [operator, inputs, output, attributes] of network.nodes) {
    values[output] = operators[operator](attributes, ...inputs.map(name => values[name]));
  }
  return values[network.output].data;
}

// Multiplies matrices: out[start + m * columns + p] = sum over k of left[m, k] * right[p, k].
// Both matrices have rows of `depth` numbers. Tiles of 4 by 4 results stay in registers. The last
// tile of an axis repeats its last row, and writes the same number again.
function multiply(left, right, out, {rows, columns, depth, leftStart = 0, rightStart = 0, start = 0}) {
  for (let m = 0; m < rows; m += 4) {
    const m1 = Math.min(m + 1, rows - 1), m2 = Math.min(m + 2, rows - 1);
    const m3 = Math.min(m + 3, rows - 1);
    const l0 = leftStart + m * depth, l1 = leftStart + m1 * depth;
    const l2 = leftStart + m2 * depth, l3 = leftStart + m3 * depth;
    for (let p = 0; p < columns; p += 4) {
      const p1 = Math.min(p + 1, columns - 1), p2 = Math.min(p + 2, columns - 1);
      const p3 = Math.min(p + 3, columns - 1);
      const r0 = rightStart + p * depth, r1 = rightStart + p1 * depth;
      const r2 = rightStart + p2 * depth, r3 = rightStart + p3 * depth;
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      let c0 = 0, c1 = 0, c2 = 0, c3 = 0, d0 = 0, d1 = 0, d2 = 0, d3 = 0;
      for (let k = 0; k < depth; k++) {
        const u0 = left[l0 + k], u1 = left[l1 + k], u2 = left[l2 + k], u3 = left[l3 + k];
        const v0 = right[r0 + k], v1 = right[r1 + k], v2 = right[r2 + k], v3 = right[r3 + k];
        a0 += u0 * v0; a1 += u0 * v1; a2 += u0 * v2; a3 += u0 * v3;
        b0 += u1 * v0; b1 += u1 * v1; b2 += u1 * v2; b3 += u1 * v3;
        c0 += u2 * v0; c1 += u2 * v1; c2 += u2 * v2; c3 += u2 * v3;
        d0 += u3 * v0; d1 += u3 * v1; d2 += u3 * v2; d3 += u3 * v3;
      }
      const o0 = start + m * columns, o1 = start + m1 * columns;
      const o2 = start + m2 * columns, o3 = start + m3 * columns;
      out[o0 + p] = a0; out[o0 + p1] = a1; out[o0 + p2] = a2; out[o0 + p3] = a3;
      out[o1 + p] = b0; out[o1 + p1] = b1; out[o1 + p2] = b2; out[o1 + p3] = b3;
      out[o2 + p] = c0; out[o2 + p1] = c1; out[o2 + p2] = c2; out[o2 + p3] = c3;
      out[o3 + p] = d0; out[o3 + p1] = d1; out[o3 + p2] = d2; out[o3 + p3] = d3;
    }
  }
}
