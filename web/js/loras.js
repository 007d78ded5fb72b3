// LoRAs of the server: a chip for each, and a slider for the weight of each that is on.

import { html, make, mark } from "./dom.js";

/** @import { Settings } from "./types.js" */

export class Loras {
  /** @type {string[]} */
  #names = [];
  /** @type {Readonly<Record<string, number>>} */
  #chosen = {};
  #choose;

  /** @param {(chosen: Record<string, number>) => void} choose takes weights by name */
  constructor(choose) {
    this.#choose = choose;
  }

  /**
   * @param {string[]} names
   * @param {Settings} settings
   */
  offer(names, settings) {
    this.#names = names;
    html("loras-group").hidden = names.length === 0;
    html("loras").replaceChildren(...names.map((name) => this.#chip(name)));
    html("lora-weights").replaceChildren();
    this.show(settings);
  }

  /** @param {Settings} settings */
  show({ loras }) {
    this.#chosen = loras;
    for (const chip of html("loras").children) mark(chip, "aria-pressed", (chip.textContent ?? "") in loras);
    const box = html("lora-weights");
    const rows = /** @type {HTMLElement[]} */ ([...box.children]);
    for (const row of rows) if (!((row.dataset.name ?? "") in loras)) row.remove();
    for (const [name, weight] of Object.entries(loras)) {
      if (!this.#names.includes(name)) continue;
      const row = rows.find((row) => row.dataset.name === name) ?? this.#slider(name);
      const [slider, said] = [row.querySelector("input"), row.querySelector("output")];
      if (slider) slider.value = String(weight);
      if (said) said.textContent = weight.toFixed(2);
      if (!row.isConnected) box.append(row);
    }
  }

  /**
   * The same settings with LoRAs of the server that a prompt names in tags, as a saved picture's does, for chosen ones.
   * @param {Partial<Settings>} settings
   * @returns {Partial<Settings>}
   */
  untagged(settings) {
    /** @type {Record<string, number>} */
    const loras = {};
    const prompt = settings.prompt?.replace(/\s*<lora:([^:<>]+):(-?[\d.]+)>/g, (tag, name, weight) => {
      if (!this.#names.includes(name)) return tag;
      loras[name] = Number(weight);
      return "";
    });
    return prompt === undefined ? settings : { ...settings, prompt, loras };
  }

  /** @param {string} name */
  #chip(name) {
    const chip = make("button", { type: "button", title: name, "aria-pressed": "false" }, name);
    chip.addEventListener("click", () => {
      const { [name]: weight, ...others } = this.#chosen;
      this.#choose(weight === undefined ? { ...others, [name]: 1 } : others);
    });
    return chip;
  }

  /** @param {string} name */
  #slider(name) {
    const slider = make("input", { type: "range", min: "-1", max: "2", step: "0.05", "aria-label": `Weight of ${name}` });
    slider.addEventListener("input", () => this.#choose({ ...this.#chosen, [name]: slider.valueAsNumber }));
    const row = make("label", { className: "slim" }, make("span", { title: name }, name), slider, make("output"));
    row.dataset.name = name;
    return row;
  }
}
