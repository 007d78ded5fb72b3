// The grid: the same prompt with several seeds, with one word swapped several ways, or in several styles. Press one to take it.

import { button, context2d, html, make, mark, style } from "./dom.js";
import { randomSeed } from "./state.js";

/** @import { Frame, Settings } from "./types.js" */

/** @typedef {{label: string, take: Partial<Settings>}} Choice */
/** @typedef {{title: string, prompts: {label: string, prompt: string}[]}} Swap */
/** @typedef {{title: string, fields: {seeds?: number[], prompts?: string[]}, choices: Choice[]}} Ask */

const GAP_MS = 300;

export class Variants {
  #grid = html("variants-grid");
  #more = button("variants-more");
  #back = button("variants-seeds");
  #counts = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[data-count]")]);
  #count = 9;
  /** First seed of the grid; the others follow from it. */
  #first = randomSeed();
  /** @type {Swap | null} */
  #swap = null;
  /** @type {number | undefined} */
  #timer;
  #rev = 0;
  #settings;
  #paint;
  #take;

  /**
   * @param {() => Settings} settings
   * @param {(fields: {seeds?: number[], prompts?: string[]}, frame: (frame: Frame) => void) => number | null} paint
   * @param {(patch: Partial<Settings>, frame: Frame) => void} take
   */
  constructor(settings, paint, take) {
    this.#settings = settings;
    this.#paint = paint;
    this.#take = take;
    this.#more.addEventListener("click", () => this.others());
    this.#back.addEventListener("click", () => this.show(null));
    for (const choice of this.#counts) {
      choice.addEventListener("click", () => {
        this.#count = Number(choice.dataset.count);
        this.refresh(0);
      });
    }
  }

  /** @param {number} most what the server paints at once */
  limit(most) {
    for (const choice of this.#counts) choice.hidden = Number(choice.dataset.count) > most;
    this.#count = Math.min(this.#count, most);
  }

  /** @param {Swap | null} swap null: seeds */
  show(swap) {
    this.#swap = swap;
    this.#back.hidden = !swap;
    this.#more.hidden = Boolean(swap);
    this.refresh(0);
  }

  /** The prompt was edited: a swapped word no longer stands where it stood. */
  edited() {
    if (this.#swap) this.show(null);
    else this.refresh();
  }

  others() {
    this.#first = randomSeed();
    this.refresh(0);
  }

  /** @param {number} [wait_ms] typing waits for a pause: a grid is many pictures */
  refresh(wait_ms = GAP_MS) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#start(), wait_ms);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#rev = 0;
  }

  #start() {
    const ask = this.#swap ? swapAsk(this.#swap, this.#count) : this.#seedAsk();
    html("variants-title").textContent = ask.title;
    for (const choice of this.#counts) mark(choice, "aria-checked", Number(choice.dataset.count) === this.#count);
    this.#lay(ask.choices);
    const rev = this.#paint(ask.fields, (frame) => {
      if (frame.header.rev === this.#rev) void this.#draw(frame, ask.choices);
    });
    this.#rev = rev ?? 0;
  }

  /** @returns {Ask} */
  #seedAsk() {
    const { seed } = this.#settings();
    const seeds = [seed, ...Array.from({ length: this.#count - 1 }, (_, i) => (this.#first + i * 7919) % 2 ** 32)];
    return {
      title: `${seeds.length} seeds`,
      fields: { seeds },
      choices: seeds.map((s) => ({ label: `seed ${s}`, take: { seed: s } })),
    };
  }

  /** @param {Choice[]} choices */
  #lay(choices) {
    style(this.#grid, { columns: Math.ceil(Math.sqrt(choices.length)) });
    const cells = [...this.#grid.querySelectorAll("button")];
    if (cells.length !== choices.length) {
      const items = choices.map(() => make("li", {}, make("button", { type: "button" }, make("canvas"), make("span"))));
      this.#grid.replaceChildren(...items);
    }
    this.#grid.querySelectorAll("button").forEach((cell, i) => {
      cell.dataset.waiting = "true";
      const label = choices[i]?.label ?? "";
      cell.setAttribute("aria-label", `${label}, not painted yet`);
      const caption = cell.querySelector("span");
      if (caption) caption.textContent = this.#swap ? label : "";
      cell.onclick = null;
    });
  }

  /**
   * @param {Frame} frame
   * @param {Choice[]} choices
   */
  async #draw(frame, choices) {
    const bitmap = await createImageBitmap(frame.blob, { colorSpaceConversion: "none" });
    const cell = this.#grid.querySelectorAll("button")[frame.header.index];
    const choice = choices[frame.header.index];
    const surface = cell?.querySelector("canvas");
    if (!cell || !choice || !surface || frame.header.rev !== this.#rev) return bitmap.close();
    const scale = Math.max(1, Math.ceil((cell.clientWidth * devicePixelRatio) / bitmap.width));
    surface.width = bitmap.width * scale;
    surface.height = bitmap.height * scale;
    const context = context2d(surface);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, surface.width, surface.height);
    bitmap.close();
    cell.dataset.waiting = "false";
    cell.setAttribute("aria-label", `Take ${choice.label}`);
    cell.onclick = () => this.#take(choice.take, frame);
  }
}

/**
 * @param {Swap} swap
 * @param {number} most
 * @returns {Ask}
 */
function swapAsk(swap, most) {
  const prompts = swap.prompts.slice(0, most);
  return {
    title: swap.title,
    fields: { prompts: prompts.map(({ prompt }) => prompt) },
    choices: prompts.map(({ label, prompt }) => ({ label, take: { prompt } })),
  };
}
