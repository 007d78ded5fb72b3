// What the model can paint: prompts to begin with, and the words that it learnt.

import { button, byId, html, input, make } from "./dom.js";

/** @import { ModelInfo, WordGroup } from "./types.js" */

export class Starters {
  #row = html("starters");
  #ideas = button("ideas");
  #dialog = byId("vocabulary", HTMLDialogElement);
  #filter = input("vocabulary-filter");
  #groups = html("vocabulary-groups");
  /** @type {string[]} */
  #prompts = [];
  /** @type {WordGroup[]} */
  #vocabulary = [];
  #choose;

  /**
   * @param {(prompt: string) => void} choose paints a prompt
   * @param {() => string} prompt the present one
   */
  constructor(choose, prompt) {
    this.#choose = choose;
    this.#ideas.addEventListener("click", () => this.open());
    this.#filter.addEventListener("input", () => this.#list());
    this.#groups.addEventListener("click", ({ target }) => {
      const word = target instanceof HTMLButtonElement && target.textContent;
      if (!word) return;
      const before = prompt().trim();
      this.#dialog.close();
      choose(before === "" ? word : `${before}, ${word}`);
    });
  }

  /** @param {ModelInfo} model */
  setModel({ prompts = [], vocabulary = [] }) {
    this.#prompts = prompts;
    this.#vocabulary = vocabulary;
    this.#ideas.hidden = prompts.length + vocabulary.length === 0;
    for (const place of [this.#row, html("vocabulary-prompts")]) {
      place.replaceChildren(...prompts.map((prompt) => this.#chip(prompt)));
    }
  }

  /**
   * The row is for who has not begun yet.
   * @param {string} prompt
   * @param {string} first what the page begins with
   */
  show(prompt, first) {
    const begins = prompt.trim() === "" || prompt === first || this.#prompts.includes(prompt);
    this.#row.hidden = !begins || this.#prompts.length === 0;
    for (const chip of this.#row.children) chip.setAttribute("aria-pressed", String(chip.textContent === prompt));
  }

  open() {
    if (this.#ideas.hidden) return;
    this.#filter.value = "";
    this.#list();
    this.#dialog.showModal();
  }

  /** @param {string} prompt */
  #chip(prompt) {
    const chip = make("button", { type: "button", "aria-pressed": "false" }, prompt);
    chip.addEventListener("click", () => {
      this.#dialog.close();
      this.#choose(prompt);
    });
    return chip;
  }

  #list() {
    const part = this.#filter.value.trim().toLowerCase();
    const found = this.#vocabulary
      .map(({ name, words }) => ({ name, words: words.filter((word) => word.toLowerCase().includes(part)) }))
      .filter(({ words }) => words.length > 0);
    const sections = found.map(({ name, words }) => {
      const chips = words.map((word) => make("button", { type: "button" }, word));
      return make("section", {}, make("h3", {}, name), make("div", { className: "chips" }, ...chips));
    });
    const none = make("p", { className: "muted" }, "No such word. Words that mean about the same are understood too: type it and see.");
    this.#groups.replaceChildren(...(sections.length ? sections : [none]));
  }
}
