// Draws each map on its canvas, with isolines, and says the value under the pointer.
for (const canvas of document.querySelectorAll("canvas[data-map]")) {
  const [span, low, high, rows] = JSON.parse(canvas.dataset.map), n = rows.length;
  const size = canvas.width / n, draw = canvas.getContext("2d");
  const output = canvas.parentElement.querySelector("output");
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const share = value => Math.min(1, Math.max(0, Math.log(value / low) / Math.log(high / low)));
  const colour = value => {
    if (value === null) return "#888";
    const at = 4 * share(value), i = Math.min(3, Math.floor(at));
    return `rgb(${stops[i].map((c, k) => Math.round(c + (at - i) * (stops[i + 1][k] - c)))})`;
  };
  const band = value => value === null ? -1 : Math.floor(12 * share(value));
  const paint = () => rows.forEach((row, j) => row.forEach((value, i) => {
    const x = i * size, y = (n - 1 - j) * size;
    draw.fillStyle = colour(value);
    draw.fillRect(x, y, size, size);
    draw.fillStyle = "rgba(255, 255, 255, 0.6)";
    if (i && band(value) !== band(row[i - 1])) draw.fillRect(x, y, 1, size);
    if (j && band(value) !== band(rows[j - 1][i])) draw.fillRect(x, y + size - 1, size, 1);
  }));
  const show = event => {
    const box = canvas.getBoundingClientRect();
    const cell = part => Math.min(n - 1, Math.max(0, Math.floor(n * part)));
    const i = cell((event.clientX - box.left) / box.width);
    const j = n - 1 - cell((event.clientY - box.top) / box.height);
    const place = k => (span * (2 * k / (n - 1) - 1)).toFixed(2), value = rows[j][i];
    output.textContent = `At (${place(i)}, ${place(j)}): ` +
      (value === null ? "not finite" : `${value.toPrecision(4)} ${canvas.dataset.unit}`);
    paint();
    draw.strokeStyle = "white";
    draw.lineWidth = 2;
    draw.strokeRect(i * size, (n - 1 - j) * size, size, size);
  };
  paint();
  canvas.addEventListener("pointermove", show);
  canvas.addEventListener("pointerdown", show);
}
