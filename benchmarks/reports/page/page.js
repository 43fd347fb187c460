"use strict";
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));

// Sortable tables: a number sorts by data-value, what has none comes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  for (const head of heads) {
    const button = head.querySelector(".sort");
    if (!button) continue;
    button.addEventListener("click", () => {
      const column = heads.indexOf(head);
      const numbers = head.classList.contains("number");
      const first = numbers ? "descending" : "ascending";
      const again = head.getAttribute("aria-sort") === first;
      const order = again ? (numbers ? "ascending" : "descending") : first;
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => {
        const cell = row.cells[column];
        if (!numbers) return cell.textContent.trim();
        return cell.dataset.value ? Number(cell.dataset.value) : null;
      };
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (numbers ? x - y : x.localeCompare(y));
      };
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(compare));
    });
  }
}

// The viewer shows the images of the table below it: one layer on the left, one on the right, and an edge to slide.
const viewer = document.querySelector("[data-viewer]");
if (viewer) {
  const find = (what) => viewer.querySelector(what);
  const stage = find(".stage");
  const layers = find(".layers");
  const [under, over, edge] = [find(".under"), find(".over"), find(".edge")];
  const [wipe, choice] = [find("[data-wipe]"), find("[data-image]")];
  const picks = new Map([...document.querySelectorAll(".pick")].map((pick) => [pick.dataset.at, pick]));
  const base = find("[data-base]");
  const radios = [...viewer.querySelectorAll("input[name=right]")];
  const right = () => radios.find((radio) => radio.checked);
  const sides = {
    left: () => [base.value, base.selectedOptions[0].textContent],
    right: () => [right().value, right().nextElementSibling.textContent],
  };
  let zoom = 1;
  let x = 0;
  let y = 0;

  const nameOf = (side) => {
    const [index, name] = sides[side]();
    const pick = picks.get(`${choice.value} ${index}`);
    if (!pick) return `${name}: not saved`;
    return pick.dataset.score ? `${name} ${pick.dataset.score}` : name;
  };
  const put = (image, side) => {
    const pick = picks.get(`${choice.value} ${sides[side]()[0]}`);
    const source = pick && pick.querySelector("img");
    image.style.visibility = source ? "visible" : "hidden";
    if (!source) return;
    image.src = source.src;
    image.alt = source.alt;
  };
  const slide = () => {
    over.style.clipPath = `inset(0 0 0 ${wipe.value}%)`;
    edge.style.left = `${wipe.value}%`;
    edge.style.borderLeftWidth = `${2 / zoom}px`;
  };
  const move = () => {
    const [width, height] = [stage.clientWidth, stage.clientHeight];
    x = Math.min(0, Math.max(width * (1 - zoom), x));
    y = Math.min(0, Math.max(height * (1 - zoom), y));
    layers.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    stage.classList.toggle("zoomed", zoom > 1);
    find("[data-zoomed]").textContent = `${Math.round(100 * zoom)} %`;
    slide();
  };
  const zoomTo = (value, atX = stage.clientWidth / 2, atY = stage.clientHeight / 2) => {
    const next = Math.min(8, Math.max(1, value));
    x = atX - ((atX - x) * next) / zoom;
    y = atY - ((atY - y) * next) / zoom;
    zoom = next;
    move();
  };
  const show = () => {
    put(under, "left");
    put(over, "right");
    find("[data-left]").textContent = nameOf("left");
    find("[data-right]").textContent = nameOf("right");
    const shown = picks.get(`${choice.value} ${right().value}`);
    const prompt = find("[data-prompt]");
    prompt.replaceChildren();
    if (shown && shown.dataset.prompt) {
      const quote = document.createElement("q");
      quote.textContent = shown.dataset.prompt;
      prompt.append("Prompt: ", quote);
    }
    picks.forEach((pick) => pick.removeAttribute("aria-current"));
    if (shown) shown.setAttribute("aria-current", "true");
    slide();
  };
  const turn = (by) => {
    choice.selectedIndex = (choice.selectedIndex + by + choice.options.length) % choice.options.length;
    show();
  };
  const layer = (by) => {
    radios[(radios.indexOf(right()) + by + radios.length) % radios.length].checked = true;
    show();
  };
  const shift = (by) => {
    wipe.value = Number(wipe.value) + by;
    slide();
  };

  viewer.hidden = false;
  wipe.addEventListener("input", slide);
  viewer.addEventListener("change", show);
  for (const button of viewer.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => turn(Number(button.dataset.step)));
  }
  for (const button of viewer.querySelectorAll("[data-zoom]")) {
    const by = Number(button.dataset.zoom);
    button.addEventListener("click", () => zoomTo(by ? zoom * 1.5 ** by : 1));
  }
  const keys = {
    ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), ArrowUp: () => layer(-1), ArrowDown: () => layer(1),
    "+": () => zoomTo(zoom * 1.5), "=": () => zoomTo(zoom * 1.5), "-": () => zoomTo(zoom / 1.5), 0: () => zoomTo(1),
    ",": () => shift(-5), ".": () => shift(5),
  };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  const within = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  stage.addEventListener("dblclick", (event) => zoomTo(zoom > 1 ? 1 : 3, ...within(event)));
  stage.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    if (zoom > 1) {
      x += event.movementX;
      y += event.movementY;
      move();
    } else {
      wipe.value = (100 * within(event)[0]) / stage.clientWidth;
      slide();
    }
  });
  for (const pick of picks.values()) {
    pick.addEventListener("click", () => {
      const [image, index] = pick.dataset.at.split(" ");
      choice.value = image;
      radios[index].checked = true;
      show();
      viewer.scrollIntoView({ block: "nearest" });
    });
  }
  show();
}
