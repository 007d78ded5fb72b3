// The settings beside the picture: seed, shape, steps, style, guidance.

import { byId, button, html, input, make, mark, onSeed, style } from "./dom.js";
import { randomSeed } from "./state.js";

/** @import { Hello, Settings } from "./types.js" */
/** @import { Store } from "./state.js" */

/** Aspects by name; areas are those of the model's own size, unless the model says which sizes it paints. */
/** @type {ReadonlyArray<readonly [string, number]>} */
const SHAPES = [
  ["Square", 1],
  ["Landscape 3:2", 3 / 2],
  ["Portrait 2:3", 2 / 3],
  ["Wide 16:9", 16 / 9],
  ["Tall 9:16", 9 / 16],
];

/**
 * @param {number} aspect
 * @param {Hello} hello
 * @returns {[number, number]} width and height in pixels that the model takes
 */
export function sizeFor(aspect, { model, limits }) {
  const side = (/** @type {number} */ px) => {
    const multiple = model.size_multiple;
    return Math.min(Math.max(Math.round(px / multiple), 1) * multiple, Math.floor(limits.max_side_px / multiple) * multiple);
  };
  const away = (/** @type {[number, number]} */ [w, h]) => Math.abs(Math.log(w / h / aspect));
  const [first, ...rest] = model.sizes;
  if (first) return rest.reduce((best, size) => (away(size) < away(best) ? size : best), first);
  if (aspect === 1) return [model.width, model.height];
  const area = model.width * model.height;
  return [side(Math.sqrt(area * aspect)), side(Math.sqrt(area / aspect))];
}

export class Panel {
  #store;
  /** @type {Hello | null} */
  #hello = null;
  locked = true;

  /**
   * @param {Store} store
   * @param {(prompts: {label: string, prompt: string}[]) => void} compare paints the prompt in every style
   */
  constructor(store, compare) {
    this.#store = store;
    button("styles-compare").addEventListener("click", () => {
      const styles = this.#hello?.model.styles ?? [];
      const prompt = withoutStyles(store.now.prompt, styles);
      compare(styles.map((name) => ({ label: name, prompt: `${prompt}, ${name}` })));
    });
    const set = (/** @type {Partial<Settings>} */ patch) => store.set(patch, "control");
    onSeed(input("seed"), (seed) => {
      if (seed !== null) set({ seed });
    });
    for (const id of ["dice", "dice-thumb"]) button(id).addEventListener("click", () => this.anotherSeed());
    button("seed-lock").addEventListener("click", () => this.toggleLock());
    input("steps").addEventListener("input", () => set({ steps: input("steps").valueAsNumber }));
    input("guidance").addEventListener("input", () => set({ guidance_scale: input("guidance").valueAsNumber }));
    input("strength").addEventListener("input", () => set({ strength: input("strength").valueAsNumber }));
    const negative = byId("negative", HTMLTextAreaElement);
    negative.addEventListener("input", () => set({ negative_prompt: negative.value }));
    button("settings-toggle").addEventListener("click", () => this.sheet(html("panel").dataset.open !== "true"));
    button("panel-close").addEventListener("click", () => this.sheet(false));
    html("panel").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.sheet(false);
    });
    this.#showLock();
  }

  anotherSeed() {
    this.#store.set({ seed: randomSeed() }, "control");
  }

  toggleLock() {
    this.locked = !this.locked;
    this.#showLock();
  }

  #showLock() {
    const lock = button("seed-lock");
    mark(lock, "aria-pressed", this.locked);
    lock.title = this.locked ? "Enter keeps this seed" : "Enter takes another seed";
    lock.querySelector("use")?.setAttribute("href", this.locked ? "#i-lock" : "#i-unlock");
  }

  /** The panel as a sheet, on a phone. */
  /** @param {boolean} open */
  sheet(open) {
    html("panel").dataset.open = String(open);
    mark(button("settings-toggle"), "aria-expanded", open);
    if (open) button("panel-close").focus({ preventScroll: true });
  }

  /** @param {Hello} hello */
  setModel(hello) {
    this.#hello = hello;
    const { model, limits } = hello;
    input("steps").max = String(Math.min(limits.max_steps, Math.max(8, model.num_inference_steps * 2)));
    html("guidance-group").hidden = !model.uses_guidance;
    html("styles-group").hidden = model.styles.length === 0;
    html("styles").replaceChildren(...model.styles.map((name) => this.#styleChip(name)));
    const shapes = new Map();
    for (const [name, aspect] of SHAPES) {
      const size = sizeFor(aspect, hello);
      if (!shapes.has(String(size))) shapes.set(String(size), this.#shape(name, size));
    }
    html("shapes").replaceChildren(...shapes.values());
    html("shapes-group").hidden = shapes.size < 2;
    html("model-line").textContent = `${model.name}, ${model.width} × ${model.height}, prima ${hello.version}`;
    this.show(this.#store.now);
  }

  /** @param {string} name */
  #styleChip(name) {
    const chip = make("button", { type: "button", "aria-pressed": "false" }, name);
    chip.dataset.style = name;
    chip.addEventListener("click", () => {
      const prompt = withoutStyles(this.#store.now.prompt, this.#hello?.model.styles ?? []);
      const on = chip.getAttribute("aria-pressed") === "true";
      this.#store.set({ prompt: on ? prompt : `${prompt}, ${name}` }, "control");
    });
    return chip;
  }

  /**
   * @param {string} name
   * @param {[number, number]} size width and height in pixels
   */
  #shape(name, [width, height]) {
    const title = `${name}, ${width} × ${height}`;
    const choice = make("button", { type: "button", role: "radio", title, "aria-label": title });
    choice.dataset.size = `${width}x${height}`;
    const long = 20 / Math.max(width, height);
    style(choice, { w: Math.round(width * long), h: Math.round(height * long) });
    choice.addEventListener("click", () => this.#store.set({ width, height }, "control"));
    return choice;
  }

  /** @param {Settings} settings */
  show(settings) {
    const model = this.#hello?.model;
    value("seed", settings.seed);
    const steps = settings.steps ?? model?.num_inference_steps;
    value("steps", steps);
    html("steps-value").textContent = String(steps ?? "");
    const guidance = settings.guidance_scale ?? model?.guidance_scale;
    value("guidance", guidance);
    html("guidance-value").textContent = String(guidance ?? "");
    const strength = settings.strength ?? model?.strength;
    value("strength", strength);
    html("strength-value").textContent = strength?.toFixed(2) ?? "";
    const negative = byId("negative", HTMLTextAreaElement);
    if (negative.value !== settings.negative_prompt) negative.value = settings.negative_prompt;
    const size = `${settings.width ?? model?.width}x${settings.height ?? model?.height}`;
    for (const choice of html("shapes").children) {
      mark(choice, "aria-checked", choice instanceof HTMLElement && choice.dataset.size === size);
    }
    for (const chip of html("styles").children) {
      const name = chip instanceof HTMLElement ? (chip.dataset.style ?? "") : "";
      mark(chip, "aria-pressed", settings.prompt.endsWith(`, ${name}`));
    }
  }
}

/**
 * @param {string} id
 * @param {number | undefined} number
 */
function value(id, number) {
  const field = input(id);
  const text = String(number ?? "");
  if (field.value !== text && (document.activeElement !== field || field.type === "range")) field.value = text;
}

/**
 * @param {string} prompt
 * @param {string[]} styles
 */
export function withoutStyles(prompt, styles) {
  const found = styles.find((name) => prompt.endsWith(`, ${name}`));
  return found ? prompt.slice(0, -found.length - 2) : prompt;
}
