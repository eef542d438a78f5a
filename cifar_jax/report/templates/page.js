// Contents, sorted tables and large figures of a page. Without it the page has the same content.
{
  const contents = document.querySelector(".contents details");
  const wide = matchMedia("(min-width: 76rem)");
  const fit = () => { contents.open = wide.matches; };
  fit();
  wide.addEventListener("change", fit);

  // Returns the number at the beginning of a cell, the centre of an interval, or null.
  const number = text => {
    const one = "[+-]?\\d+(?:\\.\\d+)?(?:e[+-]?\\d+)?";
    const plain = text.replace(/(\d),(?=\d{3})/g, "$1").trim();
    const found = plain.match(new RegExp(`^([<>]?)\\s*(${one})(?:\\s+to\\s+(${one}))?`, "i"));
    if (!found) return null;
    const [low, high] = [Number(found[2]), Number(found[3] ?? found[2])];
    return (low + high) / 2 * ({ "<": 0.999, ">": 1.001 }[found[1]] ?? 1);
  };

  // Sorts rows by a column, up or down. Missing values come last. Numbers sort as numbers.
  const sorted = (rows, column, down) => {
    const cells = rows.map(row => row.cells[column].textContent.trim());
    const missing = cells.map(text => ["", "–", "-"].includes(text));
    const numbers = cells.map(number), words = new Intl.Collator("en", { numeric: true });
    const numeric = numbers.every((value, i) => missing[i] || value !== null);
    const compare = (i, j) => numeric ? numbers[i] - numbers[j] : words.compare(cells[i], cells[j]);
    return [...rows.keys()]
      .sort((i, j) => missing[i] - missing[j] || (missing[i] ? 0 : (down ? -1 : 1) * compare(i, j)))
      .map(i => rows[i]);
  };

  // Makes a button of each head of a table: upwards, downwards, the first order again. Chromium does
  // not repeat <button> on the next page of paper, so it is another element.
  const sortable = table => {
    const body = table.tBodies[0], first = [...body.rows], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("span");
      [button.role, button.tabIndex] = ["button", 0];
      button.append(...head.childNodes);
      if (!head.textContent.trim()) button.setAttribute("aria-label", "row");
      head.append(button);
      button.addEventListener("keydown", event => {
        if (![" ", "Enter"].includes(event.key)) return;
        event.preventDefault();
        button.click();
      });
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: null }[head.ariaSort];
        const order = next === undefined ? "ascending" : next;
        heads.forEach(other => other.removeAttribute("aria-sort"));
        if (order) head.setAttribute("aria-sort", order);
        body.append(...(order ? sorted(first, column, order === "descending") : first));
      });
    });
  };

  // Opens figures large, in a dialog. Escape closes it; arrows show the previous and next figure.
  const enlarge = figures => {
    const dialog = document.createElement("dialog"), picture = document.createElement("img");
    const bar = document.createElement("div"), box = document.createElement("div");
    const title = document.createElement("b");
    let shown = 0;
    const show = index => {
      shown = (index + figures.length) % figures.length;
      const image = figures[shown].querySelector("img");
      [picture.src, picture.alt] = [image.src, image.alt];
      box.append(picture);
      title.textContent = figures[shown].querySelector("figcaption b").textContent;
      dialog.setAttribute("aria-label", title.textContent);
      dialog.scrollTo(0, 0);
    };
    const button = (words, label, act) => {
      const made = document.createElement("button");
      [made.type, made.textContent, made.ariaLabel] = ["button", words, label];
      made.addEventListener("click", act);
      return made;
    };
    bar.append(title, ...(figures.length > 1 ? [
      button("←", "Previous figure", () => show(shown - 1)),
      button("→", "Next figure", () => show(shown + 1)),
    ] : []), button("Close", "Close", () => dialog.close()));
    box.className = "wide";
    box.tabIndex = 0;
    dialog.className = "large";
    dialog.append(bar, box);
    document.body.append(dialog);
    dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && figures.length > 1) show(shown + step);
    });
    figures.forEach((figure, index) => {
      const open = () => { show(index); dialog.showModal(); };
      figure.querySelector("img").addEventListener("click", open);
      const name = figure.querySelector("figcaption b").textContent;
      const opener = button("Enlarge", `Enlarge ${name}`, open);
      opener.className = "enlarge";
      figure.querySelector("figcaption").append(" ", opener);
    });
    addEventListener("beforeprint", () => dialog.close());
  };

  // Marks the section in view in the contents.
  const follow = () => {
    const links = [...document.querySelectorAll(".contents > details > ol > li > a")];
    const heads = links.map(link => document.getElementById(link.hash.slice(1)));
    let asked = false;
    const mark = () => {
      asked = false;
      const tops = heads.map(head => head.getBoundingClientRect().top);
      const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
      const passed = end ? tops.length : tops.filter(top => top < innerHeight / 3).length;
      const at = Math.max(0, passed - 1);
      links.forEach((link, i) => {
        if (i === at) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    };
    const ask = () => { if (!asked) { asked = true; requestAnimationFrame(mark); } };
    addEventListener("scroll", ask, { passive: true });
    addEventListener("resize", ask);
    mark();
    contents.addEventListener("click", event => {
      if (!wide.matches && event.target.closest("a")) contents.open = false;
    });
  };

  addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll(".sortable table")) {
      if (table.tHead && table.tBodies[0].rows.length > 2) sortable(table);
    }
    const figures = [...document.querySelectorAll("figure:has(img)")];
    if (figures.length) enlarge(figures);
    follow();
    // Paper shows the rows of every table.
    const closed = document.getElementsByClassName("long");
    addEventListener("beforeprint", () => { for (const one of closed) one.open = true; });
  });
}
