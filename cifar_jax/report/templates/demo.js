// The section of the page in which the networks answer for an image of the reader.
{
  const section = document.querySelector(".demo"), find = name => section.querySelector(name);
  const demo = JSON.parse(document.getElementById("demo-data").textContent);
  const {size, classes, tests} = demo, [rows, columns] = size, MOST_ROWS = 10;
  const problem = find(".problem"), status = find(".status"), camera = find(".camera");
  const inputs = [...section.querySelectorAll(".changes input")];
  const arms = demo.arms.map(arm => ({...arm, networks: arm.networks.map(loadNetwork)}));
  let shown = null;  // {pixels, from, label}: a picture of the network's size
  let video = null;

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function paint(canvas, pixels) {
    canvas.width = columns;
    canvas.height = rows;
    const image = new ImageData(columns, rows);
    for (let i = 0; i < rows * columns; i++) {
      image.data.set([pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], 255], 4 * i);
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  function softmax(logits) {
    const most = Math.max(...logits), powers = Array.from(logits, x => Math.exp(x - most));
    const total = powers.reduce((sum, power) => sum + power, 0);
    return powers.map(power => power / total);
  }

  // Returns the mean probabilities of an arm's networks. Its temperature divides their logarithm,
  // as cifar_jax/analysis/fitted.py describes.
  function probabilities(arm, pixels) {
    const all = arm.networks.map(network => softmax(logitsOf(network, pixels, size)));
    const mean = classes.map((_, i) => all.reduce((sum, one) => sum + one[i], 0) / all.length);
    return softmax(mean.map(value => Math.log(value + 1e-30) / (arm.temperature ?? 1)));
  }

  const best = values => values.indexOf(Math.max(...values));
  const percent = value => `${(100 * value).toFixed(1)} %`;
  const said = all => arms.map((arm, i) => {
    const top = best(all[i]);
    return `${arm.label}: ${classes[top]}, ${percent(all[i][top])}`;
  }).join("; ");

  // The table: a head with the answer of each arm, and a row for each class that is shown.
  function tabulate(now, before) {
    const scores = classes.map((_, i) => Math.max(...now.map(all => all[i])));
    const order = classes.map((_, i) => i);
    if (classes.length > MOST_ROWS) order.sort((a, b) => scores[b] - scores[a]).length = MOST_ROWS;
    const head = element("tr", {}, element("th", {scope: "col"}, "class"), ...arms.map((arm, i) => {
      const top = best(now[i]), answer = element("span", {className: "answer"}, classes[top]);
      if (shown.label !== null) {
        const right = top === shown.label;
        answer.append(element("span", {className: right ? "right" : "wrong"},
                              right ? " ✓ right" : " ✗ wrong"));
      }
      return element("th", {scope: "col"}, arm.label, element("small", {}, arm.what), answer);
    }));
    const body = order.map(i => element("tr", {className: now.some(all => best(all) === i) ? "first" : ""},
      element("th", {scope: "row"}, classes[i]),
      ...arms.map((arm, k) => {
        const bar = element("div", {className: "bar"}), track = element("div", {className: "track"}, bar);
        bar.style.width = `${100 * now[k][i]}%`;
        bar.style.setProperty("--arm", arm.colour);
        if (before) {
          const mark = element("div", {className: "before", title: `without the changes ${percent(before[k][i])}`});
          mark.style.left = `calc(${100 * before[k][i]}% - 1px)`;
          track.append(mark);
        }
        return element("td", {}, element("div", {className: "cell"}, track,
          element("span", {className: "number"}, percent(now[k][i]))));
      })));
    const [caption] = find(".confidences").children;
    find(".confidences").replaceChildren(
      caption, element("thead", {}, head), element("tbody", {}, ...body));
  }

  // Changes the picture as the sliders say, asks every arm, and shows the answers.
  function answer() {
    const value = Object.fromEntries(inputs.map(
      input => [input.name, input.type === "checkbox" ? input.checked : Number(input.value)]));
    for (const input of inputs.filter(one => one.type === "range")) {
      const unit = input.value === "0" ? "none" : `${input.value} px`;
      input.parentElement.querySelector("output").textContent = unit;
    }
    if (!shown) return;
    let pixels = shown.pixels;
    if (value.flip) pixels = flip(pixels, size);
    if (value.right || value.down) pixels = shift(pixels, size, value.right, value.down);
    pixels = blur(pixels, size, value.sigma);
    paint(find(".eye"), pixels);
    const changed = pixels !== shown.pixels, now = arms.map(arm => probabilities(arm, pixels));
    if (changed) shown.before ??= arms.map(arm => probabilities(arm, shown.pixels));
    const truth = shown.label === null ? "" : ` Its label is ${classes[shown.label]}.`;
    const unchanged = changed ? ` Without the changes, ${said(shown.before)}.` : "";
    status.textContent = `${said(now)}.${truth}${unchanged}`;
    find(".from").textContent = `${shown.from}, as ${columns}x${rows} pixels`;
    tabulate(now, changed ? shown.before : null);
  }

  function show(picture) {
    shown = picture;
    problem.textContent = "";
    answer();
  }

  function stopCamera() {
    if (!video) return;
    for (const track of video.srcObject.getTracks()) track.stop();
    video = null;
    camera.setAttribute("aria-pressed", "false");
    camera.textContent = "Camera";
    status.setAttribute("aria-live", "polite");
  }

  function leaveTests() {
    for (const radio of section.querySelectorAll(".tests input")) radio.checked = false;
  }

  async function open(file) {
    stopCamera();
    try {
      // As in training: without a colour profile, rotated by the EXIF orientation.
      const bitmap = await createImageBitmap(file, {colorSpaceConversion: "none"});
      const pixels = pixelsOf(bitmap, bitmap.width, bitmap.height, size);
      leaveTests();
      show({pixels, from: `${file.name || "pasted image"}, ${bitmap.width}x${bitmap.height}`, label: null});
      bitmap.close();
    } catch {
      problem.textContent = `${file.name || "This"} is not an image that this browser can read.`;
    }
  }

  async function toggleCamera() {
    if (video) return stopCamera();
    const element = document.createElement("video");
    try {
      element.srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
      await element.play();
    } catch (error) {
      problem.textContent = `The camera cannot be used: ${error.message}.`;
      return;
    }
    stopCamera();  // A second click, before the browser allowed the first, made another stream.
    video = element;
    camera.setAttribute("aria-pressed", "true");
    camera.textContent = "Stop the camera";
    status.setAttribute("aria-live", "off");  // A screen reader would read every frame.
    leaveTests();
    const frame = () => {
      if (video !== element) return;
      const {videoWidth: wide, videoHeight: high} = element;
      show({pixels: pixelsOf(element, wide, high, size), from: "camera", label: null});
      setTimeout(frame, 100);
    };
    frame();
  }

  // Returns the pixels of each test image.
  function testPictures() {
    const {buffer} = bytesOf(tests.pixels), length = rows * columns * 3;
    return tests.numbers.map((_, i) => new Uint8ClampedArray(buffer, i * length, length));
  }

  function addTests(pictures) {
    pictures.forEach((pixels, i) => {
      const number = tests.numbers[i], label = tests.labels[i];
      const from = `test image ${number}`, radio = element("input", {type: "radio", name: "demo-test"});
      radio.setAttribute("aria-label", `${from}, ${classes[label]}`);
      radio.addEventListener("change", () => {
        stopCamera();
        show({pixels, from, label});
      });
      const canvas = element("canvas");
      paint(canvas, pixels);
      find(".tests").append(element("label", {title: `${from}: ${classes[label]}`}, radio, canvas));
    });
    find(".tests").hidden = false;
    find(".tests input").click();
  }

  // Compares the logits of the test images with the recorded ones, one network at a time.
  function check(pictures) {
    const work = arms.flatMap(arm => arm.networks);
    let largest = 0, spent = 0;
    const next = k => {
      if (k === work.length) {
        find(".check").textContent = `Checked in this browser on ${tests.labels.length} test images: `
          + `the logits differ from the recorded ones by at most ${largest.toPrecision(2)}; an answer `
          + `takes ${(spent / tests.labels.length / work.length).toFixed(1)} ms a network.`;
        return;
      }
      const begun = performance.now();
      work[k].logits.forEach((expected, i) => {
        const found = logitsOf(work[k], pictures[i], size);
        expected.forEach((x, j) => { largest = Math.max(largest, Math.abs(x - found[j])); });
      });
      spent += performance.now() - begun;
      setTimeout(next, 0, k + 1);
    };
    next(0);
  }

  for (const input of inputs) input.addEventListener("input", answer);
  find(".reset").addEventListener("click", () => {
    for (const input of inputs) {
      input.checked = false;
      if (input.type === "range") input.value = 0;
    }
    answer();
  });
  find(".choose input").addEventListener("change", event => {
    const [file] = event.target.files;
    event.target.value = "";  // The same file can be chosen again.
    if (file) open(file);
  });
  camera.addEventListener("click", toggleCamera);
  camera.hidden = !navigator.mediaDevices?.getUserMedia;
  document.addEventListener("dragover", event => {
    event.preventDefault();
    section.classList.add("over");
  });
  document.addEventListener("dragleave", event => {
    if (!event.relatedTarget) section.classList.remove("over");
  });
  document.addEventListener("drop", event => {
    event.preventDefault();
    section.classList.remove("over");
    section.scrollIntoView({block: "nearest"});
    const [file] = event.dataTransfer.files;
    if (file) open(file);
    else problem.textContent = "This is no file. The page makes no connection: save the image, and drop its file.";
  });
  document.addEventListener("paste", event => {
    const [file] = event.clipboardData.files;
    if (file) open(file);
  });
  find(".ask").hidden = false;
  answer();
  if (tests) {
    const pictures = testPictures();
    addTests(pictures);
    setTimeout(check, 0, pictures);
  }
}
