// Prepares a picture as `predict` does, and changes it. Pixels are 0 to 255, in rows, with three
// channels for each position.

// Lanczos kernel with three lobes: Duchon 1979, "Lanczos filtering in one and two dimensions".
function lanczos(x) {
  if (x === 0) return 1;
  if (Math.abs(x) >= 3) return 0;
  const t = Math.PI * x;
  return 3 * Math.sin(t) * Math.sin(t / 3) / (t * t);
}

// Returns the weights of the old pixels in each of `size` new ones, along one axis.
// The new pixels divide the old ones from `start` to `end`, of `length` in all.
// Pillow rounds each weight to a multiple of 2^-22, and so does this.
function resampling(length, start, end, size) {
  const scale = (end - start) / size, wide = Math.max(scale, 1);
  return Array.from({length: size}, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const from = Math.max(Math.floor(centre - 3 * wide + 0.5), 0);
    const to = Math.min(Math.floor(centre + 3 * wide + 0.5), length);
    const raw = Array.from({length: to - from}, (_, k) => lanczos((from + k - centre + 0.5) / wide));
    const total = raw.reduce((sum, weight) => sum + weight, 0);
    return {from, weights: raw.map(weight => Math.round(weight / total * 2 ** 22))};
  });
}

// Returns the centred part of a picture with the shape of the result, resized to it.
// That is Pillow's ImageOps.fit with Lanczos: first the columns, then the rows, each rounded to
// whole numbers. `rgba` has four channels; the fourth is ignored.
function fit(rgba, width, height, [rows, columns]) {
  const part = Math.min(width / columns, height / rows);
  const left = (width - part * columns) / 2, top = (height - part * rows) / 2;
  const across = resampling(width, left, left + part * columns, columns);
  const down = resampling(height, top, top + part * rows, rows);
  const first = down[0].from, used = down[rows - 1].from + down[rows - 1].weights.length - first;
  const byte = total => Math.min(255, Math.max(0, Math.floor(total / 2 ** 22 + 0.5)));
  const narrow = new Uint8ClampedArray(used * columns * 3);
  for (let y = 0; y < used; y++) across.forEach(({from, weights}, x) => {
    for (let c = 0; c < 3; c++) {
      let total = 0, at = ((y + first) * width + from) * 4 + c;
      for (let k = 0; k < weights.length; k++, at += 4) total += weights[k] * rgba[at];
      narrow[(y * columns + x) * 3 + c] = byte(total);
    }
  });
  const out = new Uint8ClampedArray(rows * columns * 3), line = columns * 3;
  down.forEach(({from, weights}, y) => {
    for (let x = 0; x < line; x++) {
      let total = 0, at = (from - first) * line + x;
      for (let k = 0; k < weights.length; k++, at += line) total += weights[k] * narrow[at];
      out[y * line + x] = byte(total);
    }
  });
  return out;
}

// Returns the pixels of a picture (ImageBitmap, canvas or video) for the network, of its size.
// Only the columns and rows that the result needs are read. Transparent pixels are on white.
function pixelsOf(picture, width, height, size) {
  const [rows, columns] = size, part = Math.min(width / columns, height / rows);
  // Three lobes on each side are three new pixels, and one for rounding.
  const margin = 3 * Math.max(part, 1) + 2;
  const cut = (length, used) => {
    const from = Math.max(0, Math.floor((length - used) / 2 - margin));
    return [from, length - 2 * from];
  };
  const [left, wide] = cut(width, part * columns), [top, high] = cut(height, part * rows);
  const canvas = document.createElement("canvas");
  canvas.width = wide;
  canvas.height = high;
  const draw = canvas.getContext("2d", {willReadFrequently: true});
  draw.fillStyle = "white";
  draw.fillRect(0, 0, wide, high);
  draw.drawImage(picture, left, top, wide, high, 0, 0, wide, high);
  return fit(draw.getImageData(0, 0, wide, high).data, wide, high, size);
}

// Calls f(y, x, at) for each position of pixels of a size; `at` is the index of its first channel.
function eachPosition([rows, columns], f) {
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) f(y, x, (y * columns + x) * 3);
}

// Mirrors left and right.
function flip(pixels, size) {
  const out = new Uint8ClampedArray(pixels.length);
  eachPosition(size, (y, x, at) => {
    const from = (y * size[1] + size[1] - 1 - x) * 3;
    for (let c = 0; c < 3; c++) out[at + c] = pixels[from + c];
  });
  return out;
}

// Moves by whole pixels, to the right and down. What enters is black, as in the training's crops.
function shift(pixels, size, right, down) {
  const out = new Uint8ClampedArray(pixels.length);
  eachPosition(size, (y, x, at) => {
    const row = y - down, column = x - right;
    if (row < 0 || row >= size[0] || column < 0 || column >= size[1]) return;
    for (let c = 0; c < 3; c++) out[at + c] = pixels[(row * size[1] + column) * 3 + c];
  });
  return out;
}

// Blurs with a Gaussian kernel of standard deviation sigma, in pixels. The edge is repeated.
function blur(pixels, size, sigma) {
  if (!sigma) return pixels;
  const radius = Math.ceil(3 * sigma);
  const raw = Array.from({length: 2 * radius + 1}, (_, i) =>
    Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const total = raw.reduce((sum, weight) => sum + weight, 0);
  const along = (from, axis) => {
    const out = new Float32Array(from.length);
    eachPosition(size, (y, x, at) => {
      for (let i = -radius; i <= radius; i++) {
        const place = axis ? x + i : y + i, near = Math.min(Math.max(place, 0), size[axis] - 1);
        const other = (axis ? y * size[1] + near : near * size[1] + x) * 3;
        for (let c = 0; c < 3; c++) out[at + c] += raw[i + radius] / total * from[other + c];
      }
    });
    return out;
  };
  return Uint8ClampedArray.from(along(along(pixels, 1), 0));  // rounds
}
