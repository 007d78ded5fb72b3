// Parts of the picture with prompts of their own: fields in the panel, and boxes over the picture to move and size.

import { button, html, make, style } from "./dom.js";

/** @import { Region } from "./types.js" */

/** As many as the server takes. */
const MOST = 8;
/** Where new ones lie, in turn. */
/** @type {Region["area"][]} */
const PLACES = [
  [0, 0, 0.5, 1],
  [0.5, 0, 1, 1],
  [0.25, 0.25, 0.75, 0.75],
];
/** A part of less than this of a side is no part. */
const LEAST = 0.1;
/** By which arrow keys move, as a share of a side. */
const KEY = 0.05;

/**
 * What a request says of them.
 * @param {readonly Region[]} regions
 * @returns {Region[] | undefined}
 */
export function regionsOf(regions) {
  const worded = regions.filter(({ prompt }) => prompt.trim() !== "");
  return worded.length > 0 ? worded : undefined;
}

export class Regions {
  #rows = html("regions");
  #boxes = html("region-boxes");
  #add = button("region-add");
  /** @type {readonly Region[]} */
  #now = [];
  #change;

  /** @param {(regions: Region[]) => void} change */
  constructor(change) {
    this.#change = change;
    this.#add.addEventListener("click", () => {
      const area = PLACES[this.#now.length % PLACES.length] ?? [0, 0, 1, 1];
      change([...this.#now, { prompt: "", area }]);
      this.#rows.lastElementChild?.querySelector("input")?.focus();
    });
  }

  /** @param {readonly Region[]} regions */
  show(regions) {
    this.#now = regions;
    this.#add.disabled = regions.length >= MOST;
    fill(this.#rows, regions.length, (i) => this.#row(i));
    fill(this.#boxes, regions.length, (i) => this.#box(i));
    regions.forEach(({ prompt, area: [left, top, right, bottom] }, i) => {
      const field = this.#rows.children[i]?.querySelector("input");
      if (field && document.activeElement !== field) field.value = prompt;
      const box = this.#boxes.children[i];
      if (!(box instanceof HTMLElement)) return;
      style(box, { left, top, right: 1 - right, bottom: 1 - bottom });
      box.setAttribute("aria-label", `Region ${i + 1}, ${prompt || "no words"}: arrow keys move it, with Shift they size it`);
    });
  }

  /** @param {number} i */
  #row(i) {
    const field = make("input", { type: "text", placeholder: "what is there", "aria-label": `Prompt of region ${i + 1}`, autocomplete: "off", autocapitalize: "none" });
    field.addEventListener("input", () => this.#set(i, { prompt: field.value }));
    for (const [event, on] of /** @type {const} */ ([["focus", "true"], ["blur", "false"]])) {
      field.addEventListener(event, () => (this.#boxes.dataset.on = on));
    }
    const remove = make("button", { type: "button", className: "quiet", title: "Remove", "aria-label": `Remove region ${i + 1}` }, "×");
    remove.addEventListener("click", () => this.#change(this.#now.filter((_, k) => k !== i)));
    return make("div", { className: "row" }, make("span", { className: "region-mark" }, String(i + 1)), field, remove);
  }

  /** @param {number} i */
  #box(i) {
    const box = make("div", { className: "region-box", tabIndex: 0, role: "group" }, make("span", { className: "region-mark" }, String(i + 1)), make("i"));
    /** @type {{x: number, y: number, area: Region["area"], sizes: boolean} | null} */
    let drag = null;
    box.addEventListener("pointerdown", (event) => {
      const area = this.#now[i]?.area;
      if (event.button !== 0 || !area) return;
      event.preventDefault();
      box.focus({ preventScroll: true });
      box.setPointerCapture(event.pointerId);
      drag = { x: event.clientX, y: event.clientY, area, sizes: event.target instanceof HTMLElement && event.target.tagName === "I" };
    });
    box.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const whole = this.#boxes.getBoundingClientRect();
      const by = [(event.clientX - drag.x) / whole.width, (event.clientY - drag.y) / whole.height];
      this.#set(i, { area: moved(drag.area, by, drag.sizes) });
    });
    for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => (drag = null));
    box.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-KEY, 0], ArrowRight: [KEY, 0], ArrowUp: [0, -KEY], ArrowDown: [0, KEY] }[event.key];
      const area = this.#now[i]?.area;
      if (!by || !area) return;
      event.preventDefault();
      event.stopPropagation();
      this.#set(i, { area: moved(area, by, event.shiftKey) });
    });
    return box;
  }

  /**
   * @param {number} i
   * @param {Partial<Region>} patch
   */
  #set(i, patch) {
    this.#change(this.#now.map((region, k) => (k === i ? { ...region, ...patch } : region)));
  }
}

/**
 * @param {HTMLElement} box
 * @param {number} count
 * @param {(i: number) => HTMLElement} one
 */
function fill(box, count, one) {
  while (box.children.length > count) box.lastElementChild?.remove();
  while (box.children.length < count) box.append(one(box.children.length));
}

/**
 * An area moved, or its right bottom corner, inside the picture.
 * @param {Region["area"]} area
 * @param {number[]} by shares of the sides
 * @param {boolean} sizes
 * @returns {Region["area"]}
 */
function moved([left, top, right, bottom], [dx = 0, dy = 0], sizes) {
  const within = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) => Math.round(Math.min(Math.max(value, low), high) * 1000) / 1000;
  if (sizes) return [left, top, within(right + dx, left + LEAST, 1), within(bottom + dy, top + LEAST, 1)];
  const [x, y] = [within(dx, -left, 1 - right), within(dy, -top, 1 - bottom)];
  const at = (/** @type {number} */ value) => within(value, 0, 1);
  return [at(left + x), at(top + y), at(right + x), at(bottom + y)];
}
